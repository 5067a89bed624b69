"""Values of a graph that are drawn at random: no artefact can agree with them."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from probegen.graph.core.queries import depending_on
from probegen.graph.core.values import subgraphs_of

_DRAWING = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial"}
)


def random_values(graph: ir.Graph, outside: Collection[ir.Value] = ()) -> set[ir.Value]:
    """Returns the values that depend on random numbers, in graphs within one too."""
    drawing = (v for node in graph if draws(node) for v in node.outputs)
    found = depending_on(graph, [*outside, *drawing])
    for node in graph:
        for inner in subgraphs_of(node):
            found |= random_values(inner, found)
    return found


def draws(node: ir.Node) -> bool:
    """Tells whether a node draws random numbers, itself or in a graph of its own."""
    if node.op_type in _DRAWING and not node.domain:
        return True
    return any(draws(inner) for graph in subgraphs_of(node) for inner in graph)
