"""Passes that only tidy up: unused nodes and opsets, order, names."""

from __future__ import annotations

from collections.abc import Iterable, Set

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.core.queries import needed_for
from probegen.graph.core.values import subgraphs_of


def remove_unused_nodes(model: ir.Model) -> None:
    """Removes nodes whose outputs nothing reads, in subgraphs too, and initializers likewise.

    `a = Exp(x); y = Relu(x)` -> `y = Relu(x)`

    What only the body of such a node reads goes with it: onnx-ir's own pass counts bodies of nodes
    that it has removed as readers.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        needed = needed_for(graph, graph.outputs)
        for node in graph:
            if node not in needed:
                _read_nothing(node)
    common.RemoveUnusedNodesPass()(model)


def _read_nothing(node: ir.Node) -> None:
    """Takes the inputs from all nodes in the bodies of a node."""
    for body in subgraphs_of(node):
        for inner in body.all_nodes():
            for at in range(len(inner.inputs)):
                inner.replace_input_with(at, None)


def remove_unused_opsets(model: ir.Model) -> None:
    """Removes the imports of operator sets that no node is of.

    `opset_import: ["": 18, "com.example": 1]` -> `opset_import: ["": 18]`
    """
    common.RemoveUnusedOpsetsPass()(model)


def sort_topologically(model: ir.Model) -> None:
    """Puts every node behind what it reads, in subgraphs too.

    `y = Relu(a); a = Exp(x)` -> `a = Exp(x); y = Relu(a)`
    """
    common.TopologicalSortPass()(model)


def make_names_unique(model: ir.Model) -> None:
    """Renames values that share a name with another one that can be seen from where they stand.

    `m/scale = Conv(x, w), initializer m/scale` -> `m/scale, m/scale_1`

    Nodes of one graph that share a name are renamed as well: onnxruntime refuses them. Inputs and
    outputs of the model keep their names. Outputs that a node leaves out stay so; onnx-ir's own
    pass would name those, and so ask for them.
    """
    _make_unique(model.graph, set())


def _make_unique(graph: ir.Graph, outside: Set[str]) -> None:
    taken = set(outside)
    first = dict.fromkeys((*graph.inputs, *graph.outputs, *graph.initializers.values()))
    produced = (value for node in graph for value in node.outputs)
    for value in dict.fromkeys((*first, *produced)):
        if not value.name:
            continue
        if value.name in taken:
            value.name = _free(value.name, (taken, graph.initializers))
        taken.add(value.name)
    nodes: set[str] = set()
    for node in graph:
        if node.name in nodes:
            node.name = _free(node.name, (nodes,))
        if node.name:
            nodes.add(node.name)
        for inner in subgraphs_of(node):
            _make_unique(inner, taken)


def _free(name: str, taken: Iterable[Iterable[str]]) -> str:
    number = 1
    while any(f"{name}_{number}" in names for names in taken):
        number += 1
    return f"{name}_{number}"
