"""Convolutions and what Keras writes around them."""

from __future__ import annotations

from typing import Any

from tf2onnx.onnx_opset.nn import BiasAdd, ConvTranspose, is_channels_last

from probegen.graph.tf_ops.writer import Writer


def transposed_convolution(context: Any, node: Any, _: str, __: Any) -> None:
    """Adds the bias of a transposed convolution of open sizes behind the zeros, not before.

    Where the stride is larger than the kernel, TensorFlow fills up with zeros what no input
    reaches. tf2onnx does so behind the convolution, into which it has merged the bias by then.
    """
    position = 3
    sizes = context.get_shape(node.output[0]) or [-1]
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
