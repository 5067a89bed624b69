"""Names of nodes: each has one of its own, and knows the nodes of the file that it came from."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.graph.core.values import subgraphs_of

#: Key in the metadata that nodes carry in memory: the names of the file's nodes that it came from.
ORIGIN = "probegen.origin"


def name_nodes(model: ir.Model) -> None:
    """Gives every node of the graph a name of its own, and notes it as what it came from.

    A node without a name is called as its first output, which is unique in a graph; one whose
    name another has gets a number behind it.
    """
    taken: set[str] = set()
    for node in nodes_of(model.graph):
        made = next((v.name for v in node.outputs if v.name), None)
        name = node.name or made or node.op_type
        node.meta[ORIGIN] = (name,)
        if name in taken and made and made not in taken:
            name = made
        base, number = name, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        node.name = name


def origins(model: ir.Model) -> Mapping[str, tuple[str, ...]]:
    """Returns for each node of the graph, by name, the names of the file's nodes it came from."""
    return {str(node.name): origin_of(node) for node in nodes_of(model.graph)}


def origin_of(node: ir.Node) -> tuple[str, ...]:
    """Returns the names of the file's nodes that a node came from; its own where none is noted."""
    found: tuple[str, ...] = node.meta.get(ORIGIN) or (str(node.name),)
    return found


def nodes_of(graph: ir.Graph) -> list[ir.Node]:
    """Returns the nodes of a graph and of those within it, each before what it holds."""
    found = []
    for node in graph:
        found.append(node)
        for inner in subgraphs_of(node):
            found.extend(nodes_of(inner))
    return found
