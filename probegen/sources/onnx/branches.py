"""Branches whose condition is known: the one that is taken stands in the place of the `If`."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.values import constant_of
from probegen.sources.onnx.functions import take_place
from probegen.sources.onnx.names import ORIGIN, nodes_of, origin_of
from probegen.sources.onnx.rewriting import graph_of


def take_known_branches(graph: ir.Graph) -> bool:
    """Puts the nodes of a branch in the place of an `If` whose condition is known.

    `If(True)` with branches a and b -> the nodes of a

    Needs: every value of the model has a name of its own.

    Returns:
        True where there was one.
    """
    changed = False
    for node in nodes_of(graph):
        if node.op_type != "If" or node.domain or node.graph is None:
            continue
        condition = constant_of(node.inputs[0])
        if condition is not None and condition.size == 1:
            taken = "then_branch" if condition.reshape(()) else "else_branch"
            _take(node, node.attributes[taken].as_graph())
            changed = True
    return changed


def _take(node: ir.Node, branch: ir.Graph) -> None:
    graph = graph_of(node)
    results, nodes = list(branch.outputs), list(branch)
    stored = list(branch.initializers.values())
    branch.outputs.clear()
    branch.remove(nodes)
    for value in stored:
        branch.initializers.pop(str(value.name))
        graph.register_initializer(value)
    graph.insert_before(node, nodes)
    inside = {v for n in nodes for v in n.outputs}
    for old, result in zip(node.outputs, results, strict=True):
        new = result
        if result not in inside:
            identity = ir.node("Identity", [result], name=f"{node.name}/{old.name}")
            identity.meta[ORIGIN] = origin_of(node)
            graph.insert_before(node, identity)
            new = identity.outputs[0]
        inside.discard(new)  # one that stands for two outputs is handed on for the second
        take_place(old, new)
    graph.remove(node, safe=True)
