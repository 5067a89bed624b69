"""Convolutions take the padding before them and the scale and shift behind them themselves.

tf2onnx leaves both beside a convolution in places: padding that TensorFlow wrote as an
operator of its own (ZeroPadding2D, and SAME where it is not symmetric), and the batch
normalisation of depthwise convolutions. Runtimes merge them in a forward pass, but in a
gradient they would stay: a cut behind a convolution, a product before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.replacing import replace_value
from probegen.graph.core.values import attribute, constant_of, new_initializer
from probegen.graph.passes.per_channel import zero_padding_of


def merge_into_convolutions(model: ir.Model) -> None:
    """Merges zero padding before, and a scale and a shift a channel behind, into each Conv.

    `Add(Mul(Conv(Pad(x, widths), w), s), t)` -> `Conv<pads=widths>(x, w * s, t)`

    Needs: nothing written yet that depends on the gradient at what lies between, which no longer
    leads through the convolution.
    Leaves: a Pad that something else reads, or that nothing needs any more.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Conv" and not node.domain:
            _take_padding(node)
            while _take_next(node, "Mul") or _take_next(node, "Add"):
                pass


# -- before --------------------------------------------------------------------------------


def _take_padding(conv: ir.Node) -> None:
    if attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return
    padded = conv.inputs[0]
    producer = None if padded is None else padded.producer()
    widths = None if producer is None else zero_padding_of(producer)
    if producer is None or widths is None:
        return
    own = attribute(conv, "pads") or [0] * len(widths)
    conv.attributes.pop("auto_pad", None)
    conv.attributes["pads"] = ir.AttrInt64s(
        "pads", [a + b for a, b in zip(own, widths, strict=True)]
    )
    conv.replace_input_with(0, producer.inputs[0])


# -- behind --------------------------------------------------------------------------------


def _take_next(conv: ir.Node, op_type: str) -> bool:
    """Merges the Mul or Add that alone reads a convolution, where its operand allows it."""
    result = conv.outputs[0]
    node = sole_reader(result)
    kernel, bias = constant_of(conv.inputs[1]), _bias_of(conv)
    if node is None or node.op_type != op_type or node.domain or kernel is None or bias is None:
        return False
    operand = _one_per_channel(node.inputs[1 - node.inputs.index(result)], kernel)
    if operand is None:
        return False
    scaled = kernel
    with np.errstate(over="ignore", invalid="ignore"):
        if op_type == "Mul":
            scaled = kernel * operand.reshape(-1, *[1] * (kernel.ndim - 1))
            bias = bias * operand
        else:
            bias = bias + operand
    if not (np.isfinite(scaled).all() and np.isfinite(bias).all()):
        return False  # beyond what the type holds, though the product with the images may not be
    if op_type == "Mul":
        _set_constant(conv, 1, scaled, node)
    if bias.any() or (len(conv.inputs) > 2 and conv.inputs[2] is not None):
        _set_constant(conv, 2, bias, node)
    replace_value(node.outputs[0], result)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    return True


def _bias_of(conv: ir.Node) -> npt.NDArray[Any] | None:
    """Returns the bias of a convolution, zeros where it has none, None where it is computed."""
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        return constant_of(conv.inputs[2])
    kernel = constant_of(conv.inputs[1])
    return None if kernel is None else np.zeros(len(kernel), kernel.dtype)


def _one_per_channel(operand: ir.Value | None, kernel: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Returns a constant operand as `[channels]`, or None where it is not one a channel."""
    array = constant_of(operand)
    if array is None or array.dtype != kernel.dtype or array.ndim > kernel.ndim:
        return None
    shape = (1,) * (kernel.ndim - array.ndim) + array.shape
    if shape[1] not in (1, len(kernel)) or any(size != 1 for i, size in enumerate(shape) if i != 1):
        return None
    return np.broadcast_to(array.reshape(-1), len(kernel))


def _set_constant(conv: ir.Node, position: int, array: npt.NDArray[Any], source: ir.Node) -> None:
    """Gives a convolution a new weight, named after the node it took it from."""
    if conv.graph is None:
        raise ValueError(f"{conv.name!r} belongs to no graph")
    name = f"{source.outputs[0].name}/{'kernel' if position == 1 else 'bias'}"
    value = new_initializer(conv.graph, name, array)
    if position >= len(conv.inputs):
        conv.resize_inputs(position + 1)
    conv.replace_input_with(position, value)
