"""What is known of a value at compile time: its sizes, its element type, what it holds.

Sizes are known in three degrees: a number, the name of an open size (two values that carry one
name have one size there), or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

#: A size as far as it is known: a number, the name of a symbolic size, or nothing.
Dim = int | str | None


def shape_of(value: ir.Value) -> tuple[Dim, ...] | None:
    """Returns the sizes of `value` as far as known, or None where the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


class UnknownShapeError(ValueError):
    """A shape, a rank or an element type that was needed is not known.

    Attributes:
        node: name of the node whose output it is, `""` where there is none.
    """

    def __init__(self, message: str, value: ir.Value | None = None) -> None:
        super().__init__(message)
        producer = None if value is None else value.producer()
        self.node: str = "" if producer is None else producer.name or ""


def dims_of(value: ir.Value) -> tuple[Dim, ...]:
    """Returns the sizes of `value` as far as known.

    Raises:
        UnknownShapeError: not even the rank is known.
    """
    shape = shape_of(value)
    if shape is None:
        raise UnknownShapeError(f"the rank of {value.name!r} is unknown", value)
    return shape


def rank_of(value: ir.Value) -> int:
    """Returns the rank of `value`.

    Raises:
        UnknownShapeError: the rank is unknown.
    """
    return len(dims_of(value))


def dtype_of(value: ir.Value) -> ir.DataType:
    """Returns the element type of `value`.

    Raises:
        UnknownShapeError: it is unknown.
    """
    if value.dtype is None:
        raise UnknownShapeError(f"the element type of {value.name!r} is unknown", value)
    return value.dtype


def element_bytes(value: ir.Value) -> float:
    """Returns the bytes of an element: half a byte of 4 bits; of text those of a pointer to it.

    Four where the type is not known.
    """
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return 4
    return 8 if value.dtype == ir.DataType.STRING else value.dtype.bitwidth / 8


def known_sizes(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Returns the sizes of a value, None for open ones; None where their number is unknown."""
    shape = None if value is None else shape_of(value)
    return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Returns the sizes of `value` where all are numbers, else None."""
    shape = shape_of(value)
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def constant_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Returns the array of a value known at compile time: an initializer or a Constant.

    An initializer that is a graph input as well is a default that a caller may override, and
    is not known.
    """
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Returns the plain Python value of a node's attribute, or `default` where it has none."""
    found = node.attributes.get(name)
    if found is None:
        return default
    if found.type == ir.AttributeType.STRING:
        return found.as_string()
    if found.type == ir.AttributeType.INTS:
        return list(found.as_ints())
    if found.type == ir.AttributeType.FLOATS:
        return list(found.as_floats())
    return found.value


def whole_numbers(node: ir.Node, name: str, place: int) -> list[int] | None:
    """Returns whole numbers that a node is given, such as axes.

    None where there are none, and where they are computed at run time.

    Args:
        node: the node.
        name: of the attribute that older operator sets have for them; empty where none has.
        place: of the operand that newer ones have.
    """
    given = attribute(node, name) if name else None
    if given is None and len(node.inputs) > place:
        found = constant_of(node.inputs[place])
        given = None if found is None else found.reshape(-1)
    return None if given is None else [int(n) for n in given]


def same_shape(a: ir.Value, b: ir.Value) -> bool:
    """Tells whether two values are known to have one shape."""
    first, second = shape_of(a), shape_of(b)
    return first is not None and first == second and None not in first


def broadcast(*shapes: Sequence[Dim] | None) -> tuple[Dim, ...] | None:
    """Returns what is known of the shape that `shapes` broadcast to, numpy style."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(map(len, known), default=0)
    aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in known]
    return tuple(_broadcast_dim(dims) for dims in zip(*aligned, strict=True))


def _broadcast_dim(dims: Sequence[Dim]) -> Dim:
    """Returns the size that sizes of one axis broadcast to, None where that is open."""
    numbers = [d for d in dims if isinstance(d, int) and d != 1]
    if numbers:
        return numbers[0]
    names = {d for d in dims if d != 1}
    return names.pop() if len(names) == 1 else None if names else 1


def new_initializer(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Registers an array as a constant of a graph; another initializer keeps its name.

    A value that a node makes may have the name as well: `passes.tidy.make_names_unique` sees to it.
    """
    while name in graph.initializers:
        name += "/again"
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def _names_in(graph: ir.Graph) -> set[str]:
    """Returns the names of all values and nodes of a graph and of the graphs within it."""
    values: list[ir.Value] = [*graph.inputs, *graph.initializers.values()]
    names: list[str | None] = []
    for node in graph.all_nodes():
        names.append(node.name)
        values.extend(node.outputs)
        for inner in subgraphs_of(node):
            values.extend((*inner.inputs, *inner.initializers.values()))
    return {name for name in (*names, *(v.name for v in values)) if name}


def subgraphs_of(node: ir.Node) -> Iterable[ir.Graph]:
    """Yields the graphs a node holds as attributes (the branches of an If, a Loop's body)."""
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()
