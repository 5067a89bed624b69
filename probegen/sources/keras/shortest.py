"""How short the inputs of a Keras model may be: see `probegen.plan.shortest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen.plan.shortest import ShortestFinder, cut, windows
from probegen.sources.keras.lengths import OTHER_SIZES, WINDOWS
from probegen.sources.keras.positions import sizes_read

_SIZES = frozenset({"Shape", "Size", "Rank", "ShapeN"})


def shortest(
    operations: Sequence[Any],
    inputs: Sequence[Any],
    recurrent: Sequence[tuple[Sequence[Any], Sequence[Any]]],
) -> Mapping[int, tuple[int | None, ...]]:
    """Returns the positions of inputs -> the fewest entries of each axis, where known.

    Args:
        operations: those of a trace, in the order in which they were made.
        inputs: the flat inputs.
        recurrent: what recurrent layers read and give; in between it lies in loops.
    """
    read_by = {id(made): read for read, given in recurrent for made in given}
    finder = ShortestFinder([(id(t), _sizes(t)) for t in inputs])
    for op in operations:
        if not op.inputs or not op.outputs or op.type in _SIZES:
            continue
        if op.type in _CHANGES:
            if finder.follows(id(op.inputs[0])):
                _CHANGES[op.type](finder, op, op.inputs[0], op.outputs[0])
        elif op.type not in OTHER_SIZES:
            for tensor in op.outputs:
                finder.follow(id(tensor), _sizes(tensor), [id(t) for t in op.inputs])
        for tensor in op.outputs:
            read = read_by.get(id(tensor), ())
            finder.follow(id(tensor), _sizes(tensor), [id(t) for t in read])
    return finder.found()


def _sizes(tensor: Any) -> list[int | None]:
    return [] if tensor.shape.rank is None else list(tensor.shape)


def _windows(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    rank, padding = x.shape.rank, op.get_attr("padding")
    if not op.get_attr("data_format").endswith(b"C"):
        return
    strides = op.get_attr("strides")[1:-1]
    if "Pool" in op.type:
        extents = op.get_attr("ksize")[1:-1]
    else:
        kernel = list(op.inputs[1].shape)[: rank - 2]
        if None in kernel:
            return
        dilations = op.get_attr("dilations")[1:-1]
        extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    added = [0] * len(extents)
    if padding == b"SAME":
        extents = [1] * len(extents)
    elif padding == b"EXPLICIT":
        pads = op.get_attr("explicit_paddings")[2:-2]
        added = [a + b for a, b in zip(pads[::2], pads[1::2], strict=True)]
    finder.move(id(result), id(x), range(rank), windows(extents, strides, added, 1))


def _transpose(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    order = tf.get_static_value(op.inputs[1])
    if order is not None:
        finder.move(id(result), id(x), [int(a) for a in order])


def _expand(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    axis, rank = tf.get_static_value(op.inputs[1]), x.shape.rank + 1
    if axis is not None:
        new, rest = int(axis) % rank, iter(range(rank - 1))
        finder.move(id(result), id(x), [None if i == new else next(rest) for i in range(rank)])


def _squeeze(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    gone = {a % x.shape.rank for a in op.get_attr("squeeze_dims")}
    if gone:
        finder.move(id(result), id(x), [i for i in range(x.shape.rank) if i not in gone])


def _pad(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    pads = tf.get_static_value(op.inputs[1])
    if pads is None:
        return
    if op.type == "MirrorPad":
        more = 1 if op.get_attr("mode") == b"REFLECT" else 0
        for axis, both in enumerate(pads):
            finder.need(id(x), axis, int(max(both)) + more)
    changes = {axis: cut(-int(a), -int(b), 1) for axis, (a, b) in enumerate(pads)}
    finder.move(id(result), id(x), range(len(pads)), changes, needs=False)


def _slice(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    bounds = [tf.get_static_value(t) for t in op.inputs[1:]]
    masks = ("begin_mask", "end_mask", "shrink_axis_mask")
    if any(b is None for b in bounds) or any(
        op.get_attr(name) for name in ("ellipsis_mask", "new_axis_mask")
    ):
        return
    begin_mask, end_mask, gone = (op.get_attr(name) for name in masks)
    changes: dict[int, tuple[int, int] | None] = {}
    for axis, (begin, end, step) in enumerate(zip(*(map(int, b) for b in bounds), strict=True)):
        if gone >> axis & 1:
            finder.need(id(x), axis, begin + 1 if begin >= 0 else -begin)
            continue
        from_start, to_end = begin_mask >> axis & 1, end_mask >> axis & 1
        if from_start and to_end and abs(step) == 1:
            continue
        front, back = 0 if from_start else begin, 0 if to_end else -end
        known = step > 0 and front >= 0 and (to_end or back > 0)
        changes[axis] = cut(front, back, step) if known else None
    kept = [i for i in range(x.shape.rank) if not gone >> i & 1]
    finder.move(id(result), id(x), kept, changes, needs=False)


def _concat(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    axis = tf.get_static_value(op.inputs[-1])
    if axis is not None:
        rank = x.shape.rank
        finder.move(id(result), id(x), range(rank), {int(axis) % rank: None})


def _reshape(finder: ShortestFinder, op: Any, x: Any, result: Any) -> None:
    del op
    finder.reshape(id(result), _sizes(x), id(x), _matrix_sizes(result))


def _matrix_sizes(tensor: Any) -> list[int | None]:
    return [d if isinstance(d, int) else None for d in sizes_read(tensor)]


_CHANGES = {
    **dict.fromkeys(WINDOWS, _windows),
    "Transpose": _transpose,
    "ExpandDims": _expand,
    "Squeeze": _squeeze,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    "StridedSlice": _slice,
    "ConcatV2": _concat,
    "Reshape": _reshape,
}
