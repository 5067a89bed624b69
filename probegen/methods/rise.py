"""RISE (Petsiuk et al. 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from probegen.artefact.manifest import ANY_SIGN
from probegen.errors import InstrumentError, SpecError
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import Selector
from probegen.methods.by_scores import (
    OfInputsByScores,
    Subject,
    beside_positions,
    check_for_axes,
    checked_for_axes,
    hidden_axes,
    masked,
    of_each_axis,
    of_positions,
)
from probegen.methods.fields import check_whole, checked_number, option
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target
from probegen.text import amount

#: Cells along an axis where the field is left out.
_CELLS = 7


@dataclasses.dataclass(frozen=True)
class RISE(OfInputsByScores):
    """Randomised input sampling (Petsiuk et al. 2018, eqs. 6 and 7, sec. 3.2).

    The input is multiplied with random masks; each element gets the sum of the scores, weighted by
    the masks there, over `masks * keep`. A mask is a grid of `cells` along each axis, each 1 with
    the probability `keep`, interpolated linearly to `cells + 1` cells of `ceil(size / cells)`
    (edges go on) and cut out at a random place.

    `[batch, ...positions]`, one mask for all channels; `[batch, feature]` of plain vectors,
    `[batch, time]` of tokens, whose looked-up vectors are multiplied. The paper's scores are
    probabilities (`logits=False`).

    Attributes:
        masks: how many masks, and passes.
        cells: cells along each axis: a number for all axes, or one for each. Where it is left out,
            7, or as many as the axis has entries where these are fewer.
        keep: the share of cells that are kept.
        seed: of the masks: the same seed gives the same masks. The graph holds the cells and where
            they are cut, not the masks.
        chunk: points that go through the model at once; chosen where it is left out.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    help: ClassVar[str] = "Mean score under random masks that keep a position."
    unit: ClassVar[str] = "score"
    sign: ClassVar[str] = ANY_SIGN  # a mean of scores: far from zero where nothing matters
    equation: ClassVar[str] = "sum of target(x * mask) mask / (masks * keep)"
    paper: ClassVar[str] = "Petsiuk et al. 2018, eq. 6"

    masks: int = option(1000, "Masks", at_least=1)
    cells: int | tuple[int, ...] | None = option(None, "Cells along an axis", at_least=1)
    keep: float = option(0.5, "Share of cells kept")
    seed: int = option(0, "Seed of the draws", flag="draw-seed", at_least=0)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("masks", self.masks, 1)
        check_whole("seed", self.seed, 0)
        if self.cells is not None:
            object.__setattr__(self, "cells", checked_for_axes("cells", self.cells))
        object.__setattr__(self, "keep", checked_number("keep", self.keep))
        if not 0 < self.keep < 1:
            raise SpecError(f"keep= takes a share between 0 and 1, got {self.keep}.")

    def check_subject(self, axes: Axes, sizes: Sizes, name: str) -> None:
        """Refuses cells that do not fit.

        Raises:
            InstrumentError: there is a number too many or too few, or more cells than entries.
        """
        hidden = hidden_axes(axes)
        shown = ", ".join(f"{axes[i]} {sizes[i] or '(open)'}" for i in hidden)
        what = f"{name!r} is masked along {amount(len(hidden), 'axis')} ({shown})"
        check_for_axes("cells", self.cells, len(hidden), what)
        for axis, cells in zip(hidden, self._cells(len(hidden)), strict=True):
            size = sizes[axis]
            if self.cells is not None and size is not None and cells > size:
                raise InstrumentError(
                    f"cells={self.cells} are more than {name!r} has entries along {axes[axis]!r} "
                    f"({shown}); give {size} at most."
                )

    def _cells(self, axes: int) -> tuple[int, ...]:
        return of_each_axis(_CELLS if self.cells is None else self.cells, axes)

    def count(self, axes: Axes, sizes: Sizes) -> int:
        """Returns the number of masks."""
        del axes, sizes
        return self.masks

    def _drawn(self, axes: int) -> tuple[Any, Any]:
        """Returns which cells are kept, and where grids are cut as shares of a cell."""
        generator = np.random.default_rng(self.seed)
        grids = generator.random((self.masks, *self._cells(axes))) < self.keep
        return grids, generator.random((self.masks, axes))

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns grids, cuts, the positions of each hidden axis, and zeros."""
        like = ops.widened(subject.value)
        hidden = hidden_axes(subject.axes)
        grids, cuts = self._drawn(len(hidden))
        positions = tuple(ops.counted(like, axis) for axis in hidden)
        zeros = of_positions(ops, subject.value, subject.axes, like)
        return (ops.flags(grids), ops.constant(cuts, like), *positions, zeros)

    def _masks(self, ops: Operations[T], prepared: Sequence[T], numbers: T) -> T:
        """Returns masks `[points, 1, ...positions]`."""
        grids, cuts, *every, _ = prepared
        found = ops.cast(ops.gather(grids, numbers, 0), numbers)
        cut = ops.gather(cuts, numbers, 0)
        rank = len(every) + 1
        for axis in reversed(range(len(every))):
            weights = self._weights(ops, every[axis], ops.take(cut, (axis,), 1), axis, len(every))
            if rank == 2:
                found = ops.max(ops.matmul(ops.expand_dims(found, (1,)), weights), (1,))
            else:
                between = tuple(range(1, rank - 2))
                found = ops.matmul(found, ops.expand_dims(weights, between))
                found = ops.transpose(found, (0, rank - 1, *range(1, rank - 1)))
        return ops.expand_dims(found, (1,))

    def _weights(self, ops: Operations[T], positions: T, cut: T, axis: int, axes: int) -> T:
        """Returns what each cell counts at each position: `[points, cells, positions]`."""
        cells = self._cells(axes)[axis]
        size = ops.add(ops.max(positions, (0,)), 1.0)
        used: T | float = float(cells)
        wider: T | float = float(cells + 1)
        last: T | float = float(cells - 1)
        if self.cells is None:  # the first of the cells, where there are fewer entries
            used = ops.sub(used, ops.relu(ops.sub(used, size)))
            wider, last = ops.add(used, 1.0), ops.sub(used, 1.0)
        side = ops.sub(0.0, ops.floor(ops.sub(0.0, ops.div(size, used))))
        shift = ops.floor(ops.mul(cut, side))
        at = ops.add(ops.add(ops.expand_dims(positions, (0,)), shift), 0.5)
        at = ops.sub(ops.div(ops.mul(at, used), ops.mul(side, wider)), 0.5)
        at = ops.sub(last, ops.relu(ops.sub(last, ops.relu(at))))
        places = ops.expand_dims(ops.constant(np.arange(cells), positions), (0, 2))
        off = ops.abs(ops.sub(ops.expand_dims(at, (1,)), places))
        return ops.relu(ops.sub(1.0, off))

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the tensor times a mask."""
        return masked(ops, value, self._masks(ops, prepared, numbers), axes)

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros."""
        return (ops.cast(prepared[-1], score),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns the score times the mask."""
        masks = ops.cast(self._masks(ops, prepared, numbers), score)
        return (ops.mul(beside_positions(ops, scores, len(prepared) - 3), masks),)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the sums over masks and the share that is kept."""
        del subject, prepared, score
        return ops.div(sums[0], self.masks * self.keep)

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns masks, cells, share and seed."""
        cells = list(self._cells(len(hidden_axes(axes))))
        return {"masks": self.masks, "cells": cells, "keep": self.keep, "seed": self.seed}
