"""Classes whose scores are so near to each other that rounding decides which is better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASSES
from probegen.artefact.rows import as_described
from probegen.parity.comparison import TOLERANCES
from probegen.plan.plan import Plan, TargetPlan

Array = npt.NDArray[np.generic]


def with_ties_settled(
    got: Mapping[str, Array], expected: Mapping[str, Array], plan: Plan, computed_in: str
) -> dict[str, Array]:
    """Returns an artefact's outputs as the reference has them in samples where rounding decides.

    That is where it explains other classes than the reference, and the model's own prediction
    gives each of them what it gives the class that the reference has in its place. Such a sample
    says nothing, neither of the classes nor of what explains them; the others do.

    Args:
        got: what the artefact gave, rows first.
        expected: the reference, rows first.
        plan: what was asked for.
        computed_in: the coarsest element type that the model computes in.
    """
    changed = dict(got)
    for group in plan.groups:
        for output in group.outputs:
            for name in output.beside_of(CLASSES):
                if changed[name].shape != expected[name].shape:
                    continue
                rows = _tied(group.target, changed[name], expected, name, plan, computed_in)
                for own in (name, output.spec.name) if rows.any() else ():
                    if changed[own].shape == expected[own].shape:
                        changed[own] = changed[own].copy()
                        changed[own][rows] = expected[own][rows]
    return changed


def _tied(
    target: TargetPlan,
    classes: Array,
    expected: Mapping[str, Array],
    name: str,
    plan: Plan,
    computed_in: str,
) -> npt.NDArray[np.bool_]:
    """Tells in which samples the classes differ, and only where their scores do not."""
    known = next((o for o in plan.manifest.predictions if o.name == target.spec.output), None)
    differ = classes != expected[name]
    nothing = np.zeros(len(classes), bool)
    if known is None or not differ.any():
        return nothing
    scores = np.asarray(target.arranged(as_described(expected[known.name], known.axes)), np.float64)
    ours, theirs = (
        np.take_along_axis(scores, np.moveaxis(c, 1, -1).astype(np.int64), -1)
        for c in (np.clip(classes, 0, scores.shape[-1] - 1), expected[name])
    )
    size = np.maximum(np.abs(ours), np.abs(theirs))
    if not known.detail.get("activation"):  # probabilities are exact relative to themselves
        size = np.maximum(size, np.abs(scores).max(axis=-1, keepdims=True))
    limit = TOLERANCES[computed_in] * size
    near = np.moveaxis(np.abs(ours - theirs) <= limit, -1, 1) | ~differ
    flat = near.reshape(len(near), -1).all(axis=1)
    found: npt.NDArray[np.bool_] = differ.reshape(len(near), -1).any(axis=1) & flat
    return found
