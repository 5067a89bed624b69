"""ONNX's own operator for gradients, which no runtime implements, written out.

`ai.onnx.preview.training::Gradient` differentiates the tensor named `y` by those named `xs`, at
values that it is fed. What it stands for is a copy of the nodes between them, at these values, and
the way back through it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from probegen.errors import ProbegenError, SourceError
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.queries import nodes_from
from probegen.graph.core.values import attribute, rank_of
from probegen.graph.vjp import BLOCKING, RULES
from probegen.sources.onnx.names import nodes_of, told

DOMAIN, OPERATOR = "ai.onnx.preview.training", "Gradient"


def has_gradients(model: ir.Model) -> bool:
    """Tells whether a model holds such an operator."""
    return any(_is_gradient(node) for node in nodes_of(model.graph))


def lower_gradients(model: ir.Model) -> None:
    """Writes every such operator as standard ones, in order, so that one may read another's.

    Needs: shapes inferred, nodes in topological order.

    Raises:
        SourceError: it names tensors that are not there, or the gradient cannot be written.
    """
    for node in nodes_of(model.graph):
        if _is_gradient(node):
            if node.graph is not model.graph:
                raise SourceError(
                    f"{told(node)} stands inside a loop or branch; gradients are written out in "
                    "the main graph alone. Take it out of there."
                )
            _lower(model.graph, node, model.opset_imports[""])
    common.TopologicalSortPass()(model)
    model.opset_imports.pop(DOMAIN, None)


def _is_gradient(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type == OPERATOR


def _lower(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    values = {v.name: v for v in [*graph.inputs, *graph.initializers.values()]}
    values.update({v.name: v for n in graph for v in n.outputs})
    xs, zs = (list(attribute(node, name) or ()) for name in ("xs", "zs"))
    names = [*xs, *zs, str(attribute(node, "y"))]
    missing = [name for name in names if name not in values]
    if missing or len(node.inputs) != len(xs) + len(zs):
        raise SourceError(
            f"{told(node)} names {', '.join(map(repr, missing)) or 'other inputs than it has'}; "
            "`xs`, `zs` and `y` are names of tensors of the same graph, and its inputs are values "
            "for `xs` and then for `zs`."
        )
    fed = dict(zip([values[n] for n in (*xs, *zs)], node.inputs, strict=True))
    builder = Builder(graph, opset, prefix=f"{node.name or OPERATOR}/written_out")
    end = values[names[-1]]
    copies = _copied(builder, graph, fed, end)
    places = [copies[values[x]] for x in xs]
    builder.attach()
    ones = builder.const(np.ones((1,) * rank_of(end)), end.dtype)
    seed = builder.expand(ones, copies[end])
    try:
        found = gradients(builder, {copies[end]: seed}, places, RULES, BLOCKING)
    except ProbegenError as error:
        raise SourceError(f"{told(node)} cannot be written out: {error}") from error
    for output, gradient, place in zip(node.outputs, found, places, strict=False):
        written = builder.zeros_like(place) if gradient is None else gradient
        result = builder.op("Identity", written, shape=place)
        name = output.name
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        output.name, result.name = f"{name}/unused", name
    builder.attach()
    graph.remove(node, safe=True)


def _copied(
    builder: Builder,
    graph: ir.Graph,
    fed: Mapping[ir.Value, ir.Value | None],
    end: ir.Value,
) -> dict[ir.Value, ir.Value]:
    """Writes the nodes between some values and an end once more, at other values.

    Each value becomes one of its own, so that no gradient passes from one to another.

    Returns:
        Value of the graph -> its copy, the end's too.
    """
    copies = {
        value: builder.op("Identity", given if given is not None else value, shape=value)
        for value, given in fed.items()
    }
    for node in nodes_from(graph, fed, [end]):
        copy_node(builder, node, copies)
    copies.setdefault(end, end)
    return copies
