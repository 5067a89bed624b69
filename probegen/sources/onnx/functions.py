"""Writes the functions that a file defines out where they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import subgraphs_of
from probegen.sources.onnx.names import ORIGIN, AllNames, nodes_of, origin_of, told, values_of
from probegen.sources.onnx.rewriting import graph_of

#: Key in the metadata that nodes carry in memory: the opset of the function that it came from.
OPSET = "probegen.opset"
#: Functions may call each other, though not themselves.
_DEEPEST = 200


def inline_functions(model: ir.Model, names: AllNames) -> None:
    """Puts the bodies of functions in the place of their calls, in all graphs.

    `f(x)` named "layer" -> the nodes of f, named "layer/..."

    Leaves: values and nodes named after the call they came from; for each node, noted on it, the
    opset that its function was written in.

    Raises:
        SourceError: a function calls itself, or is called with more inputs than it has.
    """
    for node in nodes_of(model.graph):
        _inline(model, node, names, 0)
    model.functions.clear()


def _inline(model: ir.Model, call: ir.Node, names: AllNames, depth: int) -> None:
    function = model.functions.get(call.op_identifier())
    if function is None:
        return
    if depth > _DEEPEST:
        raise SourceError(f"the function {function.name!r} of the model calls itself.")
    body = function.clone()
    for node in nodes_of(body.graph):
        called = model.functions.get(node.op_identifier())
        node.name = node.name or (None if called is None else called.name)
    for node in write_out(call, body, names):
        _inline(model, node, names, depth + 1)


def write_out(
    call: ir.Node, body: ir.Function, names: AllNames, given: Sequence[int] | None = None
) -> list[ir.Node]:
    """Puts the nodes of a function's body, which is used up, in the place of a call.

    Args:
        call: the call.
        body: the function.
        names: names that are taken.
        given: for each output of the function the output of the call that it is; in order, where
            nothing is said.

    Returns:
        The nodes, with those of graphs within them.

    Raises:
        SourceError: the call has more inputs than the function.
    """
    if len(call.inputs) > len(body.inputs):
        raise SourceError(
            f"{told(call)} has {len(call.inputs)} inputs; the function {body.name!r} of the "
            f"model takes {len(body.inputs)}."
        )
    nodes = nodes_of(body.graph)
    attributes = {**{a.name: a for a in body.attributes.values()}, **call.attributes}
    for node in nodes:
        _resolve(node, attributes)
        own = node.name or next((v.name for v in node.outputs if v.name), None) or node.op_type
        node.meta[ORIGIN] = tuple(f"{name}/{own}" for name in origin_of(call))
        node.meta[OPSET] = body.opset_imports.get("")
        node.name = names.nodes.unique(f"{call.name}/{own}")
    for graph in (body.graph, *(g for n in nodes for g in subgraphs_of(n))):
        for value in values_of(graph):
            if value.name and value not in body.inputs:
                value.name = names.values.unique(f"{call.name}/{value.name}")
    left_out = (None for _ in body.inputs[len(call.inputs) :])
    read: list[ir.Value | None] = [*call.inputs, *left_out]
    instead: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs, read, strict=True))
    for node in nodes:
        for position, inner_value in enumerate(node.inputs):
            if inner_value is not None and inner_value in instead:
                node.replace_input_with(position, instead[inner_value])
        for inner in subgraphs_of(node):
            inner.outputs[:] = [instead.get(v) or v for v in inner.outputs]
    outputs = list(call.outputs) if given is None else [call.outputs[i] for i in given]
    _put_in_place(call, body, instead, outputs)
    return nodes


def _resolve(node: ir.Node, given: Mapping[str, ir.Attr]) -> None:
    """Gives a node of a body the attributes that it takes from the call."""
    for name, attribute in list(node.attributes.items()):
        if not attribute.is_ref():
            continue
        found = given.get(attribute.ref_attr_name or "")
        if found is None or (not found.is_ref() and found.value is None):
            node.attributes.pop(name)
        else:
            node.attributes[name] = ir.Attr(name, found.type, found.value)


def _put_in_place(
    call: ir.Node,
    body: ir.Function,
    instead: Mapping[ir.Value, ir.Value | None],
    outputs: Sequence[ir.Value],
) -> None:
    graph = graph_of(call)
    results = list(body.outputs)
    nodes = list(body.graph)
    body.outputs.clear()
    body.graph.remove(nodes)
    for value in list(body.graph.initializers.values()):
        body.graph.initializers.pop(str(value.name))
        graph.register_initializer(value)
    graph.insert_before(call, nodes)
    seen: set[ir.Value] = set()
    for old, result in zip(outputs, results, strict=False):
        new = instead.get(result, result)
        if new is None:
            continue
        handed_on = result in instead or new in seen or new.is_initializer()
        if handed_on:
            identity = ir.node("Identity", [new], name=f"{call.name}/{old.name}")
            identity.meta[ORIGIN] = origin_of(call)
            graph.insert_before(call, identity)
            new = identity.outputs[0]
        seen.add(new)
        take_place(old, new)
    graph.remove(call, safe=True)
