"""What is missing to completeness, held against forward passes and the artefact's own sums.

The figure is a small difference of large numbers, so that it is compared relative to the size of
these: the score and all that is summed up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import OutputSpec
from probegen.methods.axes import BATCH
from probegen.parity.classes import class_axis_of
from probegen.parity.comparison import ROUNDING
from probegen.plan.completeness import Residual, residuals_of
from probegen.plan.plan import Plan, TensorRef
from probegen.sources.changed_scores import ScoresAt, attribution_by_scores, summed_score

Array = npt.NDArray[Any]


def size_name(name: str) -> str:
    """Returns what the sizes are called that a figure is compared relative to."""
    return f"size of {name}"


def rounding_of_sum(name: str, plan: Plan) -> float:
    """Returns what the sum of attributions is rounded by, relative to the sum of their magnitudes.

    An artefact sums them up before it gives them out, which may be in a coarser type.

    Args:
        name: of what is missing to their completeness.
        plan: what was asked for.
    """
    residuals = (r for group in plan.groups for r in residuals_of(group))
    types = [o.spec.dtype for r in residuals if name in r.names for o in r.outputs]
    return max((ROUNDING.get(dtype, 0.0) for dtype in types), default=0.0)


def missing_of(
    residual: Residual,
    found: Mapping[str, Array],
    tensors: Mapping[TensorRef, Array],
    scores_at: ScoresAt,
    seeds: Sequence[Array],
) -> dict[str, Array]:
    """Returns what is missing to the completeness of attributions, and its sizes, by numpy.

    Args:
        residual: which attributions, and what the reference is.
        found: the attributions.
        tensors: what is moved to the reference, as the model has it.
        scores_at: the model's scores.
        seeds: for each class that is explained, what scores are multiplied by.
    """
    gained, scores = residual.gained, scores_at.run(scores_at.feed, {})
    several = gained.spec.target is not None and gained.spec.target.several
    missing, sizes = [], []
    changes: list[Array] | None = None
    if residual.probe.baseline is not None:
        changes = attribution_by_scores(gained, tensors, scores_at, seeds)
    for entry, seed in enumerate(seeds):
        more = summed_score(scores, seed)
        size: Array = summed_score(np.abs(scores), np.abs(seed))
        if BATCH not in gained.axes:
            more, size = np.asarray(more[0]), np.asarray(size[0])
        if changes is not None:
            more = changes[entry]
        total: Array = np.asarray(-more, np.float64)
        size = np.asarray(size + np.abs(more))
        for output in residual.outputs:
            values: Array = np.asarray(found[output.spec.name], np.float64)
            if several:
                values = np.asarray(values.take(entry, output.classes_at))
            summed = tuple(i for i, name in enumerate(output.axes_of_one) if name != BATCH)
            total = np.asarray(total + values.sum(axis=summed))
            size = np.asarray(size + np.abs(values).sum(axis=summed))
        missing.append(total)
        sizes.append(size)
    figures = [
        np.asarray(np.stack(each, gained.classes_at) if several else each[0])
        for each in (missing, sizes)
    ]
    return {
        **{name: figures[0].astype(gained.spec.dtype) for name in residual.names},
        **{size_name(name): figures[1] for name in residual.names},
    }


def with_own_sums(
    expected: Mapping[str, Array], got: Mapping[str, Array], plan: Plan
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns references and outputs, rows first, as what is missing to completeness is judged.

    The attributions are judged by themselves; what is missing is what is missing to the artefact's
    own sums. Where these or the reference are not finite, it says nothing.

    Returns:
        The references with what is missing to those sums, and what the artefact gave.
    """
    wanted, given = dict(expected), dict(got)
    for residual in (r for group in plan.groups for r in residuals_of(group)):
        for name in residual.names:
            right = expected[name].astype(np.float64)
            for output in residual.outputs:
                own = output.spec.name
                if got[own].shape != expected[own].shape:
                    return wanted, given
                right = right + _summed(output.spec, got[own]) - _summed(output.spec, expected[own])
            nothing = ~np.isfinite(right)
            wanted[name] = right
            if got[name].shape == right.shape:
                given[name] = np.where(nothing, right, got[name].astype(np.float64))
    return wanted, given


def _summed(output: OutputSpec, values: Array) -> Array:
    """Returns the sum for each row, and for each class where there are several."""
    kept = {0, class_axis_of(output)}
    found: Array = values.astype(np.float64).sum(
        axis=tuple(i for i in range(values.ndim) if i not in kept)
    )
    return found
