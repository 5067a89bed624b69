"""Names of nodes and values: each has one of its own, and nodes know what they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from probegen.graph.core.values import subgraphs_of

#: Key in the metadata that nodes carry in memory: the names of the file's nodes that it came from.
ORIGIN = "probegen.origin"


class Names:
    """Names that are taken.

    Nodes and values have names of their own: a node may be called as its output.

    Attributes:
        taken: the names.
    """

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def unique(self, name: str, second: str | None = None) -> str:
        """Takes a name, a second choice, or the first with a number behind it; returns it."""
        chosen, number = name, 0
        if name in self.taken and second:
            chosen = second
        while chosen in self.taken:
            number += 1
            chosen = f"{name}_{number}"
        self.taken.add(chosen)
        return chosen


@dataclasses.dataclass(frozen=True)
class AllNames:
    """The names of a model's nodes and of its values."""

    nodes: Names
    values: Names


def name_all(model: ir.Model) -> AllNames:
    """Gives every node and every value of the graph a name of its own.

    A node without a name is called as its first output, which is unique in a graph, or as the
    function that it calls. Of values only those in graphs of nodes may have to change: two
    branches may use one name.

    Returns:
        The names that are taken.
    """
    nodes, values = Names(), Names()
    _name_values(model.graph, values)
    for node in nodes_of(model.graph):
        made = next((v.name for v in node.outputs if v.name), None)
        called = model.functions.get(node.op_identifier())
        name = node.name or (called.name if called is not None else made) or node.op_type
        node.meta[ORIGIN] = (name,)
        node.name = nodes.unique(name, made if node.name else None)
    return AllNames(nodes, values)


def _name_values(graph: ir.Graph, names: Names) -> None:
    for value in values_of(graph):
        if value.name:
            unique = names.unique(value.name)
            if unique != value.name:
                value.name = unique
    for node in graph:
        for inner in subgraphs_of(node):
            _name_values(inner, names)


#: What some exporters call every size that is open, equal or not.
_NO_NAMES = frozenset({"", "?", "-1", "None", "unknown", "dynamic"})


def drop_names_of_no_size(model: ir.Model) -> None:
    """Takes the names from open sizes that mean any size: two of them are not one size."""
    for graph in model.graphs():
        for value in values_of(graph):
            if value.shape is not None and any(_is_no_name(d) for d in value.shape):
                value.shape = ir.Shape([None if _is_no_name(d) else d for d in value.shape])


def _is_no_name(size: object) -> bool:
    return isinstance(size, ir.SymbolicDim) and size.value in _NO_NAMES


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yields the values of a graph itself, each once; not those of graphs within it."""
    yield from graph.inputs
    yield from (v for v in graph.initializers.values() if not v.is_graph_input())
    for node in graph:
        yield from node.outputs


def origins(model: ir.Model) -> Mapping[str, tuple[str, ...]]:
    """Returns for each node of the graph, by name, the names of the file's nodes it came from."""
    return {str(node.name): origin_of(node) for node in nodes_of(model.graph)}


def origin_of(node: ir.Node) -> tuple[str, ...]:
    """Returns the names of the file's nodes that a node came from; its own where none is noted."""
    found: tuple[str, ...] = node.meta.get(ORIGIN) or (str(node.name),)
    return found


def told(node: ir.Node) -> str:
    """Returns what a message calls a node: its operator and its name in the file."""
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{kind} {origin_of(node)[0]!r}"


def nodes_of(graph: ir.Graph) -> list[ir.Node]:
    """Returns the nodes of a graph and of those within it, each before what it holds."""
    found = []
    for node in graph:
        found.append(node)
        for inner in subgraphs_of(node):
            found.extend(nodes_of(inner))
    return found
