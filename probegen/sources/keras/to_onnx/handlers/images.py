"""Images: resampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from tf2onnx.onnx_opset.nn import Resize

from probegen.sources.keras.to_onnx.handlers.writer import FLOATS, Writer, constant_value

_Type = onnx.TensorProto


def resize_bilinear(context: Any, node: Any, _: str, __: Any) -> None:
    """Lets images of 16 bits be interpolated in 32, in which TensorFlow returns them.

    Whole numbers are often rounded again (by `keras.layers.Resizing`): the last bit decides there
    between two bytes, so they are interpolated by TensorFlow's own formula.
    """
    w = Writer(context, node)
    if w.dtype_of(w.inputs[0]) not in FLOATS and w.attribute("half_pixel_centers", False):
        _interpolate(w, constant_value(context, node.input[1]))
        return
    kind, result = (context.get_dtype(name) for name in (node.input[0], node.output[0]))
    if kind != result:
        context.insert_new_node_on_input(node, "Cast", node.input[0], to=result)
    Resize.version_11(context, node)


def _interpolate(w: Writer, sizes: Any) -> None:
    """Writes images of whole numbers as TensorFlow's kernel interpolates them, to the last bit.

    Where the sizes are known, rows are counted here: of a Range nobody knows how many it counts.
    """
    image, wanted = w.inputs[0], w.cast(w.inputs[1], _Type.INT64)
    places = []
    for i, axis in enumerate((1, 2)):
        size = w.size(image, axis)
        count = w.op("Slice", wanted, w.indices([i]), w.indices([i + 1]), dtype=_Type.INT64)
        scale = w.op("Div", w.cast(size, w.dtype), w.cast(count, w.dtype))
        if sizes is None:
            ends = w.constant(np.array(0)), w.op("Squeeze", count, dtype=_Type.INT64)
            rows = w.op("Range", *ends, w.constant(np.array(1)), dtype=_Type.INT64)
        else:
            rows = w.constant(np.arange(sizes[i], dtype=np.int64))
        centres = w.op("Add", w.cast(rows, w.dtype), w.const(0.5))
        at = w.op("Sub", w.op("Mul", centres, scale), w.const(0.5))
        low = w.op("Floor", at)
        first = w.op("Max", w.cast(low, _Type.INT64), w.indices([0]), dtype=_Type.INT64)
        last = w.op("Sub", size, w.indices([1]), dtype=_Type.INT64)
        second = w.cast(w.op("Ceil", at), _Type.INT64)
        second = w.op("Min", second, last, dtype=_Type.INT64)
        share = w.unsqueeze(w.op("Sub", at, low), [0, 2, 3] if axis == 1 else [0, 1, 3])
        places.append((first, second, share))
    (top, bottom, down), (left, right, across) = places

    def joined(row: str) -> str:
        line = w.op("Gather", image, row, dtype=w.dtype_of(image), axis=1)
        start, end = (
            w.cast(w.op("Gather", line, column, dtype=w.dtype_of(image), axis=2), w.dtype)
            for column in (left, right)
        )
        return _between(w, start, end, across)

    above, below = joined(top), joined(bottom)
    w.finish("Add", above, w.op("Mul", w.op("Sub", below, above), down))


def _between(w: Writer, one: str, other: str, share: str) -> str:
    """Returns what lies a share of the way from one tensor to another."""
    return w.op("Add", one, w.op("Mul", w.op("Sub", other, one), share))


def nearest(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the nearest neighbours of images of known sizes, which TensorFlow itself tells.

    Where a place falls between two, engines round in different ways. Images of open sizes are left
    to tf2onnx.
    """
    sizes, target = context.get_shape(node.input[0]), constant_value(context, node.input[1])
    if sizes is None or min(sizes[1:3]) < 0 or target is None:
        Resize.version_11(context, node)
        return
    names = ("align_corners", "half_pixel_centers")
    how = {name: bool(node.get_attr_value(name)) for name in names}
    w = Writer(context, node)
    made = w.inputs[0]
    for axis, (size, count) in enumerate(zip(sizes[1:3], target, strict=True), start=1):
        line = np.arange(size, dtype=np.float32).reshape(1, size, 1, 1)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            found = tf.raw_ops.ResizeNearestNeighbor(images=line, size=[int(count), 1], **how)
            places = session.run(found).reshape(-1)
        made = w.op("Gather", made, w.indices(places), axis=axis)
    w.give(made)


def resize(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a resampling of images as a product with a constant matrix along each axis.

    Cubic and Lanczos kernels, means over areas and anti-aliasing have no operator in ONNX that
    agrees with TensorFlow (which reads cubic weights from a table). They are linear and act on
    height and width apart, so TensorFlow itself is asked for the two matrices, once, on unit
    images. Where a size is open the operation stays and is refused.
    """
    sizes = context.get_shape(node.input[0])
    if sizes is None or min(sizes[1:3]) < 0:
        return
    parameters = [constant_value(context, name) for name in node.input[1:]]
    if any(value is None for value in parameters):
        return
    operation = {a: kind(node.get_attr_value(a)) for a, kind in _RESIZES[node.type].items()}

    def resample(images: Any) -> Any:
        arguments = dict(zip(("size", "scale", "translation"), parameters, strict=False))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            made = getattr(tf.raw_ops, node.type)(images=images, **arguments, **operation)
            return session.run(made)

    rows, columns = _unit_responses(resample, sizes[1], sizes[2])
    result = context.get_dtype(node.output[0])
    if context.get_dtype(node.input[0]) != result:
        context.insert_new_node_on_input(node, "Cast", node.input[0], to=result)
    w = Writer(context, node)
    height = w.array(rows)  # [out, in]
    width = w.array(columns.T)  # [in, out]
    planes = w.op("Transpose", w.inputs[0], perm=[0, 3, 1, 2])
    made = w.op("MatMul", w.op("MatMul", height, planes), width)
    w.finish("Transpose", made, perm=[0, 2, 3, 1])


def _unit_responses(resample: Callable[[Any], Any], height: int, width: int) -> tuple[Any, Any]:
    """Returns the matrices of a separable resampling, `[out, in]` for height and for width.

    Its weights along an axis sum to 1, so an image that is constant along the other shows them.
    """
    rows = np.broadcast_to(np.eye(height)[:, :, None, None], (height, height, width, 1))
    columns = np.broadcast_to(np.eye(width)[:, None, :, None], (width, height, width, 1))
    by_row = resample(rows.astype(np.float32))[:, :, 0, 0]
    by_column = resample(columns.astype(np.float32))[:, 0, :, 0]
    return by_row.T, by_column.T


#: Attributes that an operation is repeated with.
_RESIZES: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "ResizeBicubic": {"align_corners": bool, "half_pixel_centers": bool},
    "ResizeArea": {"align_corners": bool},
    "ScaleAndTranslate": {"kernel_type": bytes.decode, "antialias": bool},
}


def rgb_to_hsv(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes colours as hue, saturation and value."""
    w = Writer(context, node)
    w.finish("Concat", *_hsv(w, w.inputs[0]), axis=-1)


def hsv_to_rgb(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes colours from hue, saturation and value."""
    w = Writer(context, node)
    hue, saturation, value = _channels(w, w.inputs[0])
    w.finish("Concat", *_rgb(w, hue, saturation, value), axis=-1)


def adjust_saturation(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes colours with their saturation scaled, 1 at most; tf2onnx leaves grey ones wrong."""
    w = Writer(context, node)
    hue, saturation, value = _hsv(w, w.inputs[0])
    scaled = w.op("Mul", saturation, w.cast(w.inputs[1], w.dtype))
    scaled = w.op("Clip", scaled, w.const(0), w.const(1))
    w.finish("Concat", *_rgb(w, hue, scaled, value), axis=-1)


def _channels(w: Writer, x: str) -> list[str]:
    """Returns the three channels, each with its axis."""
    bounds = [(w.indices([i]), w.indices([i + 1])) for i in range(3)]
    return [w.op("Slice", x, start, end, w.indices([-1])) for start, end in bounds]


def _hsv(w: Writer, x: str) -> tuple[str, str, str]:
    red, green, blue = _channels(w, x)
    value, least = w.op("Max", red, green, blue), w.op("Min", red, green, blue)
    spread, zero, one = w.op("Sub", value, least), w.const(0), w.const(1)
    grey = w.test("Not", w.test("Greater", spread, zero))
    width = w.op("Mul", w.where(grey, one, spread), w.const(6))
    around = [
        w.op("Add", w.op("Div", w.op("Sub", a, b), width), w.const(start))
        for a, b, start in ((green, blue, 0), (blue, red, 2 / 6), (red, green, 4 / 6))
    ]
    second = w.where(w.test("Equal", green, value), around[1], around[2])
    hue = w.where(w.test("Equal", red, value), around[0], second)
    hue = w.where(w.test("Less", hue, zero), w.op("Add", hue, one), hue)
    dark = w.test("Not", w.test("Greater", value, zero))
    saturation = w.where(dark, zero, w.op("Div", spread, w.where(dark, one, value)))
    return w.where(grey, zero, hue), saturation, value


def _rgb(w: Writer, hue: str, saturation: str, value: str) -> list[str]:
    sixth, one = w.op("Mul", hue, w.const(6)), w.const(1)

    def away(place: float) -> str:
        return w.op("Abs", w.op("Sub", sixth, w.const(place)))

    parts = (
        w.op("Sub", away(3), one),
        *(w.op("Sub", w.const(2), away(place)) for place in (2, 4)),
    )
    pale = w.op("Sub", one, saturation)
    clipped = [w.op("Clip", part, w.const(0), one) for part in parts]
    mixed = [w.op("Add", pale, w.op("Mul", saturation, part)) for part in clipped]
    return [w.op("Mul", part, value) for part in mixed]
