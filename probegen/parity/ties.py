"""Classes whose scores are so near to each other that rounding decides which is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASSES, COMPLETENESS, KEYS
from probegen.artefact.rows import as_described
from probegen.parity.comparison import TOLERANCES
from probegen.plan.plan import Plan, TargetPlan
from probegen.plan.raw_gradients import candidates_of

Array = npt.NDArray[np.generic]


#: Returns the scores of each group of a plan, classes last.
Scores = Callable[[], Sequence[npt.NDArray[Any]]]


def with_ties_settled(
    got: Mapping[str, Array],
    expected: Mapping[str, Array],
    plan: Plan,
    computed_in: str,
    scores: Scores | None = None,
) -> dict[str, Array]:
    """Returns an artefact's outputs as the reference has them in samples where rounding decides.

    That is where it explains other classes than the reference, and the model's own prediction, or
    the layer whose channels they are, gives each of them what it gives the class that the
    reference has in its place. Such a sample says nothing, neither of the classes nor of what
    explains them; the others do.

    Args:
        got: what the artefact gave, rows first.
        expected: the reference, rows first.
        plan: what was asked for.
        computed_in: the coarsest element type that the model computes in.
        scores: what is explained, asked where it is no prediction; nothing where left out.
    """
    changed = dict(got)
    missing = {
        o.spec.name: o.beside_of(COMPLETENESS) for group in plan.groups for o in group.outputs
    }
    for target, explained, name in _of_classes(plan):
        if changed[name].shape != expected[name].shape:
            continue
        rows = _tied(target, changed[name], expected, name, plan, computed_in, scores)
        for own in (name, explained, *missing.get(explained, [])) if rows.any() else ():
            if changed[own].shape == expected[own].shape:
                changed[own] = changed[own].copy()
                changed[own][rows] = expected[own][rows]
    return changed


def with_keys_settled(
    got: Mapping[str, Array], expected: Mapping[str, Array], plan: Plan, computed_in: str
) -> dict[str, Array]:
    """Returns positions of the largest weights as the reference has them where they are right.

    Weights that are equal up to rounding stand in either order. An artefact's positions are right
    where they differ from each other, and the reference's own weights there are those that it has
    at its own positions.

    Args:
        got: what the artefact gave, rows first.
        expected: the reference, rows first, with all the weights.
        plan: what was asked for.
        computed_in: the coarsest element type that the model computes in.
    """
    changed = dict(got)
    for spec in (*(o.spec for o in plan.plain), *(c.spec for c in plan.chains)):
        name = spec.name
        if spec.kind != KEYS or changed[name].shape != expected[name].shape:
            continue
        right = _are_largest(
            changed[name], expected[name], expected[candidates_of(name)], computed_in
        )
        if right.any():
            changed[name] = changed[name].copy()
            changed[name][right] = expected[name][right]
    return changed


def _are_largest(
    ours: npt.NDArray[Any], theirs: npt.NDArray[Any], weights: npt.NDArray[Any], computed_in: str
) -> npt.NDArray[np.bool_]:
    """Tells in which samples positions are as right as the reference's."""
    count = weights.shape[-1]
    legal = (ours >= 0) & (ours < count)
    at_ours, at_theirs = (
        np.take_along_axis(weights, np.clip(p, 0, count - 1).astype(np.int64), -1)
        for p in (ours, theirs)
    )
    limit = TOLERANCES[computed_in] * np.abs(weights).max(-1, keepdims=True, initial=0.0)
    in_order = np.sort(ours, -1)
    twice = (in_order[..., 1:] == in_order[..., :-1]).any(-1, keepdims=True)
    right = legal & (np.abs(at_ours - at_theirs) <= limit) & ~twice
    found: npt.NDArray[np.bool_] = right.reshape(len(right), -1).all(axis=1)
    return found


def _of_layer(target: TargetPlan, plan: Plan, scores_of: Scores | None) -> npt.NDArray[Any] | None:
    """Returns what tells which channel of a layer is the best, `[batch, channel]`."""
    if scores_of is None or plan.manifest.region_input is not None:
        return None
    try:
        of_groups = scores_of()
    except Exception:  # a witness that cannot be heard proves nothing
        return None
    place = next(i for i, group in enumerate(plan.groups) if group.target is target)
    if place >= len(of_groups):
        return None
    scores = of_groups[place].astype(np.float64)
    return np.asarray(scores.sum(axis=tuple(range(1, scores.ndim - 1))))


def _of_classes(plan: Plan) -> Iterator[tuple[TargetPlan, str, str]]:
    """Yields the named outputs of several classes: target, name, and name of the classes."""
    of_part = {o.spec.name: g.target for g in plan.groups for o in g.outputs}
    inner = {name for chain in plan.chains for name in chain.gradients}
    for group in plan.groups:
        for output in group.outputs:
            if output.spec.name not in inner:
                for name in output.beside_of(CLASSES):
                    yield group.target, output.spec.name, name
    for chain in plan.chains:
        for spec in chain.beside:
            yield of_part[chain.gradients[0]], chain.spec.name, spec.name


def _tied(
    target: TargetPlan,
    classes: Array,
    expected: Mapping[str, Array],
    name: str,
    plan: Plan,
    computed_in: str,
    scores_of: Scores | None,
) -> npt.NDArray[np.bool_]:
    """Tells in which samples the classes differ, and only where their scores do not."""
    known = next((o for o in plan.manifest.predictions if o.name == target.spec.output), None)
    differ = classes != expected[name]
    nothing = np.zeros(len(classes), bool)
    if not differ.any():
        return nothing
    if target.spec.layer is not None:
        known, scores = None, _of_layer(target, plan, scores_of)
    elif known is not None:
        scores = np.asarray(target.arranged(as_described(expected[known.name], known.axes)))
    else:
        scores = None
    if scores is None or scores.ndim != classes.ndim:
        return nothing
    scores = scores.astype(np.float64)
    ours, theirs = (
        np.take_along_axis(scores, np.moveaxis(c, 1, -1).astype(np.int64), -1)
        for c in (np.clip(classes, 0, scores.shape[-1] - 1), expected[name])
    )
    size = np.maximum(np.abs(ours), np.abs(theirs))
    # Probabilities are exact relative to themselves.
    if known is None or not known.detail.get("activation"):
        size = np.maximum(size, np.abs(scores).max(axis=-1, keepdims=True))
    limit = TOLERANCES[computed_in] * size
    near = np.moveaxis(np.abs(ours - theirs) <= limit, -1, 1) | ~differ
    flat = near.reshape(len(near), -1).all(axis=1)
    found: npt.NDArray[np.bool_] = differ.reshape(len(near), -1).any(axis=1) & flat
    return found
