"""The Gaussian error linear unit, x * P(x), as one composite operator.

Keras has x / 2 * erfc(-x / sqrt(2)), which comes as six operators, each of which passes over the
whole tensor; the gradient of each alone makes twelve more. As one operator it takes four and six.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN, GELU, GELU_C, GELU_CUBIC
from probegen.graph.core.queries import operands
from probegen.graph.core.values import constant_of, shape_of

_ROOT_HALF = math.sqrt(0.5)


def join_gelu(model: ir.Model) -> None:
    """Joins every x * (1 + erf(x / sqrt(2))) / 2, and its tanh form, into a composite operator.

    `Mul(Mul(0.5, x), Add(1, Erf(Mul(x, 0.7071))))` -> `probegen.composite.Gelu(x)`

    Needs: ranks of x and of the result.
    Leaves: pieces that nothing reads. `write_gelu` writes the operator out again.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type not in ("Mul", "Div") or node.domain:
            continue
        match = _match(node.outputs[0])
        if match is not None:
            _become_gelu(node, *match)
            graph.opset_imports[COMPOSITE_DOMAIN] = 1


def _become_gelu(node: ir.Node, x: ir.Value, approximate: str) -> None:
    """Makes the operator of the last piece, whose output others may know."""
    node.op_type, node.domain = GELU, COMPOSITE_DOMAIN
    node.resize_inputs(1)
    node.replace_input_with(0, x)
    node.attributes["approximate"] = ir.AttrString("approximate", approximate)


def _match(y: ir.Value) -> tuple[ir.Value, str] | None:
    """Returns x and the kind of approximation where y is a Gaussian error linear unit of x."""
    for product, outer in _multiples(y):
        for one, other in operands(product, "Mul"):
            for total, gain in _multiples(other):
                match = _match_one_plus_odd(total)
                if match is None:
                    continue
                argument, sign, approximate = match
                for x, factor in _multiples(one):
                    half = _near(outer * gain * factor, 0.5, x)
                    if half and _is_argument(argument, sign, x, approximate) and _same_rank(x, y):
                        return x, approximate
    return None


def _match_one_plus_odd(total: ir.Value) -> tuple[ir.Value, float, str] | None:
    """Matches 1 + f(u) or 1 - f(u), f odd; returns u, the sign, and what f stands for."""
    for op_type, sign in (("Add", 1.0), ("Sub", -1.0)):
        for one, curve in operands(total, op_type, both=op_type == "Add"):
            node = curve.producer()
            kind = {"Erf": "none", "Tanh": "tanh"}.get("" if node is None else node.op_type)
            if node is not None and kind is not None and not node.domain and _number(one) == 1:
                argument = node.inputs[0]
                return None if argument is None else (argument, sign, kind)
    return None


def _is_argument(u: ir.Value, sign: float, x: ir.Value, approximate: str) -> bool:
    """Tells whether u is x / sqrt(2), or what the approximation has in its place."""
    if approximate == "none":
        return any(v is x and _near(sign * f, _ROOT_HALF, x) for v, f in _multiples(u))
    return any(
        first is x
        and any(_is_cube(v, x) and _near(f, GELU_CUBIC, x) for v, f in _multiples(second))
        for total, factor in _multiples(u)
        if _near(sign * factor, GELU_C, x)
        for first, second in operands(total, "Add")
    )


def _is_cube(value: ir.Value, x: ir.Value) -> bool:
    powers = operands(value, "Pow", both=False)
    return any(base is x and _number(exponent) == 3 for base, exponent in powers) or any(
        one is x and all(v is x for v in square)
        for one, product in operands(value, "Mul")
        for square in operands(product, "Mul", both=False)
    )


def _multiples(value: ir.Value) -> Iterator[tuple[ir.Value, float]]:
    """Yields v and f with value = f * v: the value itself, what it is a multiple of, and so on."""
    at: ir.Value | None = value
    factor = 1.0
    while at is not None:
        yield at, factor
        node, at = at.producer(), None
        if node is None or node.domain:
            return
        if node.op_type == "Neg":
            at, factor = node.inputs[0], -factor
        elif node.op_type == "Div" and (number := _number(node.inputs[1])):
            at, factor = node.inputs[0], factor / number
        elif node.op_type == "Mul":
            for position in (0, 1):
                number = _number(node.inputs[position])
                if number is not None:
                    at, factor = node.inputs[1 - position], factor * number


def _number(value: ir.Value | None) -> float | None:
    """Returns a constant of one element, of at most one axis."""
    array = constant_of(value)
    return None if array is None or array.size != 1 or array.ndim > 1 else float(array.reshape(()))


def _same_rank(x: ir.Value, y: ir.Value) -> bool:
    """Tells whether no constant on the way has given x an axis that it had not."""
    before, after = shape_of(x), shape_of(y)
    return before is not None and after is not None and len(before) == len(after)


def _near(a: float, b: float, x: ir.Value) -> bool:
    """Tells whether two numbers are one in computations with x.

    TensorFlow has the coefficient of the cube in 32 bits whatever x has: in 64 bits another number.
    """
    return math.isclose(a, b, rel_tol=1e-14 if x.dtype == ir.DataType.DOUBLE else 1e-6)
