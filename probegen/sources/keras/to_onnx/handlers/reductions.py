"""Sums, counts and segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tf2onnx.onnx_opset.math import CumProd
from tf2onnx.onnx_opset.reduction import ReduceOpBase, SegmentSum

from probegen.sources.keras.to_onnx.handlers.writer import FLOATS, Handler, Writer

_Type = onnx.TensorProto
_NARROW = frozenset({_Type.INT8, _Type.UINT8, _Type.INT16, _Type.UINT16, _Type.UINT32})


def reduction(op_type: str) -> Handler:
    """Returns a handler for a reduction, of narrow integers too, that onnxruntime lacks."""

    def handler(context: Any, node: Any, _: str, __: Any) -> None:
        x, result = node.input[0], node.output[0]
        kind = context.get_dtype(x)
        node.type = op_type
        if kind in _NARROW:
            context.insert_new_node_on_input(node, "Cast", x, input_index=0, to=_Type.INT64)
            context.insert_new_node_on_output("Cast", result, to=kind)
            context.set_dtype(result, _Type.INT64)
        version = ReduceOpBase.version_18 if context.opset >= 18 else ReduceOpBase.version_13
        version(context, node)

    return handler


def euclidean_norm(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the root of the sum of squares."""
    node.type = "ReduceL2"
    version = ReduceOpBase.version_18 if context.opset >= 18 else ReduceOpBase.version_13
    version(context, node)


def cumulative_product(context: Any, node: Any, _: str, __: Any) -> None:
    """Counts the axis from the front: tf2onnx takes it for a number of axes."""
    w = Writer(context, node)
    axis, rank = w.value_of(w.inputs[1]), w.rank_of(w.inputs[0])
    if axis is not None and rank is not None and axis < 0:
        place = w.constant(np.array(int(axis) % rank, np.int32))
        context.replace_input(node, node.input[1], place, 1)
    CumProd.version_10(context, node)


def bincount(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes how often each number comes up, or the weights there, in all or in each row."""
    w = Writer(context, node)
    x, size, weights = w.inputs
    shape = w.shape_of(weights)
    if shape is None:
        raise ValueError("it needs weights whose sizes are known")
    if node.type == "Bincount" or w.rank_of(x) == 0:
        x = w.reshape(x, [-1])
        weights = weights if 0 in shape else w.reshape(weights, [-1])
    bounds = w.const(0, _Type.INT64), w.cast(size, _Type.INT64), w.const(1, _Type.INT64)
    bounds = (bounds[0], w.reshape(bounds[1], []), bounds[2])
    bins = w.op("Range", *bounds, dtype=_Type.INT64)
    hit = w.test("Equal", w.unsqueeze(w.cast(x, _Type.INT64), [-1]), bins)
    carrier = w.dtype if w.dtype in FLOATS else _Type.INT64
    if 0 in shape:
        each = w.cast(hit, carrier)
    else:
        each = w.where(hit, w.unsqueeze(w.cast(weights, carrier), [-1]), w.const(0, carrier))
    counts = w.sum(each, [-2])
    if w.attribute("binary_output", 0):
        counts = w.cast(w.test("Greater", counts, w.const(0, carrier)), carrier)
    w.give(counts)


def invert_permutation(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes where each number stands."""
    w = Writer(context, node)
    x = w.cast(w.inputs[0], _Type.INT64)
    _values, places = w.ops("TopK", x, w.sizes(x), dtypes=[_Type.INT64] * 2, axis=0, largest=0)
    w.give(places)


def segments(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a reduction of the rows of each segment.

    tf2onnx lets a negative id count from the end, where TensorFlow leaves it out, and gives
    segments without rows what the operation starts from: infinity for a maximum.
    """
    w = Writer(context, node)
    unsorted, kind = node.type.startswith("Unsorted"), node.type.removeprefix("Unsorted")
    data, ids = w.inputs[:2]
    if w.rank_of(ids) != 1:
        raise ValueError("it needs one id a row")
    carrier = w.dtype if w.dtype in FLOATS else _Type.DOUBLE
    data, ids = w.cast(data, carrier), w.cast(ids, _Type.INT64)
    if unsorted:
        count = w.reshape(w.cast(w.inputs[2], _Type.INT64), [])
    else:
        axes = {"axes": [0]} if context.opset < 18 else {}
        axes_input = [] if axes else [w.indices([0])]
        last = w.op("ReduceMax", ids, *axes_input, dtype=_Type.INT64, keepdims=0, **axes)
        count = w.op("Add", last, w.const(1, _Type.INT64), dtype=_Type.INT64)
    none = w.test("Less", ids, w.const(0, _Type.INT64))
    placed = w.where(none, count, ids)
    more = w.op("Add", count, w.const(1, _Type.INT64), dtype=_Type.INT64)
    made = context.make_node(
        f"Unsorted{kind}" if kind != "SegmentMean" else "SegmentMean",
        [data, placed, more] if kind != "SegmentMean" else [data, placed],
        name=f"{node.name}/segments",
        dtypes=[carrier],
        skip_conversion=False,
    )
    end = context.make_node("Identity", made.output, dtypes=[carrier])
    SegmentSum.version_13(context, made)
    bounds = w.indices([0]), w.reshape(count, [1])
    extreme = w.op("Slice", end.output[0], *bounds, w.indices([0]), dtype=carrier)
    w.give(_without_rows(w, kind, extreme, placed, count, carrier, unsorted=unsorted))


def _without_rows(
    w: Writer, kind: str, extreme: str, ids: str, count: str, carrier: int, *, unsorted: bool
) -> str:
    """Returns segments, those without rows as in TensorFlow."""
    limits = _limits(w.dtype)
    if unsorted and kind in ("SegmentMax", "SegmentMin"):
        largest = kind == "SegmentMax"
        limit = w.const(limits[0 if largest else 1], carrier)
        return w.op("Max" if largest else "Min", extreme, limit, dtype=carrier)
    if unsorted or kind in ("SegmentSum", "SegmentProd"):
        return extreme
    bounds = w.const(0, _Type.INT64), count, w.const(1, _Type.INT64)
    places = w.unsqueeze(w.op("Range", *bounds, dtype=_Type.INT64), [1])
    rows = w.sum(w.cast(w.test("Equal", places, ids), _Type.INT64), [1])
    rank = w.rank_of(w.inputs[0]) or 1
    empty = w.test("Equal", w.reshape(rows, [-1, *[1] * (rank - 1)]), w.const(0, _Type.INT64))
    return w.where(empty, w.const(0, carrier), extreme)


def _limits(dtype: int) -> tuple[float, float]:
    """Returns the least and the largest number of a type."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    return float(limits.min), float(limits.max)
