"""Merges products in the body of a gradient's loop.

A gradient is linear in what it carries: a step scales it by factors that are known for all
steps beforehand, adds and joins. Factors that follow each other are multiplied for all steps
at once, factors of one value whose products are added are added, and those whose products are
joined are joined. What remains is one product where there were several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence

import onnx_ir as ir

from probegen.graph.core.values import attribute, same_shape

#: Writes an operator over values that do not depend on what is carried: (operator, operands, axis
#: where it has one). None where that cannot be done for all steps at once.
WriteOutside = Callable[[str, Sequence[ir.Value], int | None], ir.Value | None]


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """A node that gives `value` times a factor; None stands for the factor -1."""

    value: ir.Value
    factor: ir.Value | None


def merge_products(
    nodes: Sequence[ir.Node],
    results: Container[ir.Value],
    dependent: Container[ir.Value],
    write_outside: WriteOutside,
) -> None:
    """Merges products of the body, in place.

    Args:
        nodes: the body, in topological order. Products that are merged into others stay in
            it, unread.
        results: values of the body that are read from outside; they are kept.
        dependent: values that depend on what is carried.
        write_outside: writes an operator over values that do not.
    """
    for node in nodes:
        merged = _chained(node, results, dependent, write_outside) or _summed(
            node, results, dependent, write_outside
        )
        while merged is not None:
            _become_product(node, merged)
            merged = _chained(node, results, dependent, write_outside)
        _join(nodes, node, results, dependent, write_outside)


def _chained(
    node: ir.Node,
    results: Container[ir.Value],
    dependent: Container[ir.Value],
    write_outside: WriteOutside,
) -> _Scaling | None:
    """Returns what a product of a product that nothing else needs comes to."""
    outer = _scaling(node, dependent)
    inner = None if outer is None else _scaling(outer.value.producer(), dependent)
    if outer is None or inner is None or not _all_scale(outer.value, results, dependent):
        return None
    factors = [f for f in (inner.factor, outer.factor) if f is not None]
    if len(factors) == 2:
        factor = write_outside("Mul", factors, None)
    else:
        factor = write_outside("Neg", factors, None) if factors else None
    return None if factor is None else _Scaling(inner.value, factor)


def _summed(
    node: ir.Node,
    results: Container[ir.Value],
    dependent: Container[ir.Value],
    write_outside: WriteOutside,
) -> _Scaling | None:
    """Returns what a sum of two products of one value comes to."""
    if node.op_type not in ("Add", "Sub") or node.domain:
        return None
    scalings = _products(node, results, dependent)
    if scalings is None:
        return None
    one, other = scalings
    if one.value is not other.value or one.factor is None or other.factor is None:
        return None
    factor = write_outside(node.op_type, [one.factor, other.factor], None)
    return None if factor is None else _Scaling(one.value, factor)


def _join(
    nodes: Sequence[ir.Node],
    node: ir.Node,
    results: Container[ir.Value],
    dependent: Container[ir.Value],
    write_outside: WriteOutside,
) -> None:
    """Makes of a Concat of products the product of what they scale, joined.

    The last of the products becomes the Concat, and the Concat the product.
    """
    if node.op_type != "Concat" or node.domain or len(node.inputs) < 2:
        return
    scalings = _products(node, results, dependent)
    if scalings is None or not all(map(_keeps_its_shape, scalings)):
        return
    axis = attribute(node, "axis")
    joined = write_outside("Concat", [s.factor for s in scalings if s.factor is not None], axis)
    if joined is None:
        return
    products = [v.producer() for v in node.inputs if v is not None]
    last = next(n for n in reversed(nodes) if n in products)
    last.op_type = "Concat"
    last.attributes["axis"] = ir.AttrInt64("axis", axis)
    last.resize_inputs(len(scalings))
    for position, scaling in enumerate(scalings):
        last.replace_input_with(position, scaling.value)
    last.outputs[0].shape = node.outputs[0].shape
    node.attributes.pop("axis")
    _become_product(node, _Scaling(last.outputs[0], joined))


def _keeps_its_shape(scaling: _Scaling) -> bool:
    """Tells whether a factor is known to broadcast nothing, in either direction."""
    return scaling.factor is not None and same_shape(scaling.value, scaling.factor)


def _products(
    node: ir.Node, results: Container[ir.Value], dependent: Container[ir.Value]
) -> list[_Scaling] | None:
    """Returns what a node reads where all of it is products that nothing else needs."""
    read = [v for v in node.inputs if v is not None]
    if any(len(v.uses()) > 1 or v in results for v in read):
        return None
    scalings = [s for v in read if (s := _scaling(v.producer(), dependent)) is not None]
    return scalings if len(scalings) == len(read) else None


def _scaling(node: ir.Node | None, dependent: Container[ir.Value]) -> _Scaling | None:
    if node is None or node.domain or not any(v in dependent for v in node.outputs):
        return None
    read = [v for v in node.inputs if v is not None]
    if node.op_type == "Neg":
        return _Scaling(read[0], None)
    if node.op_type == "Mul" and (read[0] in dependent) != (read[1] in dependent):
        value, factor = read if read[0] in dependent else reversed(read)
        return _Scaling(value, factor)
    return None


def _all_scale(
    value: ir.Value, results: Container[ir.Value], dependent: Container[ir.Value]
) -> bool:
    """Tells whether only products read a value, so that it need not be made."""
    readers = [use.node for use in value.uses()]
    return value not in results and all(_scaling(n, dependent) is not None for n in readers)


def _become_product(node: ir.Node, scaling: _Scaling) -> None:
    node.op_type = "Mul"
    node.resize_inputs(2)
    node.replace_input_with(0, scaling.value)
    node.replace_input_with(1, scaling.factor)
