"""Copies of nodes, with their subgraphs, that read other values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, shape_of, subgraphs_of

#: Gives a size another name.
Rename = Callable[[Dim], Dim]


def copy_node(
    body: Builder,
    node: ir.Node,
    copies: dict[ir.Value, ir.Value],
    rename: Rename | None = None,
) -> None:
    """Writes a copy of a node.

    Args:
        body: where it goes.
        node: the original.
        copies: value -> what the copy reads in its place; the node's outputs are added.
        rename: what open sizes are called in the copy, where they are others.
    """
    attributes: dict[str, Any] = {}
    for name, attr in node.attributes.items():
        value = attr
        if attr.type == ir.AttributeType.GRAPH:
            inner = attr.as_graph().clone(allow_outer_scope_values=True)
            for original, copy in copies.items():
                _read_instead(inner, original, copy)
            if rename is not None:
                _rename_sizes(inner, rename)
            value = ir.AttrGraph(name, inner)
        attributes[name] = value
    outputs = body.again(
        node,
        [copies.get(v, v) if v is not None else None for v in node.inputs],
        [_renamed(shape_of(v), rename) for v in node.outputs],
        attributes,
    )
    copies.update(zip(node.outputs, outputs, strict=True))


def standing_apart(node: ir.Node, inputs: Iterable[ir.Value | None]) -> ir.Node:
    """Returns a copy of a node, with one output, on other inputs; it belongs to no graph."""
    made = ir.node(
        node.op_type,
        list(inputs),
        attributes=dict(node.attributes),
        domain=node.domain,
        num_outputs=1,
        name=f"{node.name}/apart",
    )
    made.outputs[0].type, made.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    return made


def _read_instead(graph: ir.Graph, original: ir.Value, copy: ir.Value) -> None:
    for node in graph.all_nodes():
        for position, value in enumerate(node.inputs):
            if value is original:
                node.replace_input_with(position, copy)


def _renamed(sizes: Iterable[Dim] | None, rename: Rename | None) -> list[Dim] | None:
    if sizes is None:
        return None
    return list(sizes) if rename is None else [rename(d) for d in sizes]


def _rename_sizes(graph: ir.Graph, rename: Rename) -> None:
    values = [*graph.inputs, *(v for node in graph.all_nodes() for v in node.outputs)]
    values += [v for n in graph.all_nodes() for g in subgraphs_of(n) for v in g.inputs]
    for value in values:
        sizes = _renamed(shape_of(value), rename)
        if sizes is not None:
            value.shape = ir.Shape(sizes)


def read_others(body: ir.Graph, instead: Mapping[ir.Value, ir.Value]) -> None:
    """Lets a body, and the graphs in it, read other values."""
    for node in body.all_nodes():
        for position, value in enumerate(node.inputs):
            if value is not None and value in instead:
                node.replace_input_with(position, instead[value])
    for graph in (body, *body.subgraphs()):
        graph.outputs[:] = [instead.get(v, v) for v in graph.outputs]
