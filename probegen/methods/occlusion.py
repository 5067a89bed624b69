"""Occlusion (Zeiler and Fergus 2014)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.errors import InstrumentError, SpecError
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import Selector
from probegen.methods.by_scores import (
    OfInputsByScores,
    Subject,
    Windows,
    beside_channels,
    beside_positions,
    check_for_axes,
    checked_for_axes,
    hidden_axes,
    in_each_axis,
    of_each_axis,
    of_positions,
)
from probegen.methods.fields import checked_number, option
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target
from probegen.text import amount


@dataclasses.dataclass(frozen=True)
class Occlusion(OfInputsByScores):
    """What hiding a window of the input takes from the score (Zeiler and Fergus 2014, sec. 4.2).

    `[batch, ...positions]`, all channels hidden together; `[batch, feature]` of plain vectors,
    `[batch, time]` of tokens, whose looked-up vectors are filled. Each element gets the mean, over
    the windows that cover it, of the score minus the score with the window hidden.

    A window begins at each multiple of the stride. The last along an axis is the first that reaches
    the end; what of it lies beyond the end is cut off. So every element is covered. Along an axis
    of open size that is shorter than the window, one window hides all.

    In ONNX, at inputs of a known size, what a window does not reach of a convolutional network is
    not computed again (Nakandala et al. 2019, sec. 4).

    Attributes:
        window: its size along each axis of positions: a number for all axes, or one for each.
        stride: what lies between the beginnings of windows, likewise; the window's size where it
            is left out. Not larger than the window: elements between windows would have no value.
        fill: the number that is put in the place of what is hidden.
        chunk: points that go through the model at once; chosen where it is left out.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    help: ClassVar[str] = "What hiding each window takes from the score."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "mean of target(x) - target(x with a window hidden) over its windows"
    paper: ClassVar[str] = "Zeiler and Fergus 2014, sec. 4.2"
    fills: ClassVar[str] = "fill"

    window: int | tuple[int, ...] = option(8, "Size of the window", at_least=1)
    stride: int | tuple[int, ...] | None = None
    fill: float = option(0.0, "What hides")
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("window", "stride"):
            value = getattr(self, field)
            if field == "window" or value is not None:
                object.__setattr__(self, field, checked_for_axes(field, value))
        object.__setattr__(self, "fill", checked_number("fill", self.fill))
        if self.stride is not None:
            windows, strides = _as_many(self.window, self.stride)
            if any(s > w for w, s in zip(windows, strides, strict=False)):
                raise SpecError(
                    f"stride={self.stride} is larger than window={self.window}: elements between "
                    "the windows would have no value. Give a stride of the window's size at most."
                )

    def check_subject(self, axes: Axes, sizes: Sizes, name: str) -> None:
        """Refuses windows that do not fit.

        Raises:
            InstrumentError: there is a number too many or too few, or one is larger than its axis.
        """
        hidden = hidden_axes(axes)
        shown = ", ".join(axes[i] for i in hidden)
        what = f"{name!r} is hidden along {amount(len(hidden), 'axis')} ({shown})"
        for field in ("window", "stride"):
            check_for_axes(field, getattr(self, field), len(hidden), what)
        for i, size in zip(hidden, self._windows(len(hidden)), strict=True):
            known = sizes[i]
            if known is not None and size > known:
                raise InstrumentError(
                    f"window={self.window} is larger than {name!r}, whose axis {axes[i]!r} has "
                    f"{amount(known, 'entry')}; give a window of at most that size, or name the "
                    "other inputs in wrt=."
                )

    def _windows(self, axes: int) -> tuple[int, ...]:
        return of_each_axis(self.window, axes)

    def _strides(self, axes: int) -> tuple[int, ...]:
        return of_each_axis(self.window if self.stride is None else self.stride, axes)

    def _axes(self, axes: Axes) -> list[tuple[int, int, int]]:
        """Returns the hidden axes, each with window and stride."""
        hidden = hidden_axes(axes)
        sizes = zip(self._windows(len(hidden)), self._strides(len(hidden)), strict=True)
        return [(axis, *both) for axis, both in zip(hidden, sizes, strict=True)]

    def count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of windows."""
        counts = []
        for axis, window, stride in self._axes(axes):
            size = sizes[axis]
            if size is None:
                return None
            counts.append(_count(size, window, stride))
        return math.prod(counts)

    def windows(self, axes: Axes, sizes: Sizes) -> tuple[Windows, ...] | None:
        """Returns the windows."""
        found = []
        for axis, window, stride in self._axes(axes):
            size = sizes[axis]
            if size is None:
                return None
            count = _count(size, window, stride)
            starts = (stride * i for i in range(count))
            found.append(tuple((at, min(size, at + window)) for at in starts))
        return tuple(found)

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns for each hidden axis its positions and its number of windows, and zeros."""
        found: list[T] = []
        for axis, window, stride in self._axes(subject.axes):
            positions = ops.counted(ops.widened(subject.value), axis)
            beyond = ops.relu(ops.add(ops.max(positions, (0,)), float(stride - window)))
            found += [positions, ops.add(ops.floor(ops.div(beyond, float(stride))), 1.0)]
        like = ops.widened(subject.value)
        return (*found, of_positions(ops, subject.value, subject.axes, like))

    def counted(self, ops: Operations[T], prepared: Sequence[T]) -> T:
        """Returns the product of the numbers of windows."""
        one = ops.add(ops.max(prepared[-1], tuple(range(ops.rank(prepared[-1])))), 1.0)
        return functools.reduce(ops.mul, prepared[1:-1:2], one)

    def _covered(self, ops: Operations[T], prepared: Sequence[T], numbers: T) -> T:
        """Returns 1 where a window covers a position, else 0: `[points, 1, ...positions]`."""
        axes = len(prepared) // 2
        windows, strides = self._windows(axes), self._strides(axes)
        along = [ops.expand_dims(ops.add(ops.zeros_like(numbers), 1.0), tuple(range(1, axes + 2)))]
        for axis, place in enumerate(in_each_axis(ops, numbers, prepared[1:-1:2])):
            middle = ops.add(ops.mul(place, float(strides[axis])), (windows[axis] - 1) / 2)
            middle = ops.expand_dims(middle, (1,))
            off = ops.abs(ops.sub(ops.expand_dims(prepared[2 * axis], (0,)), middle))
            inside = ops.cast(ops.greater(windows[axis] / 2, off), numbers)
            others = tuple(i for i in range(1, axes + 2) if i != axis + 2)
            along.append(ops.expand_dims(inside, others))
        return functools.reduce(ops.mul, along)

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the tensor with one window filled."""
        covered = beside_channels(ops, self._covered(ops, prepared, numbers), axes)
        whole = ops.expand_dims(value, (0,))
        return ops.where(ops.greater(covered, 0.5), self.fill, whole)

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros for the sum of what windows take, and for the number of windows."""
        zeros = ops.cast(prepared[-1], score)
        return zeros, ops.max(zeros, (0,), keepdims=True)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns what a window takes from the score, and 1, where it covers a position."""
        covered = self._covered(ops, prepared, numbers)
        taken = ops.sub(ops.expand_dims(score, (0,)), scores)
        taken = beside_positions(ops, taken, len(prepared) // 2)
        covered = ops.cast(covered, score)
        return ops.mul(covered, taken), covered

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the mean over the windows that cover an element."""
        del subject, prepared, score
        return ops.div(sums[0], sums[1])

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns window, stride and fill."""
        count = len(hidden_axes(axes))
        return {
            "window": list(self._windows(count)),
            "stride": list(self._strides(count)),
            "fill": self.fill,
        }


def _count(size: int, window: int, stride: int) -> int:
    """Returns how many windows there are along an axis."""
    return max(0, math.ceil((size - window) / stride)) + 1


def _as_many(
    first: int | tuple[int, ...], second: int | tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns both as tuples, a single number as often as the other has entries."""
    length = max(len(v) if isinstance(v, tuple) else 1 for v in (first, second))
    return of_each_axis(first, length), of_each_axis(second, length)
