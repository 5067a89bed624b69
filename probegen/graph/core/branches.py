"""Branches whose condition is known: the one that is taken stands in the place of the `If`."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from probegen.graph.core.replacing import remove_whole, take_place
from probegen.graph.core.values import constant_of


def known_branches(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Graph]]:
    """Yields each `If` whose condition is a constant, in bodies too, and the branch that it takes.

    Those around others come first; what is yielded may be put in its place at once.
    """
    for node in list(graph.all_nodes()):
        if node.op_type != "If" or node.domain or node.graph is None:
            continue
        condition = constant_of(node.inputs[0])
        if condition is not None and condition.size == 1:
            taken = "then_branch" if condition.reshape(()) else "else_branch"
            yield node, node.attributes[taken].as_graph()


def put_branch_in_place(node: ir.Node, branch: ir.Graph) -> list[ir.Node]:
    """Puts the nodes of a branch in the place of its `If`, whose other branch goes.

    `If(True)` with branches a and b -> the nodes of a

    Needs: every value of the model has a name of its own.

    Returns:
        Identities that it took for what the branch hands on and does not make.

    Raises:
        TypeError: the node belongs to no graph.
    """
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{node.name!r} belongs to no graph")
    results, nodes = list(branch.outputs), list(branch)
    stored = list(branch.initializers.values())
    branch.outputs.clear()
    branch.remove(nodes)
    for value in stored:
        branch.initializers.pop(str(value.name))
        graph.register_initializer(value)
    graph.insert_before(node, nodes)
    inside = {v for n in nodes for v in n.outputs}
    copies = []
    for old, result in zip(node.outputs, results, strict=True):
        new = result
        if result not in inside:
            copies.append(ir.node("Identity", [result], name=f"{node.name}/{old.name}"))
            graph.insert_before(node, copies[-1])
            new = copies[-1].outputs[0]
        inside.discard(new)  # one that stands for two outputs is handed on for the second
        take_place(old, new)
    remove_whole(graph, [node])
    return copies
