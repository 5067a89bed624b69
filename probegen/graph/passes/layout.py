"""Keeps the backward pass in the layout that the runtime's convolutions work in.

onnxruntime holds images in blocks of channels between convolutions, poolings, activations,
sums and products. Where one operand of a sum or product is not held so (it comes from a
reduction, a reshape, a matrix product), the other is brought back into the plain layout, and so
is everything that the result is added to: a gradient that enters a residual network at its top
takes the whole spine with it. A pooling of single elements, which changes nothing, takes the
one operand into blocks instead.
"""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

from probegen.graph.builder import attribute, shape_of

_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_UNARY = frozenset({"Relu", "HardSigmoid", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSwish"})
_BINARY = frozenset({"Add", "Mul", "Sum"})


def keep_blocks(graph: ir.Graph) -> None:
    """Puts a pooling of single elements behind plain operands that meet blocked ones.

    Needs: topological order; shapes, as far as known.
    Leaves: the same values.
    """
    blocked: set[ir.Value] = set()
    copies: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if _meets_plain(node, blocked) and _leads_to_conv(node.outputs[0], set()):
            for position, value in enumerate(node.inputs):
                if value is not None and value not in blocked:
                    if value not in copies:
                        copies[value] = _in_blocks(value)
                        blocked.add(copies[value])
                    node.replace_input_with(position, copies[value])
        if _stays_blocked(node, blocked):
            blocked.add(node.outputs[0])


def _stays_blocked(node: ir.Node, blocked: Set[ir.Value]) -> bool:
    """Tells whether the runtime leaves a node's output in blocks."""
    if node.domain or len(node.outputs) != 1 or not _is_images(node.outputs[0]):
        return False
    first = node.inputs[0]
    if node.op_type == "Conv" or node.op_type in _POOLS:
        return True
    if node.op_type in _UNARY or (node.op_type == "Resize" and attribute(node, "mode") != "cubic"):
        return first in blocked
    if node.op_type in _BINARY:
        return all(v in blocked for v in node.inputs) and _one_shape(node)
    return (
        node.op_type == "Concat"
        and attribute(node, "axis") == 1
        and all(v in blocked for v in node.inputs)
    )


def _meets_plain(node: ir.Node, blocked: Set[ir.Value]) -> bool:
    """Tells whether a sum or product has operands of both kinds."""
    if node.domain or node.op_type not in _BINARY or not _one_shape(node):
        return False
    kinds = {value in blocked for value in node.inputs}
    plain = [v for v in node.inputs if v not in blocked]
    return kinds == {True, False} and all(v is not None and v.producer() for v in plain)


def _leads_to_conv(value: ir.Value, seen: set[ir.Value]) -> bool:
    """Tells whether what is done with a value in blocks reaches a convolution."""
    if value in seen:
        return False
    seen.add(value)
    for node, position in ((use.node, use.idx) for use in value.uses()):
        if node.op_type == "Conv" and position == 0:
            return True
        if node.op_type in (_UNARY | _BINARY) and _leads_to_conv(node.outputs[0], seen):
            return True
    return False


def _in_blocks(value: ir.Value) -> ir.Value:
    """Writes the pooling that brings a value into blocks."""
    producer = value.producer()
    if producer is None or producer.graph is None:
        raise ValueError(f"{value.name!r} is made by no node of the graph")
    name = f"{value.name}/blocked"
    node = ir.node("MaxPool", [value], attributes={"kernel_shape": [1, 1]}, name=name)
    copy = node.outputs[0]
    copy.name, copy.type, copy.shape = name, value.type, value.shape
    producer.graph.insert_after(producer, node)
    return copy


def _is_images(value: ir.Value) -> bool:
    shape = shape_of(value)
    return value.dtype == ir.DataType.FLOAT and shape is not None and len(shape) == 4


def _one_shape(node: ir.Node) -> bool:
    """Tells whether all operands have the shape of the output."""
    shape = shape_of(node.outputs[0])
    return (
        _is_images(node.outputs[0])
        and None not in (shape or ())
        and all(v is not None and shape_of(v) == shape for v in node.inputs)
    )
