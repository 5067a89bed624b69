"""Operations whose output, or whose input, is positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import FLOATS, SIGNED, Writer

_Type = onnx.TensorProto


def one_hot(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a 1 where an index is that of the class, and nowhere for an index of no class.

    The operator of ONNX counts negative indices from the end.
    """
    w = Writer(context, node)
    indices, depth, on, off = w.inputs
    rank = w.rank_of(indices)
    if rank is None:
        raise ValueError("OneHot needs indices whose number of axes is known")
    axis = int(w.attribute("axis", -1)) % (rank + 1)
    wide = w.unsqueeze(w.cast(indices, _Type.INT64), [axis])
    count = w.value_of(depth)
    if count is not None:
        classes = w.indices(np.arange(int(count)))
    else:
        bounds = w.const(0, _Type.INT64), w.cast(depth, _Type.INT64), w.const(1, _Type.INT64)
        classes = w.op("Range", *bounds, dtype=_Type.INT64)
    behind = rank - axis
    if behind:
        classes = w.reshape(classes, [-1, *[1] * behind])
    hit = w.test("Equal", wide, classes)
    values = w.value_of(on), w.value_of(off)
    if values[0] == 1 and values[1] == 0 and w.dtype in FLOATS:
        w.give(w.cast(hit, w.dtype))
    elif w.dtype == _Type.BOOL:
        w.give(_choose(w, hit, on, off))
    else:
        carrier = w.dtype if w.dtype in FLOATS or w.dtype == _Type.INT64 else _Type.INT64
        w.give(w.where(hit, w.cast(on, carrier), w.cast(off, carrier)))


def _choose(w: Writer, condition: str, one: str, other: str) -> str:
    """Returns booleans chosen by booleans."""
    taken = w.test("And", condition, one)
    return w.test("Or", taken, w.test("And", w.test("Not", condition), other))


def arg_extremum(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes ArgMax and ArgMin of any element type; the first of equals wins.

    TensorFlow never finds what is no number, onnxruntime does where it comes first.
    """
    w = Writer(context, node)
    x, axis_value = w.inputs[0], w.value_of(w.inputs[1])
    if axis_value is None:
        raise ValueError(f"{node.type} needs an axis known at compile time")
    axis = int(np.ravel(axis_value)[0])
    kind = w.dtype_of(x)
    if kind == _Type.BOOL or (kind not in FLOATS and kind not in (_Type.INT32, _Type.INT64)):
        x = w.cast(x, _Type.INT32 if kind not in (_Type.UINT32, _Type.UINT64) else _Type.INT64)
    if kind in FLOATS:
        least = w.const(-np.inf if node.type == "ArgMax" else np.inf, kind)
        x = w.where(w.test("IsNaN", x), least, x)
    w.give(w.op(node.type, x, dtype=_Type.INT64, axis=axis, keepdims=0))


def bucketize(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the number of boundaries that are not above each value.

    A value that is no number is above all.
    """
    w = Writer(context, node)
    x = w.inputs[0]
    boundaries = np.array(node.get_attr_value("boundaries"), np.float32)
    wide = _Type.DOUBLE if w.dtype_of(x) in (_Type.DOUBLE, _Type.INT32, _Type.INT64) else 0
    x = w.unsqueeze(w.cast(x, wide or _Type.FLOAT), [-1])
    below = w.test("Less", x, w.array(boundaries, wide or _Type.FLOAT))
    w.give(_count(w, w.test("Not", below)))


def search_sorted(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes LowerBound and UpperBound: how many of a sorted row are below each value.

    All of the row are compared, which is many more comparisons than a search, done at once.
    """
    w = Writer(context, node)
    row, values = (w.cast(name, _comparable(w.dtype_of(name))) for name in w.inputs)
    row, values = w.unsqueeze(row, [-2]), w.unsqueeze(values, [-1])
    if node.type == "LowerBound":
        w.give(_count(w, w.test("Less", row, values)))
    else:
        w.give(_count(w, w.test("Not", w.test("Less", values, row))))


def _comparable(dtype: int) -> int:
    """Returns what onnxruntime compares numbers of a type in, without a loss."""
    if dtype in FLOATS or dtype == _Type.INT64:
        return dtype
    return _Type.INT32 if dtype in SIGNED else _Type.INT64


def _count(w: Writer, held: str) -> str:
    """Returns how often conditions hold along the last axis."""
    return w.sum(w.cast(held, _Type.INT64), [-1])
