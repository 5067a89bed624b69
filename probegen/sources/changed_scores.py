"""Attributions by scores at changed inputs, by numpy: the untouched model and nothing else.

This is what artefacts are held against. The model runs one point at a time; what is moved, and how
scores become an attribution, is said by the method itself, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import as_described, rows_first
from probegen.errors import VerificationError
from probegen.methods.axes import batch_first
from probegen.methods.by_scores import ByScores, Subject
from probegen.methods.numpy_operations import NumpyOperations
from probegen.plan.plan import GradientOutput, TensorRef

Array = npt.NDArray[Any]

#: What tensors are moved by -> the scores that the target is taken from, the batch first.
ScoresAt = Callable[[Mapping[TensorRef, Array]], Array]


def attribution_by_scores(
    output: GradientOutput,
    tensors: Mapping[TensorRef, Array],
    scores_at: ScoresAt,
    seeds: Sequence[Array],
    groups: Array | None = None,
) -> list[Array]:
    """Returns the attribution of each class, its axes as in the manifest for one.

    The model runs at each point once for all classes.

    Args:
        output: the method, and what it explains.
        tensors: what is explained and what is changed, as the model has it.
        scores_at: runs the model.
        seeds: for each class, what scores are multiplied by before they are summed up.
        groups: `[batch, ...positions]` of the request, where there are some.
    """
    probe = output.probe
    if not isinstance(probe, ByScores):
        raise VerificationError(f"{output.spec.name!r} is not made of scores.")
    ops = NumpyOperations()
    rows = {
        ref: _rows(tensors[ref], axes) for ref, axes in (*output.moves, (output.ref, output.axes))
    }
    moved = tuple((rows[ref], batch_first(axes)[0]) for ref, axes in output.moves)
    value, axes = rows[output.ref], batch_first(output.axes)[0]
    numbered = None if groups is None or not probe.takes_groups else groups.astype(np.float64)
    subject = Subject(value, axes, moved, numbered)
    prepared = probe.prepared(ops, subject)
    here = scores_at({})
    scores = [summed_score(here, seed) for seed in seeds]
    count = probe.count(axes, value.shape)
    if count is None:
        count = int(probe.counted(ops, prepared))
    sums = [
        [np.array(zeros, np.float64) for zeros in probe.start(ops, prepared, score)]
        for score in scores
    ]
    for number in range(count):
        numbers = np.array([number], np.float64)
        shifts = {}
        for which, ((ref, own), (tensor, named)) in enumerate(
            zip(output.moves, moved, strict=True)
        ):
            point = probe.changed_one(ops, prepared, numbers, tensor, named, which)[0]
            shifts[ref] = as_described(point - tensor, own)
        there = scores_at(shifts)
        for entry, (seed, score) in enumerate(zip(seeds, scores, strict=True)):
            found = summed_score(there, seed)
            added = probe.added(ops, prepared, numbers, found[None], score)
            sums[entry] = [total + part[0] for total, part in zip(sums[entry], added, strict=True)]
    results = [
        np.asarray(probe.explained(ops, subject, prepared, of_class, score))
        for of_class, score in zip(sums, scores, strict=True)
    ]
    return [as_described(r, output.axes_of_one).astype(output.spec.dtype) for r in results]


def _rows(tensor: Array, axes: tuple[str, ...]) -> Array:
    return rows_first(tensor.astype(np.float64), axes)


def summed_score(scores: Array, seed: Array) -> Array:
    """Returns the target's scalar of each sample: what the seed leaves out counts nothing."""
    chosen = np.where(seed != 0, scores.astype(np.float64) * seed, 0.0)
    total: Array = chosen.reshape(len(chosen), -1).sum(axis=1)
    return total
