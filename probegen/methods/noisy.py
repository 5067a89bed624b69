"""A method at noisy copies of the value, and statistics of what it says there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from probegen.methods.axes import sample_axes
from probegen.methods.base import OfInputs
from probegen.methods.noise import ROUNDS, halves, keys_of_draws, normal_noise
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place, Point, Samples

MEAN, SQUARE, VARIANCE = "mean", "square", "variance"
STATISTICS = (MEAN, SQUARE, VARIANCE)


@dataclasses.dataclass(frozen=True)
class Noisy(Samples):
    """Points around the value, or the points of a method around each of these.

    Where the statistic is the mean, and the method's result is a sum of gradients, so is the mean
    of these. Otherwise the sums of the method's own points are put together at the last point of a
    draw, and what comes out of them goes into the statistic.

    Attributes:
        method: what is computed at each noisy copy.
        inner: the method's own points; None where it takes the gradient at the copy itself.
        draws: the number of copies.
        noise: its standard deviation, as a share of each sample's range.
        seed: of the noise.
        statistic: one of `STATISTICS`.
    """

    method: OfInputs
    inner: Samples | None
    draws: int
    noise: float
    seed: int
    statistic: str

    def of(self, places: Sequence[Place]) -> Samples:
        """Returns the points, those of the method for these tensors."""
        inner = None if self.inner is None else self.inner.of(places)
        return dataclasses.replace(self, inner=inner)

    @property
    def weights(self) -> Sequence[float]:  # type: ignore[override]
        """What the points count: those of the method, over the number of draws."""
        own = (1.0,) if self.inner is None else self.inner.weights
        return [w / self.draws for _ in range(self.draws) for w in own]

    @property
    def is_sum(self) -> bool:
        """Whether what comes out is a weighted sum of the gradients."""
        linear = self.method.hands_gradient_on
        return self.statistic == MEAN and linear and (self.inner is None or self.inner.is_sum)

    # -- where -----------------------------------------------------------------------------

    def entries(self) -> tuple[Any, ...]:
        """Returns the keys of the noise, what the method's points have, and how far a draw is.

        The last two are 1 at the last point of a draw, else 0, and 1 over the number of draws so
        far.
        """
        count = 1 if self.inner is None else len(self.inner.weights)
        keys = [np.repeat(k, count) for k in keys_of_draws(self.seed, self.draws)]
        inner = () if self.inner is None else self.inner.entries()
        tiled = [
            np.tile(e, (self.draws, *[1] * (e.ndim - 1)))
            if isinstance(e, np.ndarray)
            else tuple(e) * self.draws
            for e in inner
        ]
        last = ((0.0,) * (count - 1) + (1.0,)) * self.draws
        shares = tuple(1.0 / (1 + k // count) for k in range(count * self.draws))
        return (*keys, *tiled, last, shares)

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns the numbers of the elements, and the noise's standard deviation."""
        axes = sample_axes(place.axes)
        wide = ops.widened(value)
        lowest, highest = ops.min(wide, axes, keepdims=True), ops.max(wide, axes, keepdims=True)
        spread = ops.mul(ops.sub(highest, lowest), self.noise)
        return (*halves(ops, value, axes), spread)

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns a noisy copy, or one of the method's points around it."""
        copy = self._copy(ops, value, place, once, entry)
        if self.inner is None:
            return copy
        shared = self.inner.once(ops, copy, place)
        return self.inner.point(ops, copy, place, shared, self._entry_within(entry))

    def _copy(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        high, low, spread = once
        noise = normal_noise(ops, (high, low), entry[:ROUNDS], place.number)
        return ops.add(value, ops.cast(ops.mul(noise, spread), value))

    def _entry_within(self, entry: Sequence[T]) -> Sequence[T]:
        return entry[ROUNDS:-2]

    def _within(self, ops: Operations[T], point: Point[T], inner: Samples) -> Point[T]:
        """Returns a point as the method knows it: one of those around a noisy copy."""
        copy = self._copy(ops, point.value, point.place, point.once, point.entry)
        weight = None if point.weight is None else ops.mul(point.weight, float(self.draws))
        shared = inner.once(ops, copy, point.place)
        entry = self._entry_within(point.entry)
        return Point(point.place, copy, shared, entry, point.at, weight)

    # -- what is made of the gradients -----------------------------------------------------

    def factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns what the method multiplies the gradient by."""
        if self.inner is None:
            return None
        return self.inner.whole_factor(ops, self._within(ops, point, self.inner))

    def start(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns zeros: what goes into the statistic, then the sums of the method."""
        if self.is_sum:
            return super().start(ops, value, place)
        inner: tuple[T, ...] = ()
        made = ops.zeros_like(value)
        if self.inner is not None:
            inner = self.inner.start(ops, value, place)
            shared = self.inner.once(ops, value, place)
            made = self.inner.finish(ops, inner, value, place, shared)
        result = ops.zeros_like(self.method.attribution(ops, made, value, place.axes))
        return (*((result, result) if self.statistic == VARIANCE else (result,)), *inner)

    def step(
        self, ops: Operations[T], sums: Sequence[T], gradient: T, point: Point[T]
    ) -> tuple[T, ...]:
        """Returns the sums after a point."""
        if self.is_sum:
            return super().step(ops, sums, gradient, point)
        axes, count = point.place.axes, 2 if self.statistic == VARIANCE else 1
        gathered, within = sums[:count], sums[count:]
        if self.inner is None:
            result = self.method.attribution(ops, gradient, point.at, axes)
            return self._gathered(ops, gathered, result, None, point.entry[-1])
        here, last = self._within(ops, point, self.inner), point.entry[-2]
        within = self.inner.step(ops, within, gradient, here)
        found = self.inner.finish(ops, within, here.value, here.place, here.once)
        result = self.method.attribution(ops, found, here.value, axes)
        after = self._gathered(ops, gathered, result, last, point.entry[-1])
        left = ops.sub(1.0, last)
        return (*after, *(ops.mul(total, left) for total in within))

    def _gathered(
        self, ops: Operations[T], sums: Sequence[T], result: T, counts: T | None, share: T
    ) -> tuple[T, ...]:
        """Returns what goes into the statistic after one more result.

        The variance by Welford's formula: what is the same at all points has none, exactly.

        Args:
            ops: the array operations.
            sums: what went into it before.
            result: the result.
            counts: 1 where it counts and 0 where the draw goes on; None where each counts.
            share: 1 over the number of results that count, with this one.
        """

        def counted(x: T) -> T:
            return x if counts is None else ops.mul(x, counts)

        if self.statistic == MEAN:
            return (ops.add(sums[0], counted(result)),)
        if self.statistic == SQUARE:
            return (ops.add(sums[0], counted(ops.mul(result, result))),)
        mean, squares = sums
        off = counted(ops.sub(result, mean))
        mean = ops.add(mean, ops.mul(off, share))
        return mean, ops.add(squares, ops.mul(off, ops.sub(result, mean)))

    def finish(
        self, ops: Operations[T], sums: Sequence[T], value: T, place: Place, once: Sequence[T]
    ) -> T:
        """Returns the statistic; the variance over the number of draws, as VarGrad has it."""
        if self.is_sum:
            return super().finish(ops, sums, value, place, once)
        return ops.mul(sums[1] if self.statistic == VARIANCE else sums[0], 1.0 / self.draws)

    def of_sum(
        self, ops: Operations[T], total: T, value: T, place: Place, once: Sequence[T]
    ) -> T | None:
        """Returns the sum where that is what comes out."""
        del ops, value, place, once
        return total if self.is_sum else None
