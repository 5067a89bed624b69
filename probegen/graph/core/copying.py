"""Copies of nodes, with their subgraphs, that read other values."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of


def copy_node(body: Builder, node: ir.Node, copies: dict[ir.Value, ir.Value]) -> None:
    """Writes a copy of a node.

    Args:
        body: where it goes.
        node: the original.
        copies: value -> what the copy reads in its place; the node's outputs are added.
    """
    attributes: dict[str, Any] = {}
    for name, attr in node.attributes.items():
        value = attr
        if attr.type == ir.AttributeType.GRAPH:
            inner = attr.as_graph().clone(allow_outer_scope_values=True)
            for original, copy in copies.items():
                _read_instead(inner, original, copy)
            value = ir.AttrGraph(name, inner)
        attributes[name] = value
    outputs = body.ops(
        node.op_type,
        *(copies.get(v, v) if v is not None else None for v in node.inputs),
        outputs=len(node.outputs),
        shapes=[shape_of(v) for v in node.outputs],
        domain=node.domain,
        **attributes,
    )
    for original, copy in zip(node.outputs, outputs, strict=True):
        copy.type = original.type
        copies[original] = copy


def _read_instead(graph: ir.Graph, original: ir.Value, copy: ir.Value) -> None:
    for node in graph.all_nodes():
        for position, value in enumerate(node.inputs):
            if value is original:
                node.replace_input_with(position, copy)
