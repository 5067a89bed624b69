"""Writes the part of a forward pass that windows reach: see `reach`.

One Loop over the windows of a run. Each tensor of the part is cut out of what it is for the
unchanged samples, with what was computed anew put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.attribution.reach import ALONE, Part, Reach, along, geometry
from probegen.graph.attribution.spans import Span, hull, read_by, whole
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import Dim, dims_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter

_Numbers = npt.NDArray[np.int64]


def forward_within_reach(
    outside: Builder,
    body: Builder,
    reach: Reach,
    changed: Mapping[ir.Value, ir.Value],
    numbers: ir.Value,
) -> dict[ir.Value, ir.Value]:
    """Writes what windows reach, into the body of a loop over runs.

    Args:
        outside: writes around the loop; its graph holds the forward pass.
        body: of the loop.
        reach: what the windows reach.
        changed: the moved tensors -> their changed versions, `[windows, batch, ...]`.
        numbers: of the windows, whole ones from 0 as floating ones, `[windows]`; the place along
            the last axis is counted fastest.

    Returns:
        The ends of the reach -> what they are for each window, `[windows, batch, ...]`.
    """
    each = StepWriter(body)
    writer = _Writer(outside, each.body, reach)
    for value, versions in changed.items():
        writer.change(value, each.read(versions, backwards=False))
    for node in reach.nodes:
        writer.write(node)
    ends = [Collected(writer.all_of(value), backwards=False) for value in reach.ends]
    places = each.value("places", ir.TensorType(ir.DataType.INT64), [None])
    each.bind(places, writer.finish(body, numbers, places), backwards=False)
    # A Loop: a Scan has to carry, and copy at every step, what it reads from outside.
    count = body.squeeze(body.size(numbers, 0), [0])
    _, stacked = each.finish([], ends, count)
    return dict(zip(reach.ends, stacked, strict=True))


class _Writer:
    """What is written for one window.

    Where to cut differs from window to window. Each such number is a column of a table with a row
    for every place along its axis: `finish` writes the tables, and who reads their rows.
    """

    def __init__(self, outside: Builder, body: Builder, reach: Reach) -> None:
        self._outside, self._body, self._reach = outside, body, reach
        self._new: dict[ir.Value, ir.Value] = {}
        self._framed: dict[tuple[ir.Value, tuple[int, ...], float], ir.Value] = {}
        self._regions: dict[tuple[Any, ...], ir.Value] = {}
        self._vectors: dict[bytes, tuple[ir.Value, list[tuple[int, _Numbers]]]] = {}

    def change(self, value: ir.Value, version: ir.Value) -> None:
        """Takes a part out of a changed version of a moved tensor."""
        part = self._reach.parts[value]
        self._new[value] = self._cut(version, part.axes, self._whole(value), part.spans)

    def write(self, node: ir.Node) -> None:
        """Writes the part of a node's result that changes."""
        made, part = node.outputs[0], self._reach.parts[node.outputs[0]]
        first = node.inputs[0]
        if key_of(node) == "Pad" and first is not None:
            self._new[made] = self._new[first]  # the same numbers at later positions
            return
        if key_of(node) in ("Conv", "MaxPool", "AveragePool"):
            self._new[made] = self._slid_over(node, part)
            return
        alone = key_of(node) in ALONE
        read: list[ir.Value | None] = []
        for place, value in enumerate(node.inputs):
            if value is None or (alone and place):
                read.append(value)
            elif alone:
                read.append(self._region(value, part.spans))
            else:
                read.append(self._operand(value, part, len(dims_of(made))))
        self._new[made] = self._again(node, read, part)

    def all_of(self, value: ir.Value) -> ir.Value:
        """Returns a tensor that changes in part, all of it."""
        return self._region(value, self._whole(value))

    def finish(self, body: Builder, numbers: ir.Value, places: ir.Value) -> ir.Value:
        """Writes the tables and who reads them; returns the rows of all windows.

        Args:
            body: writes around what is done for one window.
            numbers: of the windows, `[windows]`.
            places: the row of one window, within.
        """
        columns = [c for _, vector in self._vectors.values() for c in vector]
        if not columns:
            return numbers
        counts = [len(s.starts) for s in next(iter(self._reach.parts.values())).spans]
        left, rows = body.cast(numbers, ir.DataType.INT64), list[ir.Value]()
        order: list[int] = []
        for axis in reversed(range(len(counts))):
            count = body.const(np.int64(counts[axis]))
            place = body.elementwise("Mod", left, count)
            left = body.div(left, count)
            mine = [i for i, (at, _) in enumerate(columns) if at == axis]
            order += mine
            if mine:
                table = np.stack([columns[i][1] for i in mine], axis=1).astype(np.int32)
                shape = [*dims_of(numbers), len(mine)]
                rows.append(body.op("Gather", body.const(table), place, shape=shape, axis=0))
        joined = body.cast(body.concat(rows, axis=1), ir.DataType.INT64)
        ordered = body.ints(*np.argsort(order).tolist())
        shape = [*dims_of(numbers), len(columns)]
        found = body.op("Gather", joined, ordered, shape=shape, axis=1)
        sizes = self._body.ints(*(len(vector) for _, vector in self._vectors.values()))
        values = [value for value, _ in self._vectors.values()]
        split = ir.Node("", "Split", [places, sizes], [ir.AttrInt64("axis", 0)], outputs=values)
        split.name = self._body.fresh("Split")
        self._body.nodes.insert(0, split)
        return found

    # -- operands ------------------------------------------------------------------------------

    def _operand(self, value: ir.Value, part: Part, rank: int) -> ir.Value:
        """Returns of an operand what goes with a part of a result of some rank."""
        if value in self._reach.parts:
            return self._region(value, part.spans)
        sizes, behind = along(value, part.axes, rank) or [], rank - len(dims_of(value))
        cut = [i for i, size in enumerate(sizes) if size != 1]
        lengths = [whole(size, part.spans[i]) for i in cut if isinstance(size := sizes[i], int)]
        spans = [part.spans[i] for i in cut]
        return self._cut(value, [part.axes[i] - behind for i in cut], lengths, spans, cut)

    def _slid_over(self, node: ir.Node, part: Part) -> ir.Value:
        """Writes a convolution or pooling, of what its windows read and without padding."""
        x, axes = node.inputs[0], geometry(node)
        if x is None or axes is None:
            raise ValueError(f"{node.name!r} is not computed in part")
        ahead, behind, read = [0] * len(axes), [0] * len(axes), []
        kept = [list(side) for side in zip(*(a.padding for a in axes), strict=True)]
        for at, span in zip(part.axes, part.spans, strict=True):
            axis = axes[at - 2]
            ahead[at - 2], behind[at - 2] = axis.padding
            kept[0][at - 2] = kept[1][at - 2] = 0
            read.append(read_by(span, axis.extent, axis.stride))
        filling = -np.inf if node.op_type == "MaxPool" else 0.0
        frame = (0, 0, *ahead, 0, 0, *behind)
        operands = [self._region(x, read, frame, filling), *node.inputs[1:]]
        changes = {
            "auto_pad": ir.AttrString("auto_pad", "NOTSET"),
            "pads": ir.AttrInt64s("pads", [*kept[0], *kept[1]]),
        }
        return self._again(node, operands, part, changes)

    def _again(
        self,
        node: ir.Node,
        operands: Sequence[ir.Value | None],
        part: Part,
        changes: Mapping[str, ir.Attr] = MappingProxyType({}),
    ) -> ir.Value:
        sizes = list(dims_of(node.outputs[0]))
        for axis, span in zip(part.axes, part.spans, strict=True):
            sizes[axis] = span.size
        shapes = [sizes, *[None] * (len(node.outputs) - 1)]
        return self._body.again(node, operands, shapes, changes)[0]

    # -- parts of tensors ----------------------------------------------------------------------

    def _whole(self, value: ir.Value) -> list[Span]:
        """Returns all of a tensor that changes in part, along the axes of the windows."""
        part = self._reach.parts[value]
        return [whole(_length(value, a), s) for a, s in zip(part.axes, part.spans, strict=True)]

    def _region(
        self,
        value: ir.Value,
        wanted: Sequence[Span],
        frame: tuple[int, ...] = (),
        filling: float = 0.0,
    ) -> ir.Value:
        """Returns a part of a tensor that changes, what changed in its place.

        Args:
            value: the tensor.
            wanted: the part along its axes, counted from the first position of the frame.
            frame: how many positions of something else are put around it, as a Pad takes them.
            filling: what that is.
        """
        part = self._reach.parts[value]
        frame = frame or (0,) * (2 * len(dims_of(value)))
        ahead, behind = ([side[a] for a in part.axes] for side in _halves(frame))
        have = [s.moved(a) for s, a in zip(part.spans, ahead, strict=True)]
        key = (value, frame, filling, *((s.size, s.starts.tobytes()) for s in wanted))
        if key in self._regions:
            return self._regions[key]
        if all(h.covers(w) for h, w in zip(have, wanted, strict=True)):
            found = self._cut(self._new[value], part.axes, have, wanted)
        else:
            sizes = (_length(value, axis) for axis in part.axes)
            lengths = [sum(three) for three in zip(ahead, sizes, behind, strict=True)]
            both = zip(have, wanted, lengths, strict=True)
            covering = [hull([h, w], length) for h, w, length in both]
            original = self._with_frame(value, frame, filling)
            pasted = self._pasted(original, self._new[value], part.axes, have, covering)
            found = self._cut(pasted, part.axes, covering, wanted)
        self._regions[key] = found
        return found

    def _pasted(
        self,
        original: ir.Value,
        new: ir.Value,
        axes: Sequence[int],
        have: Sequence[Span],
        covering: Sequence[Span],
        done: int = 0,
    ) -> ir.Value:
        """Returns a part of a tensor that covers what is new: frames of the old around it.

        Along the first `done` axes it is as long as what is new; there is nothing to put around.
        """
        if done == len(axes):
            return new
        inner = self._pasted(original, new, axes, have, covering, done + 1)
        new_, outer = have[done], covering[done]
        pieces = []
        for first, stop in ((outer.starts, new_.starts), (new_.stops, outer.stops)):
            starts = [*(s.starts for s in have[:done]), first]
            stops = [*(s.stops for s in have[:done]), stop]
            starts += [s.starts for s in covering[done + 1 :]]
            stops += [s.stops for s in covering[done + 1 :]]
            some = bool(np.any(stop > first))
            pieces.append(self._slice(original, axes, starts, stops) if some else None)
        joined = [p for p in (pieces[0], inner, pieces[1]) if p is not None]
        sizes = list(dims_of(original))
        for axis, span in zip(axes, [*have[:done], *covering[done:]], strict=True):
            sizes[axis] = span.size
        if len(joined) == 1:
            return inner
        return self._body.op("Concat", *joined, shape=sizes, axis=axes[done])

    def _with_frame(self, value: ir.Value, frame: tuple[int, ...], filling: float) -> ir.Value:
        """Returns an unchanged tensor with a frame around it, written once."""
        if not any(frame):
            return value
        key = (value, frame, filling)
        if key not in self._framed:
            b = self._outside
            sizes: list[Dim] = [
                d + before + after if isinstance(d, int) else d
                for d, before, after in zip(dims_of(value), *_halves(frame), strict=True)
            ]
            number = b.scalar(filling, value)
            self._framed[key] = b.op("Pad", value, b.ints(*frame), number, shape=sizes)
        return self._framed[key]

    def _cut(
        self,
        value: ir.Value,
        axes: Sequence[int],
        have: Sequence[Span],
        wanted: Sequence[Span],
        which: Sequence[int] | None = None,
    ) -> ir.Value:
        """Returns a part of a part of a tensor, both counted from one position.

        Args:
            value: the tensor.
            axes: that it is cut along.
            have: the part that it is.
            wanted: the part of it.
            which: axes of windows those are; all of them by default.
        """
        if list(have) == list(wanted):
            return value
        starts = [w.starts - h.starts for h, w in zip(have, wanted, strict=True)]
        stops = [w.stops - h.starts for h, w in zip(have, wanted, strict=True)]
        return self._slice(value, axes, starts, stops, which)

    def _slice(
        self,
        value: ir.Value,
        axes: Sequence[int],
        starts: Sequence[_Numbers],
        stops: Sequence[_Numbers],
        which: Sequence[int] | None = None,
    ) -> ir.Value:
        sizes = list(dims_of(value))
        for axis, first, stop in zip(axes, starts, stops, strict=True):
            length = stop - first
            sizes[axis] = int(length[0]) if np.ptp(length) == 0 else None
        which = range(len(axes)) if which is None else which
        bounds = (self._vector(which, numbers) for numbers in (starts, stops))
        return self._body.op("Slice", value, *bounds, self._body.ints(*axes), shape=sizes)

    def _vector(self, which: Sequence[int], numbers: Sequence[_Numbers]) -> ir.Value:
        """Returns whole numbers that depend on the window, one an axis, as one tensor.

        Args:
            which: axis of windows each depends on.
            numbers: for every place along that axis.
        """
        if all(np.ptp(n) == 0 for n in numbers):
            return self._body.ints(*(int(n[0]) for n in numbers))
        columns = list(zip(which, numbers, strict=True))
        key = b"".join(bytes([axis]) + np.asarray(n, np.int64).tobytes() for axis, n in columns)
        if key not in self._vectors:
            value = ir.Value(
                name=self._body.fresh("places"),
                type=ir.TensorType(ir.DataType.INT64),
                shape=ir.Shape([len(columns)]),
            )
            self._vectors[key] = value, columns
        return self._vectors[key][0]


def _halves(frame: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns how wide a frame is before and behind a tensor, for each axis."""
    return frame[: len(frame) // 2], frame[len(frame) // 2 :]


def _length(value: ir.Value, axis: int) -> int:
    """Returns a size that is known."""
    size = dims_of(value)[axis]
    if not isinstance(size, int):
        raise TypeError(f"axis {axis} of {value.name!r} is open")
    return size
