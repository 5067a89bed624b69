"""Attributions by scores at changed inputs, by numpy: the untouched model and nothing else.

This is what artefacts are held against. What is moved, and how scores become an attribution, is
said by the method itself, in double precision. Several points go through the model in one batch,
after a first few have shown that it gives each the score that it has alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec
from probegen.artefact.rows import as_described, batch_axis, rows_first
from probegen.errors import ProbegenError, VerificationError
from probegen.methods.axes import Axes, batch_first
from probegen.methods.by_scores import ByScores, Subject
from probegen.methods.numpy_operations import NumpyOperations
from probegen.plan.plan import GradientOutput, TensorRef

Array = npt.NDArray[Any]

#: What tensors are moved by: the shift of each.
Shifts = Mapping[TensorRef, Array]
#: How many points go through the model at once: so many, and no more numbers of inputs.
_MOST_POINTS, _MOST_NUMBERS = 16, 2**22
#: What a score may differ by in a batch of several points, relative to the largest: rounding.
_ROUNDING = 1e-4
#: What a tensor may differ by that no other moved one is read for, likewise.
_SAME = 1e-5


@dataclasses.dataclass
class ScoresAt:
    """The scores of a model at changed inputs.

    Attributes:
        run: (inputs, what tensors are moved by) -> the scores that the target is taken from, the
            batch first.
        feed: the inputs.
        inputs: the manifest's entries of the model's inputs.
        together: whether several points go through the model at once; None until that was tried.
    """

    run: Callable[[Mapping[str, Array], Shifts], Array]
    feed: Mapping[str, Array]
    inputs: Sequence[InputSpec]
    together: bool | None = None

    def __post_init__(self) -> None:
        places = [(batch_axis(s.axes), s.shape) for s in self.inputs]
        if any(at is not None and shape[at] is not None for at, shape in places):
            self.together = False

    @property
    def most(self) -> int:
        """The number of points that are asked for at once."""
        numbers = sum(self.feed[s.name].size for s in self.inputs)
        return max(1, min(_MOST_POINTS, _MOST_NUMBERS // max(numbers, 1)))

    def at(self, points: Sequence[Shifts], axes: Mapping[TensorRef, Axes]) -> list[Array]:
        """Returns the scores at each point.

        Args:
            points: what tensors are moved by.
            axes: of these tensors.
        """
        if len(points) == 1 or self.together is False:
            return [self.run(self.feed, shifts) for shifts in points]
        if self.together:
            return self._joined(points, axes)
        alone = [self.run(self.feed, shifts) for shifts in points]
        try:
            joined = self._joined(points, axes)
            self.together = all(map(_same, alone, joined))
        except Exception:  # a model that is bound to a batch in its inside
            self.together = False
        return alone

    def _joined(self, points: Sequence[Shifts], axes: Mapping[TensorRef, Axes]) -> list[Array]:
        count = len(points)
        fed = dict(self.feed)
        for spec in self.inputs:
            at = batch_axis(spec.axes)
            if at is not None:
                fed[spec.name] = np.concatenate([self.feed[spec.name]] * count, axis=at)
        shifts = {
            ref: np.concatenate([p[ref] for p in points], axis=batch_axis(axes[ref]) or 0)
            for ref in points[0]
        }
        return np.split(self.run(fed, shifts), count)


def scores_by_moving(
    at: Callable[[Mapping[str, Array], Shifts], tuple[Sequence[Array], Mapping[TensorRef, Array]]],
    place: int,
    tensors: Mapping[TensorRef, Array],
) -> Callable[[Mapping[str, Array], Shifts], Array]:
    """Returns what gives the scores of a model with tensors where shifts bring them.

    Shifts are those from the unchanged model. Where a moved tensor is computed from another one (an
    embedding of the bins of numbers that the model also adds), it is another one when its own shift
    is added, and the shift is corrected by that.

    Args:
        at: (inputs, shifts) -> the scores of each group, and tensors before they are moved, see
            `sources.base.MovedScores`.
        place: which of the scores.
        tensors: as the unchanged model has them, for the samples once.
    """

    def run(feed: Mapping[str, Array], shifts: Shifts) -> Array:
        scores, before = at(feed, shifts)
        for _ in range(len(shifts) - 1):  # each run puts one more of a chain of them right
            unmoved = {ref: _as_often(tensors[ref], before[ref]) for ref in shifts}
            if all(_same(unmoved[ref], before[ref], _SAME) for ref in shifts):
                break
            wide = {ref: before[ref].astype(np.float64) for ref in shifts}
            corrected = {ref: shifts[ref] + (unmoved[ref] - wide[ref]) for ref in shifts}
            scores, before = at(feed, corrected)
        return scores[place]

    return run


def _as_often(tensor: Array, like: Array) -> Array:
    """Returns a tensor of some samples, repeated along their axis as often as another has them."""
    times = [
        have // size if size else 1 for have, size in zip(like.shape, tensor.shape, strict=True)
    ]
    return np.tile(tensor.astype(np.float64), times)


def _same(alone: Array, joined: Array, rounding: float = _ROUNDING) -> bool:
    """Tells whether numbers differ by rounding alone."""
    if alone.shape != joined.shape:
        return False
    size = np.abs(alone.astype(np.float64)).max(initial=0.0, where=np.isfinite(alone))
    return bool(np.allclose(alone, joined, rtol=rounding, atol=rounding * size, equal_nan=True))


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
        scores_at: the model's scores.
        seeds: for each class, what scores are multiplied by before they are summed up.
        groups: `[batch, ...positions]` of the request, where there are some.

    Raises:
        VerificationError: the method is none of scores, or of changed inputs there are others.
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
    here = scores_at.run(scores_at.feed, {})
    scores = [summed_score(here, seed) for seed in seeds]
    count = probe.count(axes, value.shape)
    if count is None:
        count = int(probe.counted(ops, prepared))
    sums = [
        [np.array(zeros, np.float64) for zeros in probe.start(ops, prepared, score)]
        for score in scores
    ]
    for first in range(0, count, scores_at.most):
        few = [np.array([n], np.float64) for n in range(first, min(count, first + scores_at.most))]
        points = []
        for numbers in few:
            shifts = {}
            for which, ((ref, own), (tensor, named)) in enumerate(
                zip(output.moves, moved, strict=True)
            ):
                point = probe.changed_one(ops, prepared, numbers, tensor, named, which)[0]
                shifts[ref] = as_described(point - tensor, own)
            points.append(shifts)
        found_there = _scores_of(output, scores_at, points)
        for numbers, there in zip(few, found_there, strict=True):
            _check_count(output, here, there)
            for entry, (seed, score) in enumerate(zip(seeds, scores, strict=True)):
                found = summed_score(there, seed)
                added = probe.added(ops, prepared, numbers, found[None], score)
                sums[entry] = [t + part[0] for t, part in zip(sums[entry], added, strict=True)]
    results = [
        np.asarray(probe.explained(ops, subject, prepared, of_class, score))
        for of_class, score in zip(sums, scores, strict=True)
    ]
    return [as_described(r, output.axes_of_one).astype(output.spec.dtype) for r in results]


def _scores_of(
    output: GradientOutput, scores_at: ScoresAt, points: Sequence[Shifts]
) -> list[Array]:
    """Returns the scores at some points.

    Raises:
        VerificationError: the model takes the unchanged samples, and not what hides parts of them.
    """
    try:
        return scores_at.at(points, dict(output.moves))
    except ProbegenError:
        raise
    except Exception as error:
        fills = output.probe.fills
        if not fills:
            raise
        raise VerificationError(
            f"{output.spec.name!r}: the model runs on the samples, and not where "
            f"{fills}={getattr(output.probe, fills)!r} hides parts of them (is it beyond a table "
            f"that the model looks up?): {error}. Give {fills}= what the model takes there."
        ) from error


def _check_count(output: GradientOutput, here: Array, there: Array) -> None:
    """Refuses scores of which there are more or less where a part of the input is hidden.

    Raises:
        VerificationError: they are; says what would work.
    """
    if here.shape == there.shape:
        return
    raise VerificationError(
        f"{output.spec.name!r}: how many scores the model gives depends on what it sees, here "
        f"{list(here.shape[1:])} for a sample and {list(there.shape[1:])} where a part of it is "
        "hidden (boxes that are left over, say), so that no entry is the same one in both. Take a "
        "target before that choice, with of= a layer or output= of a fixed size, or a method that "
        "hides nothing, such as pg.InputGradient()."
    )


def _rows(tensor: Array, axes: tuple[str, ...]) -> Array:
    return rows_first(tensor.astype(np.float64), axes)


def summed_score(scores: Array, seed: Array) -> Array:
    """Returns the target's scalar of each sample: what the seed leaves out counts nothing."""
    chosen = np.where(seed != 0, scores.astype(np.float64) * seed, 0.0)
    total: Array = chosen.reshape(len(chosen), -1).sum(axis=1)
    return total
