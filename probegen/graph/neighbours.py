"""Who makes and who reads a value: what passes and rules ask of the graph around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import inputs_of


def sole_reader(value: ir.Value) -> ir.Node | None:
    """Returns the node that alone reads a value, and once; None for an output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def operands(
    value: ir.Value | None, op_type: str, *, both: bool = True
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yields the two operands of the node that made a value, in `both` orders or as they are.

    Nothing where another operator than `op_type` made it.
    """
    node = None if value is None else value.producer()
    if node is None or node.op_type != op_type or node.domain or len(node.inputs) != 2:
        return
    first, second = node.inputs
    if first is not None and second is not None:
        yield first, second
        if both:
            yield second, first


def needed_for(graph: ir.Graph, outputs: Sequence[ir.Value]) -> set[ir.Node]:
    """Returns the nodes of the graph itself that `outputs` depend on."""
    needed: set[ir.Node] = set()
    pending = [v.producer() for v in outputs]
    while pending:
        node = pending.pop()
        if node is not None and node not in needed and node.graph is graph:
            needed.add(node)
            pending.extend(v.producer() for v in inputs_of(node))
    return needed
