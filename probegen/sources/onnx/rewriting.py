"""Puts other nodes in the place of one; names of values, and what nodes came from, are kept."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of


def graph_of(node: ir.Node) -> ir.Graph:
    """Returns the graph that a node belongs to.

    Raises:
        TypeError: it belongs to none, or to a function.
    """
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"{node.name!r} belongs to no graph")
    return node.graph


def builder_at(node: ir.Node, opset: int, names: AllNames) -> Builder:
    """Returns a builder of what is to stand in the place of a node."""
    return Builder(graph_of(node), opset, prefix=str(node.name), taken=names.values.taken)


def replace(node: ir.Node, builder: Builder, results: Sequence[ir.Value | None]) -> None:
    """Puts what was built in the place of a node.

    Args:
        node: what is taken out.
        builder: holds the new nodes.
        results: for each output of the node what stands for it, None for one that nothing reads.
    """
    origin = origin_of(node)
    for one in builder.replace(node, results):
        one.meta[ORIGIN] = origin
