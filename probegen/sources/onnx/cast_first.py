"""Casts inputs of whole numbers before columns of them are taken, so that all are explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import onnx_ir as ir

from probegen.graph.core.queries import is_float
from probegen.graph.core.values import constant_of, dtype_of
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of

#: Operators that take some of the numbers of their first operand as they are.
_SELECTING = frozenset({"Slice", "Split", "Gather"})
#: Operators that bring all of them into another shape or order.
_TURNING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})


def cast_inputs_first(graph: ir.Graph, names: AllNames) -> None:
    """Lets floating numbers be made of a whole input where they are made of some of its columns.

    `Cast(Slice(x))` -> `Slice(Cast(x))`

    What stands for an input of whole numbers are their casts: that of columns alone would explain
    these alone, under the name of the input. A cast stays, of what is floating already.

    Leaves: an input of which all is cast, and casts of what is more than numbers moved.
    """
    for given in graph.inputs:
        if given.dtype is None or not given.dtype.is_integer():
            continue
        casts = list(_casts_of(graph, given))
        if not any(node.op_type in _SELECTING for cast in casts for node in _way_to(cast, given)):
            continue
        made = {dtype_of(cast.outputs[0]) for cast in casts}
        wide = _widest(made)
        floating = {given: _cast(graph, given, wide, names)}
        for cast in casts:
            for node in _way_to(cast, given):
                if node.outputs[0] not in floating:
                    _move(node, floating, wide, names)
            cast.replace_input_with(0, floating[_read(cast)])


def _widest(types: Set[ir.DataType]) -> ir.DataType:
    """Returns a type that holds what all of some floating ones do."""
    if ir.DataType.DOUBLE in types or len(types) == 1:
        return max(types, key=lambda dtype: dtype is ir.DataType.DOUBLE)
    return ir.DataType.FLOAT


def _casts_of(graph: ir.Graph, given: ir.Value) -> Iterator[ir.Node]:
    """Yields the nodes that make floating numbers of those of an input, which were only moved."""
    moved = {given}
    for node in graph:
        if not node.inputs or node.inputs[0] not in moved or node.domain:
            continue
        if node.op_type == "Cast" and is_float(node.outputs[0]):
            yield node
        fixed = node.op_type != "Gather" or constant_of(node.inputs[1]) is not None
        if node.op_type in _TURNING | _SELECTING and fixed:
            moved.update(node.outputs)


def _way_to(cast: ir.Node, given: ir.Value) -> list[ir.Node]:
    """Returns the nodes between an input and a cast of what they make of it, the first first."""
    way: list[ir.Node] = []
    value = _read(cast)
    while value is not given:
        node = value.producer()
        assert node is not None
        way.insert(0, node)
        value = _read(node)
    return way


def _read(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _cast(graph: ir.Graph, given: ir.Value, wide: ir.DataType, names: AllNames) -> ir.Value:
    """Writes the cast of a whole input in front of all nodes; returns its result."""
    attributes = [ir.AttrInt64("to", int(wide))]
    node = ir.Node("", "Cast", [given], attributes, num_outputs=1)
    _name(node, f"{given.name}/floating", [given], wide, names)
    node.meta[ORIGIN] = (str(node.name),)
    first = next(iter(graph))
    graph.insert_before(first, node)
    return node.outputs[0]


def _move(
    node: ir.Node, floating: dict[ir.Value, ir.Value], wide: ir.DataType, names: AllNames
) -> None:
    """Writes a node once more, on floating numbers."""
    operands = [floating[_read(node)], *node.inputs[1:]]
    copy = ir.Node(
        "", node.op_type, operands, node.attributes.values(), num_outputs=len(node.outputs)
    )
    _name(copy, f"{node.name}/floating", node.outputs, wide, names)
    copy.meta[ORIGIN] = origin_of(node)
    assert node.graph is not None
    node.graph.insert_before(node, copy)
    floating.update(zip(node.outputs, copy.outputs, strict=True))


def _name(
    node: ir.Node,
    wanted: str,
    like: Sequence[ir.Value],
    wide: ir.DataType,
    names: AllNames,
) -> None:
    """Gives a node and what it makes names of their own, and what is known of other values."""
    node.name = names.nodes.unique(wanted)
    for value, known in zip(node.outputs, like, strict=True):
        value.name = names.values.unique(f"{known.name}/floating")
        value.shape, value.type = known.shape, ir.TensorType(wide)
