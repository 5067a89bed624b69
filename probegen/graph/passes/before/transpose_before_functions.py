"""Transposes inside of a function of one tensor, as one in front of it, or none.

tf2onnx lets a Transpose sink through the nodes behind it, as far as it gets: of a PReLU with a
slope for each position behind a convolution, to the product with the slope in one branch, and past
the ReLU in the other. What the pieces compute together is then told by nobody, where methods ask
which functions are rectifiers. Where an axis has one element, it makes Reshapes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.elementwise import COMPUTED
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import key_of, varying_inputs
from probegen.graph.core.values import attribute, constant_of, new_initializer, shape_of

#: How many nodes a function may be spelled in, Transposes among them.
_MOST_NODES = 256

_Order = tuple[int, ...]


def transpose_before_functions(model: ir.Model) -> None:
    """Exchanges the Transposes in the branches of a function of one tensor with the function.

    `Add(Transpose(Relu(x)), Mul(Transpose(Neg(x)), a))` ->
    `y = Transpose(x); Add(Relu(y), Mul(Neg(y), a))`

    Needs: topological order, shapes inferred.
    Leaves: the old nodes, which nothing need read any more; branches that are turned differently.
    """
    graphs = {n.graph for n in model.graph.all_nodes() if _turn(n) is not None}
    for graph in graphs:
        if not isinstance(graph, ir.Graph):
            continue
        place = {node: float(i) for i, node in enumerate(graph)}
        for node in list(place):
            function = _function_to(node, place) if len({*varying_inputs(node)}) > 1 else None
            if function is not None:
                written = _write(node, graph, *function)
                # Each has a place of its own, or what reads several is walked into more than once.
                place |= {
                    new: place[node] - 1 + (i + 1) / (len(written) + 1)
                    for i, new in enumerate(written)
                }


def _function_to(
    last: ir.Node, place: Mapping[ir.Node, float]
) -> tuple[ir.Value, list[ir.Node], dict[ir.Value, _Order]] | None:
    """Returns the function of one tensor that a node ends, where something in it is turned.

    Args:
        last: the node.
        place: in the order of which the nodes of the graph stand.

    Returns:
        The tensor; the nodes behind it but for `last`, in order; and by which order of axes each
        tensor is turned into the layout of the result. None where there is no such function, or
        nothing to be done.
    """
    shape = shape_of(last.outputs[0])
    if key_of(last) not in COMPUTED or shape is None:
        return None
    plain = tuple(range(len(shape)))
    orders = dict.fromkeys(varying_inputs(last), plain)
    open_ends, nodes = set(orders), list[ir.Node]()
    while len(open_ends) > 1:
        end = max(open_ends, key=lambda v: place.get(v.producer(), -1))  # type: ignore[arg-type]
        maker = end.producer()
        if maker is None or maker not in place or len(nodes) > _MOST_NODES:
            return None
        order = orders[end]
        if (turn := _turn(maker)) is not None:
            order = tuple(turn[i] for i in order)
        elif key_of(maker) not in COMPUTED or end is not maker.outputs[0]:
            return None
        for value in varying_inputs(maker):
            if orders.setdefault(value, order) != order:
                return None
            open_ends.add(value)
        open_ends.remove(end)
        nodes.append(maker)
    (entry,) = open_ends
    is_marked = any(n.domain == MARK_DOMAIN and orders[n.outputs[0]] != plain for n in nodes)
    is_turned = any(_turn(n) is not None for n in nodes)
    if not is_turned or is_marked or not _fit(orders, shape):
        return None
    return entry, nodes[::-1], orders


def _turn(node: ir.Node) -> _Order | None:
    """Returns the order into which a node brings axes; None for what does anything else.

    A Reshape does that which moves axes of one element past others.
    """
    if key_of(node) not in ("Transpose", "Reshape") or node.inputs[0] is None:
        return None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if key_of(node) == "Transpose":
        perm = attribute(node, "perm", None if before is None else range(len(before))[::-1])
        return None if perm is None else tuple(perm)
    if before is None or after is None or len(before) != len(after) or before == after:
        return None
    wide = [i for i, n in enumerate(before) if n != 1]
    if None in before or [before[i] for i in wide] != [n for n in after if n != 1]:
        return None
    left, ones = iter(wide), (i for i, n in enumerate(before) if n == 1)
    return tuple(next(ones if n == 1 else left) for n in after)


def _fit(orders: Mapping[ir.Value, _Order], shape: Sequence[object]) -> bool:
    """Tells whether all tensors have one shape, so that nothing is broadcast."""
    for value, order in orders.items():
        own = shape_of(value)
        if own is None or len(own) != len(shape) or [own[i] for i in order] != list(shape):
            return False
    return True


def _write(
    last: ir.Node,
    graph: ir.Graph,
    entry: ir.Value,
    nodes: Sequence[ir.Node],
    orders: Mapping[ir.Value, _Order],
) -> list[ir.Node]:
    """Writes the function anew in the layout of its result; returns the new nodes."""
    result = last.outputs[0]
    turned: dict[ir.Value | None, ir.Value] = {entry: entry}
    written: list[ir.Node] = []

    def write(old: ir.Value, key: str, inputs: Sequence[ir.Value | None], given: Any) -> None:
        domain, _, op_type = key.rpartition("::")
        name = f"{old.name}/transposed"
        node = ir.node(op_type, inputs, given, domain=domain, name=name)
        new = turned[old] = node.outputs[0]
        new.name, new.type, new.shape = name, old.type, result.shape
        written.append(node)

    if not _is_plain(orders[entry]):
        write(entry, "Transpose", [entry], {"perm": list(orders[entry])})
    for node in nodes:
        made = node.outputs[0]
        if _turn(node) is not None:
            turned[made] = turned[node.inputs[0]]
            continue
        inputs = [turned.get(v) or _constant(graph, v, orders[made]) for v in node.inputs]
        if _is_plain(orders[made]) and inputs == list(node.inputs):
            turned[made] = made
        else:
            write(made, key_of(node), inputs, dict(node.attributes))
    graph.insert_before(last, written)
    for position, value in enumerate(last.inputs):
        if value in turned:
            last.replace_input_with(position, turned[value])
    return written


def _constant(graph: ir.Graph, value: ir.Value | None, order: _Order) -> ir.Value | None:
    """Returns a constant in another layout."""
    array = constant_of(value)
    if value is None or array is None or array.ndim == 0 or _is_plain(order):
        return value
    whole = array.reshape([1] * (len(order) - array.ndim) + list(array.shape))
    turned = np.ascontiguousarray(whole.transpose(order))
    return new_initializer(graph, f"{value.name}/transposed", turned)


def _is_plain(order: _Order) -> bool:
    return order == tuple(sorted(order))
