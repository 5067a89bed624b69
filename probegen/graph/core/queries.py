"""Who makes and who reads a value: what passes and rules ask of the graph around them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import constant_of, shape_of, subgraphs_of

#: Operators whose inputs are broadcast to the shape of their output.
BROADCASTING = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"}
    | {"Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"}
)
#: Operators that go along an axis of time, from a state to the next.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
#: Operators that make whole numbers of floats for a runtime to compute with, and floats of these.
QUANTISING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
DEQUANTISING = frozenset({"DequantizeLinear"})


def constants_of(model: ir.Model) -> Callable[[Container[int]], Iterator[npt.NDArray[Any]]]:
    """Returns a function from numbers of elements to the initializers that have as many."""

    def of_sizes(sizes: Container[int]) -> Iterator[npt.NDArray[Any]]:
        graphs = [model.graph]
        graphs += [g for node in model.graph.all_nodes() for g in subgraphs_of(node)]
        for tensor in (v.const_value for g in graphs for v in g.initializers.values()):
            if tensor is not None and tensor.size in sizes:
                yield tensor.numpy()

    return of_sizes


def sole_reader(value: ir.Value) -> ir.Node | None:
    """Returns the node that alone reads a value, and once; None for an output of the graph.

    A node of a subgraph is none: the branch of an If may not be run, a loop's body often.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, producer = uses[0].node, value.producer()
    return reader if producer is None or reader.graph is producer.graph else None


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


def depending_on(
    graph: ir.Graph, sources: Iterable[ir.Value], skip: Container[ir.Node] = ()
) -> set[ir.Value]:
    """Returns the values of the graph itself that depend on `sources`, these included.

    Args:
        graph: its nodes are in order.
        sources: where to start.
        skip: nodes whose results do not count as depending.
    """
    found = set(sources)
    for node in graph:
        if node not in skip and any(v in found for v in inputs_of(node)):
            found.update(node.outputs)
    return found


def ancestors_of(values: Iterable[ir.Value]) -> set[ir.Value]:
    """Returns the values that some are computed from, these included."""
    found, pending = set(), list(values)
    while pending:
        value = pending.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        if node is not None:
            pending.extend(inputs_of(node))
    return found


def nodes_from(
    graph: ir.Graph,
    starts: Collection[ir.Value],
    ends: Iterable[ir.Value],
    skip: Container[ir.Node] = (),
) -> list[ir.Node]:
    """Returns in order the nodes through which `starts` reach `ends`.

    What makes the starts themselves is not among them, nor what does not depend on them.

    Args:
        graph: its nodes are in order.
        starts: what is given.
        ends: what is computed from them.
        skip: nodes whose results do not count as depending.
    """
    depending, needed = depending_on(graph, starts, skip), set(ends)
    chosen = []
    for node in reversed(list(graph)):
        fresh = any(v in needed and v not in starts for v in node.outputs)
        if fresh and node not in skip and any(v in depending for v in inputs_of(node)):
            chosen.append(node)
            needed.update(inputs_of(node))
    return chosen[::-1]


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


def where_axes_are_lost(graph: ir.Graph, value: ir.Value) -> str:
    """Says which operator's result is the first, on the way to a value, of unknown axes, and why.

    Args:
        graph: in topological order.
        value: one of it, whose number of axes is not known.
    """
    needed = needed_for(graph, [value])
    first = next((n for n in graph if n in needed and n.outputs[0].shape is None), None)
    if first is None:
        return "nothing says it"
    where = f"it comes from {key_of(first)} {first.name!r}"
    if first.domain:
        return f"{where}, of which onnx's shape inference knows nothing"
    read = [shape_of(v) for v in inputs_of(first)]
    if all(s is not None and all(isinstance(n, int) for n in s[1:]) for s in read):
        sizes = ", ".join(f"[{', '.join(map(str, s or ()))}]" for s in read)
        return f"{where}, and onnx's shape inference finds none for inputs of the sizes {sizes}"
    return (
        f"{where}, whose result has more or fewer axes by the open sizes of its input. Give the "
        "inputs of the file fixed sizes"
    )


_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
)


def is_float(value: ir.Value) -> bool:
    """Tells whether a gradient can live on `value`; a value of unknown type counts as one."""
    return value.dtype is None or value.dtype in _FLOATS


def key_of(node: ir.Node) -> str:
    """Returns the name under which the tables know a node's operator."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def inputs_of(node: ir.Node) -> Iterable[ir.Value]:
    """Yields what a node reads: its inputs and the outer values its subgraphs capture."""
    for value in node.inputs:
        if value is not None:
            yield value
    for graph in subgraphs_of(node):
        yield from captured_values(graph)


def varying_inputs(node: ir.Node) -> list[ir.Value]:
    """Returns what a node reads itself and what is not known at compile time, in its order."""
    return [v for v in node.inputs if v is not None and constant_of(v) is None]


def captured_values(graph: ir.Graph) -> list[ir.Value]:
    """Returns the values of enclosing graphs that a subgraph reads, each once."""
    inner = set(graph.inputs) | set(graph.initializers.values())
    for node in graph.all_nodes():
        inner.update(node.outputs)
        for nested in subgraphs_of(node):
            inner.update((*nested.inputs, *nested.initializers.values()))
    read = [v for node in graph.all_nodes() for v in node.inputs if v is not None]
    for node in graph.all_nodes():
        read.extend(v for nested in subgraphs_of(node) for v in nested.outputs)
    return [v for v in dict.fromkeys((*read, *graph.outputs)) if v not in inner]
