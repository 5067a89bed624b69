"""Convolutions and what Keras writes around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from tf2onnx.onnx_opset.nn import (
    BiasAdd,
    ConvOp,
    ConvTranspose,
    DepthwiseConv2d,
    PoolOp,
    is_channels_last,
)

from probegen.sources.keras.to_onnx.handlers.writer import Handler, Writer

_Type = onnx.TensorProto
_INT = _Type.INT64
_T = TypeVar("_T")


def transposed_convolution(context: Any, node: Any, _: str, __: Any) -> None:
    """Adds the bias of a transposed convolution of open sizes behind the zeros, not before.

    Where the stride is larger than the kernel, TensorFlow fills up with zeros what no input
    reaches. tf2onnx does so behind the convolution, into which it has merged the bias by then.

    Sizes that are known are told: of what Keras writes in one dimension tf2onnx sees none, and
    would work them out in every run.
    """
    position = 3
    sizes = context.get_shape(node.output[0]) or [-1]
    if not node.inputs[0].is_const() and len(sizes) > 1 and min(sizes[1:]) > 0:
        w = Writer(context, node)
        context.replace_input(node, node.input[0], w.indices(sizes), 0)
    if len(node.input) > position and min(sizes) < 0 and is_channels_last(node):
        bias = node.input[position]
        context.remove_input(node, bias, position)
        context.insert_new_node_on_output("Add", node.output[0], inputs=[node.output[0], bias])
    ConvTranspose.version_11(context, node)


def bias_add(context: Any, node: Any, _: str, __: Any) -> None:
    """BiasAdd: with channels first the bias runs along the second axis.

    tf2onnx sees to that where it is a constant. Keras writes any sum so whose second operand has
    one axis of more than one element: `[1, 7, 8] + [1, 7, 1]` too.
    """
    bias = node.inputs[1]
    shape = context.get_shape(node.input[0])
    if not node.is_nhwc() and not bias.is_const() and shape is not None and len(shape) > 2:
        w = Writer(context, node)
        wide = w.op("Reshape", node.input[1], w.indices([-1, *[1] * (len(shape) - 2)]))
        context.replace_input(node, node.input[1], wide, 1)
    BiasAdd.version_7(context, node)


def bias_add_last(context: Any, node: Any, _: str, __: Any) -> None:
    """BiasAddV1 knows no channels but the last."""
    Writer(context, node).finish("Add", *node.input)


def convolution(context: Any, node: Any, _: str, __: Any) -> None:
    """Pads some convolutions of open sizes by hand: onnxruntime does not by itself.

    One that is dilated: with a stride of 1, and no dilated one has another, the widths do not
    depend on the sizes. And one whose windows are further apart than they are large, for which
    ONNX has widths below 0 and TensorFlow none.
    The groups are told here: tf2onnx leaves them out in three dimensions, and behind what
    TensorFlow makes of a dilation there no graph in ONNX has shapes that tell them.
    """
    w = Writer(context, node)
    rates = list(w.attribute("dilations") or [1])
    if w.attribute("padding") == "SAME" and max(rates) > 1 and _is_open(w):
        kernel = w.shape_of(w.inputs[1])
        if kernel is None or min(kernel) < 0:
            raise ValueError("it needs a kernel whose sizes are known")
        last = is_channels_last(node)
        spatial = rates[1:-1] if last else rates[2:]
        totals = [(n - 1) * rate for n, rate in zip(kernel, spatial, strict=False)]
        ahead, behind = [n // 2 for n in totals], [n - n // 2 for n in totals]
        padded = w.op("Pad", w.inputs[0], w.indices(_widths(ahead, behind, 0, last=last)))
        context.replace_input(node, w.inputs[0], padded, 0)
        node.set_attr("padding", "VALID")
    elif w.attribute("padding") == "SAME" and _is_open(w):
        _pad_windows_apart(w)
    if node.type.startswith("Depthwise"):
        DepthwiseConv2d.version_1(context, node)
        return
    data, kernel = (w.shape_of(name) for name in w.inputs[:2])  # of what is padded none is known
    channels = -1 if data is None else data[-1 if is_channels_last(node) else 1]
    each = -1 if kernel is None else kernel[-2]
    ConvOp.version_13(context, node)
    if channels > 0 and each > 0:
        node.set_attr("group", channels // each)


def _widths(ahead: Sequence[_T], behind: Sequence[_T], none: _T, *, last: bool) -> list[_T]:
    """Returns by how much all axes are padded: all beginnings, then all ends.

    Args:
        ahead, behind: of the axes of positions.
        none: of the axes of samples and of channels.
        last: whether channels are the last axis.
    """
    before, after = ([none], [none]) if last else ([none, none], [])
    return [*before, *ahead, *after, *before, *behind, *after]


def _pad_windows_apart(w: Writer) -> None:
    """Pads by what the sizes of the request ask for where windows may be apart: of 1 by nothing."""
    last = is_channels_last(w.node)
    kernel, strides = w.shape_of(w.inputs[1]), list(w.attribute("strides"))
    steps = strides[1:-1] if last else strides[2:]
    windows = None if kernel is None else kernel[: len(steps)]
    if windows is None or all(n >= step for n, step in zip(windows, steps, strict=True)):
        return
    _pad_for(w, windows, steps)


def _pad_for(w: Writer, windows: Sequence[int], steps: Sequence[int], *value: str) -> None:
    """Pads as TensorFlow does, which never pads by less than nothing, and says so to the node.

    Args:
        w: writes before the node.
        windows: their sizes, of the axes of positions.
        steps: how far they are apart.
        value: what is padded with, where that is not 0.
    """
    last = is_channels_last(w.node)
    x, none, one = w.inputs[0], w.indices([0]), w.indices([1])
    ahead, behind = [], []
    for axis, (n, step) in enumerate(zip(windows, steps, strict=True), start=1 if last else 2):
        size, stride = w.size(x, axis), w.indices([step])
        begun = w.op("Div", w.op("Sub", size, one, dtype=_INT), stride, dtype=_INT)
        end = w.op("Add", w.op("Mul", begun, stride, dtype=_INT), w.indices([n]), dtype=_INT)
        total = w.op("Max", w.op("Sub", end, size, dtype=_INT), none, dtype=_INT)
        ahead.append(w.op("Div", total, w.indices([2]), dtype=_INT))
        behind.append(w.op("Sub", total, ahead[-1], dtype=_INT))
    if max(windows) > 1:
        padded = w.op("Pad", x, w.concat(_widths(ahead, behind, none, last=last)), *value)
        w.context.replace_input(w.node, x, padded, 0)
    w.node.set_attr("padding", "VALID")


def pool(op_type: str) -> Handler:
    """Returns a handler for pooling, of sizes that onnxruntime pads by less than nothing too.

    An average of these is refused: it is of what was there before.
    """

    def handler(context: Any, node: Any, _: str, __: Any) -> None:
        w = Writer(context, node)
        if len(w.inputs) == 1 and w.attribute("padding") == "SAME" and _is_open(w):
            sizes, steps = list(w.attribute("ksize")), list(w.attribute("strides"))
            positions = slice(1, -1) if is_channels_last(node) else slice(2, None)
            if max(sizes) == 1:  # nothing is padded
                node.set_attr("padding", "VALID")
            elif any(n < step for n, step in zip(sizes, steps, strict=True)):
                if op_type != "MaxPool":
                    raise ValueError(
                        "padding='same' with strides larger than the windows needs sizes that are "
                        "known: give the model's Input them, or take padding='valid'"
                    )
                dtype = onnx.helper.tensor_dtype_to_np_dtype(w.dtype_of(w.inputs[0]))
                least = w.constant(np.array(np.finfo(dtype).min, dtype))
                _pad_for(w, sizes[positions], steps[positions], least)
        kind = node.type
        node.type = op_type
        PoolOp.version_11(context, node, tf_op=kind)

    return handler


def _is_open(w: Writer) -> bool:
    shape = w.shape_of(w.inputs[0])
    sizes = None if shape is None else shape[1:-1] if is_channels_last(w.node) else shape[2:]
    return sizes is None or min(sizes, default=0) < 0
