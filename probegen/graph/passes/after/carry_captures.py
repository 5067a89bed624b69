"""What the bodies of Scans read from outside, in the form that every engine reads right.

ONNX lets a body read any value of the graph around it. OpenVINO's reader of ONNX files counts such
values among a Scan's own inputs and refuses the file, unless they are stored constants.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node, read_others
from probegen.graph.core.queries import (
    DEQUANTISING,
    QUANTISING,
    captured_values,
    inputs_of,
)
from probegen.graph.core.replacing import replace_node
from probegen.graph.core.values import subgraphs_of
from probegen.graph.loops.iteration import iteration_of
from probegen.graph.passes.after.join_repeated_nodes import RANDOM

#: The nodes that compute a value from stored values alone, in order; None if others take part.
_FromStored = dict[ir.Value, list[ir.Node] | None]


def carry_captures(model: ir.Model) -> None:
    """Gives each Scan what its body reads from outside as further states, which no step changes.

    `Scan(s, x)` whose body reads c -> `Scan(s, c, x)` whose body returns a copy of c

    What is stored is read from outside as before. What is computed from stored values alone is
    computed in the body: a session folds it when it loads, and copies nothing at each step. Weights
    in whole numbers are not folded: they are dequantised outside of a body that quantises nothing
    (onnxruntime 1.32 cannot load a MatMul there whose weight is stored outside of its body).

    Needs: topological order.
    """
    graph = model.graph
    names = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/carried")
    from_stored: _FromStored = {}
    for node in list(graph):
        _carry(names, node, from_stored)


def _carry(names: Builder, node: ir.Node, from_stored: _FromStored) -> None:
    """Does as `carry_captures`, for a node and then for those inside it."""
    if node.op_type == "Scan" and not node.domain:
        node = _carry_into(names, node, from_stored)
    for body in subgraphs_of(node):
        for inner in list(body):
            _carry(names, inner, from_stored)


def _carry_into(names: Builder, node: ir.Node, from_stored: _FromStored) -> ir.Node:
    """Returns the Scan that stands in a Scan's place."""
    iteration = iteration_of(node)
    body, count = iteration.body, len(iteration.states)
    prefix = names.fresh("Scan")
    early, late = (Builder(body, names.opset, prefix=f"{prefix}/{p}") for p in ("early", "late"))
    quantises = any(n.op_type in QUANTISING for n in body.all_nodes())
    instead: dict[ir.Value, ir.Value] = {}
    entering: dict[ir.Value, ir.Value] = {}
    for value in captured_values(body):
        if _is_stored(value):
            continue
        nodes = _nodes_from_stored(value, from_stored)
        if nodes is None or (not quantises and any(n.op_type in DEQUANTISING for n in nodes)):
            within = ir.Value(name=late.fresh("entering"), type=value.type, shape=value.shape)
            instead[value] = entering[value] = within
            continue
        for one in nodes:
            if one.outputs[0] not in instead:
                copy_node(early, one, instead)
    if not instead:
        return node
    read_others(body, instead)
    leaving = [late.op("Identity", within, shape=within) for within in entering.values()]
    for one in reversed(early.nodes):
        body.insert_before(body[0], one)
    late.attach()
    body.inputs[count:count] = list(entering.values())
    body.outputs[count:count] = leaving
    inputs = [*node.inputs[:count], *entering, *node.inputs[count:]]
    outputs: list[ir.Value | None] = [*node.outputs[:count], *(None for _ in entering)]
    return replace_node(node, inputs, [*outputs, *node.outputs[count:]])


def _is_stored(value: ir.Value) -> bool:
    """Tells whether a value is an initializer that no request can override."""
    return value.is_initializer() and not value.is_graph_input()


def _nodes_from_stored(value: ir.Value, from_stored: _FromStored) -> list[ir.Node] | None:
    """Returns the nodes that compute a value from stored values alone; None if others take part.

    Without recursion: graphs are deep.
    """
    pending = [value]
    while pending:
        one = pending[-1]
        node = one.producer()
        if one in from_stored:
            pending.pop()
            continue
        random = node is not None and not node.domain and node.op_type in RANDOM
        if node is None or random or any(True for _ in subgraphs_of(node)):
            from_stored[one] = None
            continue
        computed = [v for v in inputs_of(node) if not _is_stored(v)]
        if any(v in from_stored and from_stored[v] is None for v in computed):
            from_stored[one] = None
            continue
        missing = [v for v in computed if v not in from_stored]
        if missing:
            pending.append(missing[0])
            continue
        before = [n for v in computed for n in from_stored[v] or ()]
        from_stored[one] = list(dict.fromkeys([*before, node]))
    return from_stored[value]
