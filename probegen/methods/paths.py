"""Points on straight lines from baselines to the value: what path methods integrate over."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from probegen.methods.arrays import StoredArray
from probegen.methods.baselines import Baseline, baseline_of, count_of, is_several, written
from probegen.methods.noise import permutation, uniform
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place, Point, Samples


@dataclasses.dataclass(frozen=True)
class Line(Samples):
    """Points on the straight line from a baseline to the value.

    What comes out is the way from the baseline to the value times the weighted sum of the
    gradients. Where the baseline is several, each has a line of its own, and what comes out is the
    mean of all.

    Attributes:
        fractions: where each point lies: 0 is the baseline, 1 the value.
        weights: of the points.
        baseline: see `baselines`.
    """

    fractions: tuple[float, ...]
    weights: tuple[float, ...]
    baseline: Baseline = 0.0

    def of(self, places: Sequence[Place]) -> Samples:
        """Returns the line, or the lines where baselines are several."""
        count = count_of(self.baseline, places)
        if count is None:
            return self
        rows = tuple(k for k in range(count) for _ in self.fractions)
        weights = tuple(w / count for w in self.weights)
        return Lines(rows, self.fractions * count, weights * count, self.baseline)

    def entries(self) -> tuple[Any, ...]:
        """Returns the fractions."""
        return (self.fractions,)

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns the way from the baseline to the value, and a baseline that is no number."""
        baseline = written(ops, self.baseline, value, place)
        way = ops.sub(value, baseline)
        return (way,) if isinstance(baseline, float) else (way, baseline)

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns the baseline plus a fraction of the way."""
        del value
        number = baseline_of(self.baseline, place)
        baseline = once[1] if len(once) > 1 else number if isinstance(number, float) else 0.0
        return ops.add(ops.mul(once[0], entry[0]), baseline)

    def line_start(self, ops: Operations[T], value: T, place: Place) -> T | None:
        """Returns the baseline."""
        baseline = written(ops, self.baseline, value, place)
        return ops.add(ops.zeros_like(value), baseline)

    def whole_factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns the way."""
        del ops
        return point.once[0]

    def of_sum(
        self, ops: Operations[T], total: T, value: T, place: Place, once: Sequence[T]
    ) -> T | None:
        """Returns the way times the sum."""
        del value, place
        return ops.mul(once[0], total)


@dataclasses.dataclass(frozen=True)
class Lines(Samples):
    """Points on the lines from several baselines to the value.

    What comes out is the weighted sum of the gradients, each times the way from its own baseline.

    Attributes:
        rows: which baseline each point belongs to.
        fractions: where it lies: 0 is the baseline, 1 the value.
        weights: of the points.
        baseline: see `baselines`; of some tensors there may be one.
    """

    rows: tuple[int, ...]
    fractions: tuple[float, ...]
    weights: tuple[float, ...]
    baseline: Baseline

    def entries(self) -> tuple[Any, ...]:
        """Returns rows and fractions."""
        return np.asarray(self.rows, np.int64), self.fractions

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns the baselines of a tensor; nothing where that is a number."""
        baseline = written(ops, self.baseline, value, place)
        return () if isinstance(baseline, float) else (baseline,)

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns the point's baseline plus a fraction of the way from there."""
        baseline = self._baseline(ops, place, once, entry)
        return ops.add(ops.mul(ops.sub(value, baseline), entry[1]), baseline)

    def factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns the way from the point's baseline."""
        baseline = self._baseline(ops, point.place, point.once, point.entry)
        return ops.sub(point.value, baseline)

    def _baseline(
        self, ops: Operations[T], place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T | float:
        one = baseline_of(self.baseline, place)
        if isinstance(one, StoredArray) and is_several(one, place):
            return ops.gather(once[0], entry[0], 0)
        return once[0] if once else one if isinstance(one, float) else 0.0


@dataclasses.dataclass(frozen=True)
class Drawn(Samples):
    """One point on each of some lines that are drawn, from baselines to the value.

    Baselines come in turn, in an order that is drawn anew for each turn. The points of one baseline
    share its line: one lies in each of as many equal pieces, at a fraction of it that is drawn.
    Any baseline and any fraction is as likely as another, and what is missing to the mean over all
    of them is smaller than with independent draws.

    Attributes:
        count: of the lines.
        seed: of the draws.
        baseline: see `baselines`; of one tensor at least there are several.
    """

    count: int
    seed: int
    baseline: Baseline

    def of(self, places: Sequence[Place]) -> Samples:
        """Returns the points, drawn for the number of baselines."""
        rows = count_of(self.baseline, places) or 1
        turns = range(-(-self.count // rows))
        order = [row for turn in turns for row in permutation(self.seed, f"turn {turn}", rows)]
        order = order[: self.count]
        within = uniform(self.seed, "fraction", self.count)
        pieces = collections.Counter(order)
        # The piece is the number of the turn: a row comes once in each.
        fractions = tuple((k // rows + within[k]) / pieces[row] for k, row in enumerate(order))
        return Lines(tuple(order), fractions, self.weights, self.baseline)

    @property
    def weights(self) -> tuple[float, ...]:  # type: ignore[override]
        """All points count the same."""
        return (1.0 / self.count,) * self.count

    def entries(self) -> tuple[Any, ...]:
        """Returns nothing: see `of`."""
        return ()

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns nothing: see `of`."""
        del ops, value, place
        return ()

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns the value: see `of`."""
        del ops, place, once, entry
        return value
