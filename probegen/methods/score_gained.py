"""What a sample's score is more than that of a reference: what complete attributions sum up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from probegen.methods.arrays import StoredArray
from probegen.methods.axes import BATCH, Axes, Sizes
from probegen.methods.baselines import Baseline, baseline_of, count_of, is_several, written
from probegen.methods.by_scores import ByScores, Subject
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class ScoreGained(ByScores):
    """The score less the mean score at some baselines, `[batch]`.

    It is of no table: attributions that are complete are held against it.

    Attributes:
        target: what the score is.
        baseline: what the tensors are at the reference; None where its score is 0.
        places: the tensors that are moved there together, in their order.
        holds_masks: whether masks stay as they are at the sample.
    """

    stays_wide: ClassVar[bool] = True

    target: Target = "argmax"
    baseline: Baseline | None = 0.0
    places: tuple[Place, ...] = ()
    holds_masks: bool = False

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns the batch."""
        del layer
        return tuple(i for i, name in enumerate(axes) if name == BATCH)

    def _count(self) -> int:
        assert self.baseline is not None
        return count_of(self.baseline, self.places) or 1

    def count(self, axes: Axes, sizes: Sizes) -> int:
        """Returns the number of baselines."""
        del axes, sizes
        return self._count()

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns the baselines of each tensor, `[baselines or 1, batch or 1, ...axes or 1]`."""
        return tuple(
            self._baselines(ops, value, axes, place)
            for (value, axes), place in zip(subject.moved, self.places, strict=True)
        )

    def _baselines(self, ops: Operations[T], value: T, axes: Axes, place: Place) -> T:
        assert self.baseline is not None
        one = baseline_of(self.baseline, place)
        if isinstance(one, StoredArray):
            given = [name for name in place.axes if name != BATCH]
            order = [1 + given.index(name) for name in axes if name != BATCH]
            values = one.values if is_several(one, place) else one.values[None]
            return ops.constant(np.expand_dims(values.transpose([0, *order]), 1), value)
        if isinstance(one, str):
            blurred = written(ops, one, value, dataclasses.replace(place, axes=axes))
            assert not isinstance(blurred, float)
            return ops.expand_dims(blurred, (0,))
        return ops.constant(np.full((1,) * (len(axes) + 1), one), value)

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the baselines of the first tensor."""
        return self.changed_one(ops, prepared, numbers, value, axes, 0)

    def changed_one(
        self,
        ops: Operations[T],
        prepared: Sequence[T],
        numbers: T,
        value: T,
        axes: Axes,
        which: int,
    ) -> T:
        """Returns the baselines of one of the tensors."""
        del axes
        rows = prepared[which]
        if ops.size(rows, 0) == 1:
            numbers = ops.mul(numbers, 0.0)
        zeros = ops.expand_dims(ops.zeros_like(value), (0,))
        return ops.add(ops.gather(rows, numbers, 0), zeros)

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros."""
        del prepared
        return (ops.zeros_like(score),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns the scores at the baselines."""
        del ops, prepared, numbers, score
        return (scores,)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the score less their mean."""
        del subject, prepared
        return ops.sub(score, ops.mul(sums[0], 1.0 / self._count()))
