"""One value, or one node, in the place of another; nodes taken out whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from probegen.graph.core.values import Dim, shape_of, subgraphs_of


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Lets all that reads `old` read `new`: nodes, and the graph whose output `old` is.

    A graph has to make each of its outputs by a node of its own. Where `new` comes from elsewhere,
    or is an output already, an Identity makes the output of it.
    """
    for node, position in list(old.uses()):
        node.replace_input_with(position, new)
    graph = old.graph
    if not old.is_graph_output() or graph is None:
        return
    producer = new.producer()
    for position, output in enumerate(graph.outputs):
        if output is not old:
            continue
        if producer is not None and producer.graph is graph and not new.is_graph_output():
            graph.outputs[position] = new
            continue
        copy = ir.node("Identity", [new])
        copy.outputs[0].type, copy.outputs[0].shape = old.type or new.type, old.shape or new.shape
        copy.outputs[0].name = f"{old.name}/copy"
        graph.append(copy)
        graph.outputs[position] = copy.outputs[0]


def take_place(old: ir.Value, new: ir.Value) -> None:
    """Lets a value stand for another, under that one's name and with what is known of both."""
    if old.type is not None:
        new.type = old.type
    add_shape(new, old)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name = name


def remove_whole(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Takes nodes out of a graph, with their subgraphs, which then read nothing any more.

    Raises:
        ValueError: another node reads what one of them makes.
    """
    gone = list(nodes)
    for inner in (inner for node in gone for inner in subgraphs_of(node)):
        inner.outputs.clear()
        remove_whole(inner, inner)
    graph.remove(gone, safe=True)


def add_shape(value: ir.Value, other: ir.Value) -> None:
    """Notes on a value what is known of the shape and type of another that is equal to it.

    An input of a graph stays as it is declared.
    """
    if value.is_graph_input():
        return
    value.type = value.type or other.type
    first, second = shape_of(value), shape_of(other)
    if second is None or (first is not None and len(first) != len(second)):
        return
    if first is None:
        value.shape = ir.Shape(list(second))
        return
    value.shape = ir.Shape([_better(a, b) for a, b in zip(first, second, strict=True)])


def _better(first: Dim, second: Dim) -> Dim:
    """Returns the size that tells more: a number, else a name, else nothing."""
    if isinstance(first, int) or second is None:
        return first
    return second if first is None or isinstance(second, int) else first


def replace_node(
    node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value | None]
) -> ir.Node:
    """Puts a node of other inputs and outputs in the place of one; returns it.

    Args:
        node: what is taken out of its graph.
        inputs: what the new one reads.
        outputs: the outputs that its outputs stand for; None for one that is new, which is
            described as the input at its position.
    """
    graph = node.graph
    if graph is None:
        raise ValueError(f"{node.name!r} belongs to no graph")
    new = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes,
        num_outputs=len(outputs),
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    new.meta.update(node.meta)
    for position, (old, value) in enumerate(zip(outputs, new.outputs, strict=True)):
        if old is None:
            state = inputs[position]
            value.name = f"{node.name}/final_{position}"
            value.type, value.shape = (None, None) if state is None else (state.type, state.shape)
            continue
        value.name, value.type, value.shape = old.name, old.type, old.shape
        value.metadata_props.update(old.metadata_props)
        value.meta.update(old.meta)
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.insert_before(node, new)
    graph.remove(node, safe=True)
    return new
