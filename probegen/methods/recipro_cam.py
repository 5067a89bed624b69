"""Recipro-CAM (Byun and Lee 2022)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import SHARE_OF_SCORES
from probegen.methods.axes import Axes, Sizes, position_axes
from probegen.methods.base import Selector
from probegen.methods.by_scores import (
    OfLayerByScores,
    Subject,
    beside_positions,
    in_each_axis,
    masked,
    of_positions,
    share_of_range,
)
from probegen.methods.fields import check_bool
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class ReciproCAM(OfLayerByScores):
    """Class activation map by masked features (Byun and Lee 2022, sec. 3.2).

    For each position of the layer, the rest of the model runs on the layer's output times a mask
    around that position, and the target's score there is its value. The map is then brought to 0 to
    1 in each sample: its smallest value is 0, its largest 1; a map that is the same everywhere, up
    to rounding, is 0. Scores that differ by less than a 10 000th of their size are divided by that
    in the place of their range: the map stays faint, and its rounding does not become its picture.
    The score is a logit unless `logits=False` (the paper's is a probability). One pass a
    position, of the part of the model behind the layer alone.

    `[batch, ...positions of the layer]`, never negative.

    Attributes:
        layer: as for `GradCAM`.
        gaussian: mask with the paper's filter, 1/2 at the position and 1/4 beside it along each
            axis, multiplied over the axes (its sec. 3.3); with False the position alone is kept.
        upsample: bring the map to the size of the input whose positions the layer's are.
        chunk: points that go through the model at once; chosen where it is left out.
        target, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "recipro_cam"
    title: ClassVar[str] = "Recipro-CAM"
    help: ClassVar[str] = "Class activation map of the scores of single positions."
    unit: ClassVar[str] = SHARE_OF_SCORES
    equation: ClassVar[str] = "target(A * mask around the position), from 0 to 1 in each sample"
    paper: ClassVar[str] = "Byun and Lee 2022, sec. 3.2-3.3"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None
    gaussian: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("gaussian", self.gaussian)

    def count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of positions."""
        found = [sizes[axis] for axis in position_axes(axes)]
        known = [size for size in found if size is not None]
        return math.prod(known) if len(known) == len(found) else None

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns the positions along each axis, and zeros `[batch, ...positions]`."""
        like = ops.widened(subject.value)
        zeros = of_positions(ops, subject.value, subject.axes, like)
        return (*(ops.counted(like, axis) for axis in position_axes(subject.axes)), zeros)

    def counted(self, ops: Operations[T], prepared: Sequence[T]) -> T:
        """Returns the product of the sizes."""
        return functools.reduce(ops.mul, _sizes(ops, prepared))

    def _distances(self, ops: Operations[T], prepared: Sequence[T], numbers: T) -> list[T]:
        """Returns how far each entry of each axis is from a point: `[points, 1, ...positions]`."""
        every = list(prepared[:-1])
        found = []
        for axis, place in enumerate(in_each_axis(ops, numbers, _sizes(ops, prepared))):
            off = ops.sub(ops.expand_dims(every[axis], (0,)), ops.expand_dims(place, (1,)))
            others = tuple(i for i in range(1, len(every) + 2) if i != axis + 2)
            found.append(ops.expand_dims(ops.abs(off), others))
        return found

    def _mask(self, ops: Operations[T], distances: Sequence[T], gaussian: bool) -> T:
        middle, step = (0.5, 0.25) if gaussian else (1.0, 1.0)
        weights = [ops.relu(ops.sub(middle, ops.mul(off, step))) for off in distances]
        return functools.reduce(ops.mul, weights)

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the layer's output times the masks around positions."""
        mask = self._mask(ops, self._distances(ops, prepared, numbers), self.gaussian)
        return masked(ops, value, mask, axes)

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros."""
        return (ops.cast(prepared[-1], score),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns the score of each point at its position."""
        here = self._mask(ops, self._distances(ops, prepared, numbers), gaussian=False)
        wide = beside_positions(ops, scores, len(prepared) - 1)
        return (ops.where(ops.greater(here, 0.5), wide, ops.cast(ops.zeros_like(wide), score)),)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the scores from 0 to 1."""
        del subject, score
        return share_of_range(ops, sums[0], tuple(range(1, len(prepared))))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the filter."""
        del axes
        return {"gaussian": self.gaussian}


def _sizes(ops: Operations[T], prepared: Sequence[T]) -> list[T]:
    """Returns the number of positions along each axis."""
    return [ops.add(ops.max(positions, (0,)), 1.0) for positions in prepared[:-1]]
