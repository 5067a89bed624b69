"""The work that nodes of a graph do: multiply-adds, and bytes read and written.

Needs static shapes; where they cannot be told, a node counts as nothing and is reported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Set

import onnx_ir as ir

from probegen.graph.core.multiply_adds import multiply_adds
from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import element_bytes, static_shape, subgraphs_of
from probegen.graph.loops.iteration import iteration_of, trip_count

#: Operators that hand on what they were given under another shape, or look at the shape alone.
FREE = frozenset(
    {
        "Constant",
        "Flatten",
        "Identity",
        "Reshape",
        "Shape",
        "Size",
        "Squeeze",
        "Unsqueeze",
    }
)
#: Operators that go over the first axis of their first input, and each time over the recurrent
#: weights, their third.
STEPWISE = frozenset({"GRU", "LSTM", "RNN"})
#: Operators that read no more of their first input than they write.
_PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "OneHot", "Expand"})


@dataclasses.dataclass(frozen=True)
class Work:
    """What one node does in one run.

    Attributes:
        node: the node.
        times: how often it is run, as a step of a loop.
        multiply_adds: multiplications that are summed up, in one run of the node.
        bytes: what it reads and writes.
        known: False where sizes are missing, so that the rest is 0.
    """

    node: ir.Node
    times: int
    multiply_adds: int
    bytes: int
    known: bool = True


def constants(graph: ir.Graph, around: Set[ir.Value] = frozenset()) -> set[ir.Value]:
    """Returns the values that depend on weights alone, which a runtime computes at load.

    Those of the graphs within it are among them, and those `around` it that it may read.
    """
    known = {*around, *(v for v in graph.initializers.values() if not v.is_graph_input())}
    for node in graph:
        if node.op_type == "Constant" or _computed_from(node, known):
            known.update(node.outputs)
        for inner in subgraphs_of(node):
            known |= constants(inner, known)
    return known


def _computed_from(node: ir.Node, known: set[ir.Value]) -> bool:
    return bool(node.inputs) and all(v in known for v in inputs_of(node))


def works(nodes: Iterable[ir.Node], known: set[ir.Value], times: int = 1) -> Iterator[Work]:
    """Yields the work of nodes, and of those within them as often as they are run.

    Args:
        nodes: the nodes.
        known: values that are computed beforehand, see `constants`.
        times: how often the nodes are run.
    """
    for node in nodes:
        if all(v in known for v in node.outputs):
            continue
        inner = list(subgraphs_of(node))
        if not inner:
            yield _work(node, times)
            continue
        trips = trip_count(iteration_of(node)) if node.op_type in ("Loop", "Scan") else 1
        if not isinstance(trips, int):
            yield Work(node, times, 0, 0, known=False)
            continue
        yield Work(node, times, 0, 0)
        for graph in inner:
            yield from works(graph, known, times * trips)


def _work(node: ir.Node, times: int) -> Work:
    if node.op_type in FREE and not node.domain:
        return Work(node, times, 0, 0)
    read = [v for v in node.inputs if v is not None and not _is_shape(v)]
    values = [*read, *(v for v in node.outputs if v.name and not _is_shape(v))]
    if any(static_shape(v) is None for v in values):
        return Work(node, times, 0, 0, known=False)
    first = min(1, len(read)) if node.op_type in _PICKING else 0
    touched = sum(map(size_in_bytes, values[first:]))
    if first:
        touched += sum(map(size_in_bytes, node.outputs))
    if node.op_type in STEPWISE:
        touched += (_sizes(node.inputs[0])[0] - 1) * size_in_bytes(read[2])
    return Work(node, times, multiply_adds(node), touched)


def size_in_bytes(value: ir.Value) -> int:
    """Returns the bytes of a value of static shape."""
    return math.ceil(_elements(value) * element_bytes(value))


def _is_shape(value: ir.Value) -> bool:
    """Tells whether a value is a list of sizes or of axes, of no weight beside tensors."""
    shape = value.shape
    return value.dtype == ir.DataType.INT64 and shape is not None and len(shape) <= 1


def _elements(value: ir.Value | None) -> int:
    return math.prod(_sizes(value))


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    return () if value is None else static_shape(value) or ()
