"""Scales of channels stand next to the convolution that they scale.

The gradient of a batch normalisation is a product with its scale. It comes behind the mask of an
activation, but may as well come before, where a runtime merges it with the convolution that made
the gradient.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import broadcast, shape_of
from probegen.graph.passes.per_channel import one_per_channel


def scale_before_masks(model: ir.Model) -> None:
    """Moves a Mul by one number a channel before other Muls, up to the Conv they start from.

    `Mul(Mul(Conv(x), mask), s)` -> `Mul(Mul(Conv(x), s), mask)`

    Needs: shapes, as far as known; images of 32-bit floats.
    """
    for node in list(model.graph.all_nodes()):
        while node.op_type == "Mul" and not node.domain and _move_up(node):
            pass


def _move_up(node: ir.Node) -> bool:
    """Exchanges a product with the one before it, where that leads towards a convolution."""
    for position in (0, 1):
        before = node.inputs[position]
        mask = None if before is None else before.producer()
        if (
            mask is None
            or before is None
            or mask.op_type != "Mul"
            or mask.domain
            or sole_reader(before) is not node
            or one_per_channel(node, 1 - position) is None
        ):
            continue
        for other in (0, 1):
            scaled = mask.inputs[other]
            if scaled is not None and _comes_from_conv(scaled, mask):
                _exchange(node, position, mask, other)
                return True
    return False


def _comes_from_conv(value: ir.Value, reader: ir.Node) -> bool:
    """Tells whether a value is a convolution's, but for products, and read once all the way."""
    producer = value.producer()
    if producer is None or producer.domain or sole_reader(value) is not reader:
        return False
    if producer.op_type == "Mul":
        return any(v is not None and _comes_from_conv(v, producer) for v in producer.inputs)
    return producer.op_type == "Conv"


def _exchange(node: ir.Node, position: int, mask: ir.Node, other: int) -> None:
    """Turns (a * mask) * scale into (a * scale) * mask."""
    graph, result, product = node.graph, node.outputs[0], mask.outputs[0]
    if graph is None:
        raise ValueError(f"{node.name!r} belongs to no graph")
    whole = result.shape
    result.replace_all_uses_with(product, replace_graph_outputs=True)
    node.replace_input_with(position, mask.inputs[other])
    mask.replace_input_with(other, result)
    # The mask may have been what gave the product its height and width, the scale its channels.
    scaled = broadcast(*(None if v is None else shape_of(v) for v in node.inputs))
    result.shape = None if scaled is None else ir.Shape(list(scaled))
    product.shape = whole
    graph.remove(node)
    graph.insert_before(mask, node)
