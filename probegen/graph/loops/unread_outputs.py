"""Scan outputs of loops that nothing reads."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.replacing import replace_node
from probegen.graph.core.values import subgraphs_of
from probegen.graph.loops.iteration import is_loop, iteration_of


def drop_unread_outputs(graph: ir.Graph) -> None:
    """Takes out scan outputs that nothing reads, and the nodes that compute nothing else.

    `last, every = Scan(s, x)` with `every` unread -> `last = Scan(s, x)`

    Leaves: states, read or not.
    """
    for node in list(graph):
        kept = _without_unread(node) if is_loop(node) else node
        for inner in subgraphs_of(kept):
            drop_unread_outputs(inner)


def _without_unread(node: ir.Node) -> ir.Node:
    """Returns the loop that stands in a loop's place; the same where all is read."""
    iteration = iteration_of(node)
    stacks = iteration.scan_outputs
    unread = [
        i for i, s in enumerate(stacks) if not s.stacked.uses() and not s.stacked.is_graph_output()
    ]
    if not unread:
        return node
    first = len(iteration.body.outputs) - len(stacks)
    gone = {first + i for i in unread}
    outputs = iteration.body.outputs
    outputs[:] = [v for i, v in enumerate(list(outputs)) if i not in gone]
    for name in ("scan_output_axes", "scan_output_directions"):
        given = node.attributes.get(name)
        if given is not None:
            entries = [e for i, e in enumerate(given.as_ints()) if i not in unread]
            node.attributes[name] = ir.AttrInt64s(name, entries)
    at = len(node.outputs) - len(stacks)
    kept = [v for i, v in enumerate(node.outputs) if i - at not in unread]
    made = replace_node(node, list(node.inputs), kept)
    _drop_unread_nodes(iteration.body)
    return made


def _drop_unread_nodes(body: ir.Graph) -> None:
    for node in reversed(list(body)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            body.remove(node, safe=True)
