"""Means and maxima over images as poolings, the cheapest that give the same.

tf2onnx writes global average pooling as a mean over turned images, and zero padding before a
maximum as an operator of its own. Both take onnxruntime out of the blocked layout of its
convolutions, on the way forward and on the way back.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import attribute, constant_of, new_initializer, shape_of

_SPATIAL = (2, 3)
_CHANNELS_LAST = [0, 2, 3, 1]
#: Operators whose output is nowhere below 0.
_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softplus"})


def pool_globally(graph: ir.Graph) -> None:
    """Writes the mean of images over height and width as a GlobalAveragePool.

    Needs: shapes inferred.
    Leaves: the same values up to rounding; a Transpose that nothing may need any more.
    """
    for node in list(graph):
        if node.op_type != "ReduceMean" or node.domain or node.outputs[0].is_graph_output():
            continue
        images = _meaned_images(node)
        if images is not None:
            _pool(graph, node, *images)


def _meaned_images(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """Returns `[batch, channels, height, width]` and whether a mean sees the channels last."""
    value = node.inputs[0]
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    if value is None or axes is None or value.dtype != ir.DataType.FLOAT:
        return None
    over = tuple(sorted(int(a) % 4 for a in axes))
    shape = shape_of(value)
    if shape is None or len(shape) != 4:
        return None
    turned = value.producer()
    if turned is not None and turned.op_type == "Transpose" and not turned.domain:
        images, last = turned.inputs[0], True
        fits = attribute(turned, "perm") == _CHANNELS_LAST and over == (1, 2)
    else:
        images, last, fits = value, False, over == _SPATIAL and _is_image(value)
    return (images, last) if fits and images is not None else None


def _is_image(value: ir.Value) -> bool:
    """Tells whether a value comes from a convolution, but for what goes element by element."""
    for _ in range(8):
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            return True
        first = node.inputs[0] if node.inputs else None
        if first is None or shape_of(first) != shape_of(value):
            return False
        value = first
    return False


def _pool(graph: ir.Graph, node: ir.Node, images: ir.Value, channels_last: bool) -> None:
    """Puts a GlobalAveragePool in the place of a mean, and brings it into its shape."""
    result = node.outputs[0]
    batch, channels, *_ = shape_of(images) or ()
    pool = ir.node("GlobalAveragePool", [images], name=f"{result.name}/pool")
    pooled = pool.outputs[0]
    pooled.name, pooled.type = f"{result.name}/pooled", result.type
    pooled.shape = ir.Shape([batch, channels, 1, 1])
    new = [pool]
    if not attribute(node, "keepdims", 1):
        axes = new_initializer(graph, f"{result.name}/axes", np.array(_SPATIAL))
        new.append(ir.node("Squeeze", [pooled, axes], name=node.name))
    elif channels_last:
        perm = {"perm": _CHANNELS_LAST}
        new.append(ir.node("Transpose", [pooled], attributes=perm, name=node.name))
    last = new[-1].outputs[0]
    if last is not pooled:
        last.type, last.shape = result.type, result.shape
    graph.insert_before(node, new)
    result.replace_all_uses_with(last)
    graph.remove(node, safe=True)
    last.name = result.name


def pad_within_maxima(graph: ir.Graph) -> None:
    """Lets a MaxPool pad for itself where zeros around images that are not negative say nothing.

    A padded zero then ties with zeros of the images alone. Those come from a rectifier, or one
    like it, and pass no gradient, whoever wins. A MaxPool never chooses its own padding, so
    that every window has to cover an element of the image.

    Leaves: the same values; a Pad that nothing may need any more.
    """
    for node in list(graph):
        padded = node.inputs[0] if node.op_type == "MaxPool" and not node.domain else None
        pad = None if padded is None else padded.producer()
        widths = None if pad is None else zeros_around(pad)
        if pad is None or widths is None or len(node.outputs) > 1:
            continue
        images = pad.inputs[0]
        made_by = None if images is None else images.producer()
        kernel, own = attribute(node, "kernel_shape"), attribute(node, "pads")
        narrow = all(width < size for width, size in zip(widths, [*kernel, *kernel], strict=True))
        plain = not any(own or ()) and attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        if made_by is None or made_by.op_type not in _NOT_NEGATIVE or not (narrow and plain):
            continue
        if attribute(node, "ceil_mode", 0) or any(
            d != 1 for d in attribute(node, "dilations", [1])
        ):
            continue
        node.attributes.pop("auto_pad", None)
        node.attributes["pads"] = ir.AttrInt64s("pads", widths)
        node.replace_input_with(0, images)


def zeros_around(node: ir.Node) -> list[int] | None:
    """Returns the widths a Pad adds to the spatial axes, or None where it does anything else."""
    if node.op_type != "Pad" or node.domain or attribute(node, "mode", "constant") != "constant":
        return None
    inputs = [*node.inputs, None, None]
    widths, fill, axes = constant_of(inputs[1]), constant_of(inputs[2]), inputs[3]
    if widths is None or axes is not None or (inputs[2] is not None and fill is None):
        return None
    if fill is not None and fill.any():
        return None
    before, after = widths.reshape(2, -1).tolist()
    if any((*before[:2], *after[:2])) or min((*before, *after)) < 0:
        return None
    return [*before[2:], *after[2:]]


def average_before_convolutions(graph: ir.Graph) -> None:
    """Exchanges a convolution of single elements with the AveragePool that alone reads it.

    Both are linear and neither sees the other's axes, so the convolution works on the few
    elements of the pooled image instead (the transitions of DenseNet).

    Needs: shapes inferred. Leaves: the same values up to rounding.
    """
    for node in list(graph):
        result = node.inputs[0] if node.op_type == "AveragePool" and not node.domain else None
        conv = None if result is None else result.producer()
        if conv is None or result is None or not _single_elements(conv):
            continue
        pooled, images = node.outputs[0], conv.inputs[0]
        if sole_reader(result) is None or pooled.is_graph_output():
            continue
        shape, given = shape_of(pooled), None if images is None else shape_of(images)
        if given is None or shape is None or not _shrinks(node):
            continue
        conv_shape = [*shape[:1], given[1], *shape[2:]]
        node.replace_input_with(0, images)
        pooled.replace_all_uses_with(result)
        conv.replace_input_with(0, pooled)
        result.shape, pooled.shape = pooled.shape, ir.Shape(conv_shape)
        graph.remove(conv)
        graph.insert_after(node, conv)


def _single_elements(conv: ir.Node) -> bool:
    """Tells whether a node is a convolution of single elements, each of them."""
    if conv.op_type != "Conv" or conv.domain or conv.inputs[1] is None:
        return False
    kernel = shape_of(conv.inputs[1])
    return (
        kernel is not None
        and all(size == 1 for size in kernel[2:])
        and all(s == 1 for s in attribute(conv, "strides", [1]))
        and not any(attribute(conv, "pads", [0]))
    )


def _shrinks(pool: ir.Node) -> bool:
    """Tells whether a pooling leaves fewer elements, and averages whole windows only."""
    kernel = attribute(pool, "kernel_shape")
    strides = attribute(pool, "strides") or [1] * len(kernel)
    return (
        math.prod(strides) > 1
        and not any(attribute(pool, "pads", [0]))
        and attribute(pool, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not attribute(pool, "ceil_mode", 0)
    )
