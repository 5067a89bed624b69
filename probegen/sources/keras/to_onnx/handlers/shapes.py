"""Operations on sizes and axes, and those that write into a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tf2onnx.onnx_opset.tensor import Roll, StridedSlice, Transpose

from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto


def transpose(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes an order of axes that may count from the end."""
    w = Writer(context, node)
    order = w.value_of(w.inputs[1]) if len(w.inputs) > 1 else None
    if order is None:
        Transpose.version_1(context, node)
        return
    w.finish("Transpose", w.inputs[0], perm=[int(axis) % len(order) for axis in order])


def strided_slice(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `x[..., newaxis]`, which tf2onnx cannot of one number (a batch size, say).

    All slices that cut something are tf2onnx's.
    """
    w = Writer(context, node)
    entries = range((w.shape_of(w.inputs[1]) or [0])[0])
    new, rest = (
        [bool(w.attribute(f"{name}_mask", 0) >> i & 1) for i in entries]
        for name in ("new_axis", "ellipsis")
    )
    if not any(rest) or not all(a or b for a, b in zip(new, rest, strict=True)):
        version = StridedSlice.version_13 if context.opset >= 13 else StridedSlice.version_10
        version(context, node)
        return
    in_front = rest.index(True)
    behind = len(rest) - in_front - 1
    if in_front + behind:
        w.give(w.unsqueeze(w.inputs[0], [*range(in_front), *range(-behind, 0)]))
    else:
        w.finish("Identity", w.inputs[0])


def roll(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes entries moved by constants along axes of known sizes, which stay known.

    Those along open axes are tf2onnx's.
    """
    w = Writer(context, node)
    x, shape = w.inputs[0], w.shape_of(w.inputs[0])
    given = [w.value_of(name) for name in w.inputs[1:]]
    shifts, axes = ([] if value is None else [int(n) for n in np.ravel(value)] for value in given)
    if shape is None or not axes or not shifts or min(shape[axis] for axis in axes) < 1:
        version = Roll.version_13 if context.opset >= 13 else Roll.version_10
        version(context, node)
        return
    for axis, shift in zip(axes, shifts, strict=True):
        cut, end = -shift % shape[axis], shape[axis]
        along = w.indices([axis % len(shape)])
        parts = [
            w.op("Slice", x, w.indices([start]), w.indices([stop]), along)
            for start, stop in ((cut, end), (0, cut))
        ]
        x = w.concat(parts, axis % len(shape)) if cut else x
    w.give(x)


def rank(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the number of axes."""
    w = Writer(context, node)
    number = w.rank_of(w.inputs[0])
    if number is not None:
        w.finish("Identity", w.const(number))
        return
    w.give(w.op("Squeeze", w.sizes(w.sizes(w.inputs[0])), dtype=_Type.INT64))


def shape_n(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the sizes of several tensors."""
    w = Writer(context, node)
    w.give(*(w.sizes(name) for name in w.inputs))


def broadcast_args(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the sizes that two tensors are broadcast to."""
    w = Writer(context, node)
    lengths = [(w.shape_of(name) or [-1])[0] for name in w.inputs]
    if min(lengths) < 0:
        raise ValueError("it needs tensors whose number of axes is known")
    one, other = (
        w.concat([w.indices([1] * (max(lengths) - n)), w.cast(name, _Type.INT64)])
        for name, n in zip(w.inputs, lengths, strict=True)
    )
    w.give(w.where(w.test("Equal", one, w.const(1, _Type.INT64)), other, one))


def scatter_nd(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes values into zeros; what goes to one place adds up, as ONNX does when it is asked."""
    w = Writer(context, node)
    indices, updates, sizes = w.inputs
    carrier = _added_type(w.dtype)
    zeros = onnx.helper.make_tensor("value", carrier, [1], [0])
    base = w.op("ConstantOfShape", w.cast(sizes, _Type.INT64), dtype=carrier, value=zeros)
    constant, attributes = w.value_of(indices), {"reduction": "add"}
    if constant is not None:
        places = constant.reshape(-1, constant.shape[-1])
        attributes = attributes if len(np.unique(places, axis=0)) < len(places) else {}
    if attributes and context.opset < 16:
        raise ValueError("it needs opset 16 or newer, since what meets in one place adds up")
    places = w.cast(indices, _Type.INT64)
    w.give(w.op("ScatterND", base, places, w.cast(updates, carrier), dtype=carrier, **attributes))


def _added_type(dtype: int) -> int:
    """Returns what onnxruntime adds numbers of a type in."""
    if dtype in (_Type.FLOAT, _Type.DOUBLE, _Type.INT32, _Type.INT64):
        return dtype
    return int(_Type.FLOAT if dtype == _Type.FLOAT16 else _Type.INT32)


def dynamic_update_slice(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a block into a tensor, moved so far that it fits, as XLA has it."""
    w = Writer(context, node)
    x, block, start = w.inputs
    room = w.op("Sub", w.sizes(x), w.sizes(block), dtype=_Type.INT64)
    start = w.op("Max", w.cast(start, _Type.INT64), w.const(0, _Type.INT64), dtype=_Type.INT64)
    before = w.op("Min", start, room, dtype=_Type.INT64)
    widths = w.concat([before, w.op("Sub", room, before, dtype=_Type.INT64)])
    carrier = w.dtype if w.dtype not in (_Type.BOOL, _Type.INT8, _Type.UINT8) else _Type.INT32
    placed = w.op("Pad", w.cast(block, carrier), widths, dtype=carrier)
    ones = onnx.helper.make_tensor("value", _Type.INT32, [1], [1])
    filled = w.op("ConstantOfShape", w.sizes(block), dtype=_Type.INT32, value=ones)
    mask = w.cast(w.op("Pad", filled, widths, dtype=_Type.INT32), _Type.BOOL)
    w.give(w.where(mask, placed, w.cast(x, carrier)))


def top_k(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the largest; tf2onnx compares in float32, in which large integers are alike."""
    w = Writer(context, node)
    carrier = _sorted_type(w.dtype)
    count = w.reshape(w.cast(w.inputs[1], _Type.INT64), [1])
    results = w.ops(
        "TopK", w.cast(w.inputs[0], carrier), count, dtypes=[carrier, _Type.INT64], axis=-1
    )
    w.give(*results)


def _sorted_type(dtype: int) -> int:
    """Returns what onnxruntime sorts numbers of a type in, without a loss."""
    if dtype in (_Type.FLOAT, _Type.DOUBLE, _Type.INT32, _Type.INT64):
        return dtype
    if dtype == _Type.FLOAT16:
        return int(_Type.FLOAT)
    return int(_Type.INT64 if dtype in (_Type.UINT32, _Type.UINT64) else _Type.INT32)
