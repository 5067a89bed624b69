"""Gradients are summed before they are moved, where both are moved the same way.

Two branches that read one tensor with one stride each insert zeros into their gradient; the sum
of the two small gradients takes one insertion instead, and a runtime lets a convolution do it.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import attribute, constant_of, same_shape

#: Operators that are linear in their first input where all others are constants.
_LINEAR = frozenset({"Expand", "MatMul", "Pad", "ReduceSum", "Reshape", "Slice", "Transpose"})


def add_before_linear_op(model: ir.Model) -> None:
    """Adds before an operator that only moves or weighs elements, and not behind it.

    `Add(MatMul(a, w), MatMul(b, w))` -> `MatMul(Add(a, b), w)`

    Needs: topological order; equal constants are one value.
    Leaves: an order of nodes that has to be sorted again.
    """
    for node in list(model.graph):
        while node.op_type == "Add" and not node.domain and _move_up(node):
            pass


def _move_up(node: ir.Node) -> bool:
    """Exchanges a sum with the operator that made both its terms, if it is one."""
    producers = [None if v is None else v.producer() for v in node.inputs]
    first, second = producers
    if first is None or second is None or first is second or not _alike(first, second):
        return False
    a, b = first.inputs[0], second.inputs[0]
    if a is None or b is None or not same_shape(a, b):
        return False
    if any(sole_reader(p.outputs[0]) is None for p in (first, second)):
        return False
    graph, total, moved = node.graph, node.outputs[0], second.outputs[0]
    if graph is None:
        raise ValueError(f"{node.name!r} belongs to no graph")
    total.replace_all_uses_with(moved, replace_graph_outputs=True)
    node.replace_input_with(0, a)
    node.replace_input_with(1, b)
    second.replace_input_with(0, total)
    total.shape, total.type = a.shape, a.type
    graph.remove(first, safe=True)
    graph.remove(node)
    graph.insert_before(second, node)
    return True


def _alike(first: ir.Node, second: ir.Node) -> bool:
    """Tells whether two nodes do one and the same linear thing to their first inputs."""
    return (
        first.op_type == second.op_type
        and first.op_type in _LINEAR
        and not first.domain
        and not second.domain
        and first.graph is second.graph
        and list(first.inputs[1:]) == list(second.inputs[1:])
        and all(v is None or constant_of(v) is not None for v in first.inputs[1:])
        and _is_zero_padding_or_none(first)
        and {k: str(v) for k, v in first.attributes.items()}
        == {k: str(v) for k, v in second.attributes.items()}
    )


def _is_zero_padding_or_none(node: ir.Node) -> bool:
    """Tells whether a node is no Pad, or one that repeats elements or adds zeros.

    A sum of two images padded with ones has a border of twos.
    """
    if node.op_type != "Pad" or attribute(node, "mode", "constant") != "constant":
        return True
    fill = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return fill is None or not fill.any()
