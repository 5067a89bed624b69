"""How long the sequences of a Keras model may be: see `probegen.plan.lengths`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen.plan.lengths import Entry, LengthFinder, holds_as_much

_SIZES = frozenset({"Shape", "Size", "Rank", "ShapeN"})
_SAME = frozenset({"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze"})
#: Operations that hand numbers that count up on, how often they stand there aside.
_REPEATING = _SAME | {"BroadcastTo", "Tile", "Transpose"}
_TABLES = frozenset({"Slice", "Gather", "GatherV2"})
#: Operations that slide a window along axes.
WINDOWS = frozenset(
    {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"}
)
#: Operations behind which an open axis may have any length.
OTHER_SIZES = frozenset(
    {"Pad", "PadV2", "MirrorPad", "Slice", "Tile", "SpaceToBatchND", "BatchToSpaceND", "Where"}
    | {"Conv2DBackpropInput", "Conv3DBackpropInputV2", "ExtractImagePatches", "GatherNd", "Unique"}
    | {
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "ResizeBicubic",
        "ResizeArea",
        "ScaleAndTranslate",
    }
)
_MOST_ENTRIES = 16


def longest(operations: Sequence[Any], inputs: Sequence[Any]) -> Mapping[int, int]:
    """Returns the positions of inputs -> the most steps that they may have, where known.

    Args:
        operations: those of a trace, in the order in which they were made.
        inputs: the flat inputs.
    """
    finder = LengthFinder(
        [(id(t), list(t.shape) if t.shape.rank is not None else []) for t in inputs]
    )
    for op in operations:
        if op.type == "Shape" and op.inputs[0].shape.rank is not None:
            finder.shape(id(op.outputs[0]), id(op.inputs[0]), list(op.inputs[0].shape))
        elif op.type not in _SIZES:
            operands, results = ([id(t) for t in some] for some in (op.inputs, op.outputs))
            finder.follow(operands, results, keeps_sizes=_keeps_sizes(finder, op))
            _follow(finder, op)
    return finder.found()


def _keeps_sizes(finder: LengthFinder, op: Any) -> bool:
    """Tells whether open axes behind the one of the batch are as long as before."""
    if op.type in WINDOWS:
        return op.get_attr("padding") == b"SAME" and set(op.get_attr("strides")) == {1}
    if op.type in ("Gather", "GatherV2"):
        return not finder.depends(id(op.inputs[0]))
    if op.type not in _BY_AXES:
        return op.type not in OTHER_SIZES
    before, after = op.inputs[0].shape, op.outputs[0].shape
    known = before.rank is not None and after.rank is not None
    return known and _BY_AXES[op.type](op, list(before), list(after))


def _joined_along_known(op: Any, _: list[int | None], after: list[int | None]) -> bool:
    axis = tf.get_static_value(op.inputs[-1])
    return axis is not None and after[int(axis)] is not None


def _cut_along_known(op: Any, before: list[int | None], _: list[int | None]) -> bool:
    if op.get_attr("new_axis_mask") or op.get_attr("ellipsis_mask"):
        return False
    whole = op.get_attr("begin_mask") & op.get_attr("end_mask")
    steps = tf.get_static_value(op.inputs[3])
    return steps is not None and all(
        size is not None or i >= len(steps) or (whole >> i & 1 and abs(steps[i]) == 1)
        for i, size in enumerate(before)
        if i
    )


#: Operations behind which it depends on the axes.
_BY_AXES: Mapping[str, Callable[[Any, list[int | None], list[int | None]], bool]] = {
    "ConcatV2": _joined_along_known,
    "StridedSlice": _cut_along_known,
    "Reshape": lambda _, before, after: holds_as_much(before, after),
}


def _follow(finder: LengthFinder, op: Any) -> None:
    if not op.inputs or not op.outputs:
        return
    result, first = id(op.outputs[0]), op.inputs[0]
    known = id(first) in finder.entries
    if op.type in _SAME and known:
        finder.entries[result] = finder.entries[id(first)]
    elif op.type in _REPEATING and id(first) in finder.counted:
        finder.counted[result] = finder.counted[id(first)]
    elif op.type in ("Pack", "ConcatV2"):
        parts = list(op.inputs)[: -1 if op.type == "ConcatV2" else None]
        if any(id(t) in finder.entries for t in parts):
            finder.entries[result] = [e for t in parts for e in _entries(finder, t)]
    elif op.type in ("Add", "AddV2", "Sub"):
        _added(finder, op)
    elif op.type == "Range":
        start, end, step = (_entries(finder, t) for t in op.inputs)
        if start == [0] and step == [1] and end and not isinstance(end[0], int | None):
            finder.counted[result] = end[0]
    elif op.type in ("Select", "SelectV2") and id(op.inputs[2]) in finder.counted:
        finder.counted[result] = finder.counted[id(op.inputs[2])]  # negative ones from the end
    elif op.type == "StridedSlice":
        _sliced(finder, op)
    elif op.type in _TABLES and not finder.depends(id(first)):
        _table_read(finder, op)


def _table_read(finder: LengthFinder, op: Any) -> None:
    """Notes that a stored table is cut, or looked up along its first axis."""
    table = op.inputs[0]
    if table.dtype == tf.resource or not table.shape.rank:
        return
    if op.type == "Slice":
        starts, sizes = (_entries(finder, t) for t in op.inputs[1:3])
        for rows, start, size in zip(table.shape, starts, sizes, strict=False):
            finder.cut(rows, start, size if start == 0 else None)
    elif op.type == "Gather" or tf.get_static_value(op.inputs[2]) == 0:
        finder.looked_up(table.shape[0], id(op.inputs[1]))


def _entries(finder: LengthFinder, tensor: Any) -> list[Entry]:
    """Returns the numbers that a tensor holds, as far as they are known."""
    if id(tensor) in finder.entries:
        return finder.entries[id(tensor)]
    if tensor.dtype.is_integer:
        value = tf.get_static_value(tensor)
        if value is not None and value.size <= _MOST_ENTRIES:
            return [int(v) for v in value.reshape(-1)]
    return [None] * (tensor.shape.num_elements() or 1)


def _added(finder: LengthFinder, op: Any) -> None:
    """Follows sizes, or numbers that count up, plus or minus constants."""
    a, b = op.inputs
    result, subtracts = id(op.outputs[0]), op.type == "Sub"
    if id(a) in finder.entries or (id(b) in finder.entries and not subtracts):
        more = _entries(finder, b)
        if subtracts:
            more = [-e if isinstance(e, int) else None for e in more]
        finder.add(result, _entries(finder, a), more)
    for counted, constant in ((a, b), (b, a))[: 1 if subtracts else 2]:
        number = _entries(finder, constant) if id(counted) in finder.counted else []
        if len(number) == 1 and isinstance(number[0], int):
            shift = -number[0] if subtracts else number[0]
            finder.counted[result] = finder.counted[id(counted)] + shift


def _sliced(finder: LengthFinder, op: Any) -> None:
    """Follows a slice of sizes, or of a stored table."""
    tensor, *bounds = op.inputs
    if op.get_attr("ellipsis_mask"):
        return
    begins, ends, steps = (_entries(finder, t) for t in bounds)
    begin_mask, end_mask = op.get_attr("begin_mask"), op.get_attr("end_mask")
    inserted = op.get_attr("new_axis_mask")
    if id(tensor) in finder.entries:
        whole = finder.entries[id(tensor)]
        first, last, step = begins[0], ends[0], steps[0]
        if not (isinstance(first, int) and isinstance(last, int) and isinstance(step, int)):
            return
        if not inserted:
            begin = None if begin_mask & 1 else first
            end = None if end_mask & 1 or (first == -1 and last == 0) else last
            finder.entries[id(op.outputs[0])] = whole[begin:end:step]
    elif not finder.depends(id(tensor)) and tensor.shape.rank is not None:
        places = [i for i in range(len(ends)) if not inserted >> i & 1]
        for rows, i in zip(tensor.shape, places, strict=False):
            if steps[i] == 1 and not end_mask >> i & 1:
                finder.cut(rows, 0 if begin_mask >> i & 1 else begins[i], ends[i])
