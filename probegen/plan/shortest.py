"""How long sequences, and how large images, have to be at least: as their windows are.

A convolution without padding, a pooling or a padding by reflection makes nothing, or fails, where
there are fewer entries than a window needs. Runtimes do not say so: onnxruntime pools what is
shorter than a window with a stride to one entry, where Keras gives none. Sizes are followed from
the inputs to such operations, through cuts as well; a cut by itself may leave nothing, as the
differences of steps do of one step, beside which something else stands. Sources say what an
operation does; nothing here knows a framework.

    x [batch, time, 3] -> pooling by 2 -> window of 5: no fewer than 10 steps
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

from probegen.plan.lengths import holds_as_much

#: Axes of a matrix.
_FLAT = 2


@dataclasses.dataclass(frozen=True)
class Along:
    """An axis of a tensor that grows with an axis of an input.

    Attributes:
        input: position of the input.
        axis: its axis.
        steps: what was done to it, in order: `m` entries need `(m - 1) * stride + first` before.
    """

    input: int
    axis: int
    steps: tuple[tuple[int, int], ...] = ()

    def least(self, count: int) -> int:
        """Returns how many entries the input needs so that there are `count` here."""
        for stride, first in reversed(self.steps):
            count = (count - 1) * stride + first
        return count


class ShortestFinder:
    """Follows sizes through one graph."""

    def __init__(self, inputs: Sequence[tuple[Hashable, Sequence[int | None]]]) -> None:
        """Prepares for one graph.

        Args:
            inputs: what is fed, in order: the tensor and its sizes, the batch first.
        """
        self._sizes = [list(sizes) for _, sizes in inputs]
        self._along = {
            key: {axis: Along(i, axis) for axis, d in enumerate(sizes) if d is None and axis}
            for i, (key, sizes) in enumerate(inputs)
        }
        #: Matrices of an axis that is joined with the batch, and the axis.
        self._joined: dict[Hashable, Along] = {}
        self._needed: dict[tuple[int, int], int] = {}

    def axes(self, tensor: Hashable) -> frozenset[int]:
        """Returns the axes of a tensor that are followed."""
        return frozenset(self._along.get(tensor, ()))

    def follows(self, tensor: Hashable) -> bool:
        """Tells whether anything of a tensor is followed."""
        return tensor in self._along or tensor in self._joined

    def need(self, tensor: Hashable, axis: int, count: int) -> None:
        """Notes that an axis of a tensor has to have so many entries."""
        along = self._along.get(tensor, {}).get(axis)
        if along is not None:
            key = (along.input, along.axis)
            self._needed[key] = max(self._needed.get(key, 1), along.least(count))

    def move(
        self,
        result: Hashable,
        tensor: Hashable,
        order: Sequence[int | None],
        changes: Mapping[int, tuple[int, int] | None] | None = None,
        *,
        needs: bool = True,
    ) -> None:
        """Notes that a tensor is made of another.

        Args:
            result: what is made.
            tensor: what it is made of.
            order: for each axis of the result, which of the tensor it is; None for another.
            changes: axis of the tensor -> stride and first, see `Along`; None where it is not
                known how many entries are left. Other axes are as long as before.
            needs: whether one entry has to be left of each that changes.
        """
        changes, before = changes or {}, self._along.get(tensor, {})
        found: dict[int, Along] = {}
        for place, axis in enumerate(order):
            along = None if axis is None else before.get(axis)
            if axis is None or along is None:
                continue
            step = changes.get(axis)
            if step is not None:
                if needs:
                    self.need(tensor, axis, step[1])
                found[place] = dataclasses.replace(along, steps=(*along.steps, step))
            elif axis not in changes:
                found[place] = along
        if found:
            self._along[result] = found

    def follow(
        self, result: Hashable, sizes: Sequence[int | None], operands: Sequence[Hashable]
    ) -> None:
        """Notes that a tensor is made of others entry by entry, or along axes that are fixed."""
        is_open = frozenset(i for i, d in enumerate(sizes) if d is None and i)
        for operand in operands:
            if operand in self._joined and len(sizes) == _FLAT:
                self._joined[result] = self._joined[operand]
                return
            if is_open and self.axes(operand) == is_open:
                self._along[result] = dict(self._along[operand])
                return

    def reshape(
        self,
        result: Hashable,
        before: Sequence[int | None],
        tensor: Hashable,
        after: Sequence[int | None],
    ) -> None:
        """Notes that a tensor is another in other sizes.

        An axis may be joined with the batch, as products with matrices are written, and come back.

        Args:
            result: what is made.
            before: the sizes of what it is made of.
            tensor: what it is made of.
            after: its own sizes.
        """
        was, now = ([i for i, d in enumerate(s) if d is None and i] for s in (before, after))
        along = self._along.get(tensor, {}).get(was[0]) if len(was) == 1 else None
        along = along or self._joined.get(tensor)
        if along is None:
            return
        if len(now) == 1 and (tensor in self._joined or holds_as_much(before, after)):
            self._along[result] = {now[0]: along}
        elif not now and len(after) == _FLAT and before[-1] == after[-1] is not None:
            self._joined[result] = along

    def found(self) -> Mapping[int, tuple[int | None, ...]]:
        """Returns the positions of inputs -> the fewest entries of each axis, None for any."""
        return {
            i: tuple(self._needed.get((i, axis)) for axis in range(len(self._sizes[i])))
            for i in {i for (i, _), least in self._needed.items() if least > 1}
        }


def windows(
    extents: Sequence[int], strides: Sequence[int], added: Sequence[int], first: int
) -> dict[int, tuple[int, int]]:
    """Returns what windows do to axes, for `ShortestFinder.move`.

    Args:
        extents: what a window reaches over, an axis.
        strides: from one window to the next.
        added: how much padding there is on both sides together.
        first: the first of the axes.
    """
    each = zip(extents, strides, added, strict=True)
    return {first + i: (stride, extent - more) for i, (extent, stride, more) in enumerate(each)}


def cut(begin: int, end: int, step: int) -> tuple[int, int]:
    """Returns what a cut does to an axis, for `ShortestFinder.move`.

    Args:
        begin: how much is cut off in front.
        end: how much is cut off behind.
        step: from one entry that is left to the next.
    """
    return step, 1 + begin + end
