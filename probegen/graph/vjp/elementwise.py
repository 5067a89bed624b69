"""Rules of arithmetic and of functions taken element by element.

`x` is a node's input, `y` its output, `g` the gradient of `y`. A rule uses `y` where the
derivative is cheaper from it. At ties and at bounds, where there is no derivative, the choice
is TensorFlow's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule
from probegen.graph.builder import Builder, constant_of, dtype_of, shape_of
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    Wanted,
    given,
    inputs,
    optional,
    single,
    unary,
)
from probegen.graph.vjp.masks import above, below

# -- arithmetic ----------------------------------------------------------------------------


def add(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Add and Sum: each input gets g, summed over what was broadcast."""
    g = given(dy)
    for x in inputs(node):
        if x in wanted:
            yield x, b.unbroadcast(g, x)


def sub(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Sub: g to the first input, -g to the second."""
    g, (x1, x2) = given(dy), inputs(node)
    if x1 in wanted:
        yield x1, b.unbroadcast(g, x1)
    if x2 in wanted:
        yield x2, b.neg(b.unbroadcast(g, x2))


def mul(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Mul: g times the other input."""
    g, (x1, x2) = given(dy), inputs(node)
    if x1 is x2:
        half = b.mul(g, x1)
        yield x1, b.add(half, half)
        return
    for x, other in ((x1, x2), (x2, x1)):
        if x in wanted:
            yield x, b.unbroadcast(b.mul(g, other), x)


def div(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Div: g / x2 to the first input, -g / x2 * y to the second."""
    g, (x1, x2) = given(dy), inputs(node)
    quotient = b.div(g, x2)
    if x1 in wanted:
        yield x1, b.unbroadcast(quotient, x1)
    if x2 in wanted:
        yield x2, b.neg(b.unbroadcast(b.mul(quotient, node.outputs[0]), x2))


def fmod(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Mod: g to the first input, -g * trunc(x1 / x2) to the second."""
    g, (x1, x2) = given(dy), inputs(node)
    if x1 in wanted:
        yield x1, b.unbroadcast(g, x1)
    if x2 in wanted:
        # y - x1 is a whole multiple of x2, but for rounding.
        times = b.elementwise("Round", b.div(b.sub(node.outputs[0], x1), x2))
        yield x2, b.unbroadcast(b.mul(g, times), x2)


def power(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Pow: g * n * x**(n - 1) to the base x, g * y * log(x) to the exponent n.

    The second is 0 where x <= 0, as in TensorFlow. A constant exponent of 0, 1, 2, 3, -1 or
    1/2 gets products in place of a power.
    """
    g, (x, n), y = given(dy), inputs(node), node.outputs[0]
    if x in wanted:
        constant = single(n)
        if constant is not None:
            through = _through_power(b, x, y, constant)(g)
        else:
            exponent = b.cast(n, dtype_of(x))
            lowered = b.elementwise("Pow", x, b.sub(exponent, 1.0))
            through = b.mul(g, b.mul(exponent, lowered))
        yield x, b.unbroadcast(through, x)
    if n in wanted:
        positive = b.elementwise("Greater", x, 0.0)
        log_x = b.elementwise("Log", b.where(positive, x, 1.0))
        to_n = b.unbroadcast(b.mul(b.mul(g, y), log_x), n)
        yield n, b.cast(to_n, dtype_of(n))


def _through_power(
    b: Builder, x: ir.Value, y: ir.Value, n: float
) -> Callable[[ir.Value], ir.Value]:
    """Returns the function g -> g * n * x**(n - 1)."""
    special: dict[float, Callable[[ir.Value], ir.Value]] = {
        0.0: b.zeros_like,
        1.0: lambda g: g,
        2.0: lambda g: b.mul(g, b.add(x, x)),
        3.0: lambda g: b.mul(g, b.mul(b.mul(x, x), 3.0)),
        -1.0: lambda g: b.mul(g, b.neg(b.mul(y, y))),
        0.5: lambda g: b.div(b.mul(g, 0.5), y),
    }
    return special.get(n, lambda g: b.mul(g, b.mul(b.elementwise("Pow", x, n - 1), n)))


def mean(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Mean of several inputs: each gets g over their number."""
    share = b.mul(given(dy), 1.0 / len(node.inputs))
    for x in inputs(node):
        if x in wanted:
            yield x, b.unbroadcast(share, x)


# -- choices -------------------------------------------------------------------------------


def extremum(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Max and Min of any number of inputs: g goes to the one that was chosen.

    At a tie the first of them gets it all, as in TensorFlow's `maximum(x, y)`, which asks
    x >= y. Several inputs are taken pair by pair from the left.
    """
    g, op, reads = given(dy), node.op_type, inputs(node)
    so_far = [reads[0]]
    for x in reads[1:-1]:
        so_far.append(b.elementwise(op, so_far[-1], x))
    for position in reversed(range(1, len(reads))):
        left, right = so_far[position - 1], reads[position]
        if not any(x in wanted for x in reads[:position]):
            yield right, b.unbroadcast(b.mul(g, _chosen(b, op, right, left, tie=False)), right)
            return
        to_left = b.mul(g, _chosen(b, op, left, right, tie=True))
        if right in wanted:
            yield right, b.unbroadcast(b.sub(g, to_left), right)
        g = b.unbroadcast(to_left, left)
    if reads[0] in wanted:
        yield reads[0], g


def _chosen(b: Builder, op: str, x: ir.Value, other: ir.Value, *, tie: bool) -> ir.Value:
    """Returns 1 where Max or Min takes `x` and not `other`, else 0; `tie` is the answer there."""
    bound = single(other)
    if bound is not None and len(other.shape or ()) <= len(x.shape or ()):
        return (above if op == "Max" else below)(b, x, bound, inclusive=tie)
    comparison = ("Greater" if op == "Max" else "Less") + ("OrEqual" if tie else "")
    return b.cast(b.elementwise(comparison, x, other), dtype_of(x))


def clip(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Clip: g where x lies within the bounds; a bound gets g where it replaced x.

    TensorFlow has two answers for an x on a bound, and so has this rule: nothing passes in
    `relu6`, which arrives as a Clip to [0, 6], and all of it in `clip_by_value`, which is any
    other.
    """
    g, x = given(dy), inputs(node)[0]
    low, high = optional(node, 1), optional(node, 2)
    if x in wanted:
        relu6 = (single(low), single(high)) == (0.0, 6.0)
        # The output tells as much there, and spares a runtime to keep the input.
        seen = node.outputs[0] if relu6 else x
        inside = g
        if low is not None:
            inside = b.mul(inside, _on_side(b, "Greater", seen, low, inclusive=not relu6))
        if high is not None:
            inside = b.mul(inside, _on_side(b, "Less", seen, high, inclusive=not relu6))
        yield x, inside
    for bound, side in ((low, "Less"), (high, "Greater")):
        if bound is not None and bound in wanted:
            replaced = b.mul(g, _on_side(b, side, x, bound, inclusive=False))
            yield bound, b.unbroadcast(replaced, bound)


def _on_side(b: Builder, side: str, x: ir.Value, bound: ir.Value, *, inclusive: bool) -> ir.Value:
    """Returns 1 where x is `Greater` or `Less` than a scalar bound, else 0."""
    number = single(bound)
    if number is not None:
        return (above if side == "Greater" else below)(b, x, number, inclusive=inclusive)
    comparison = side + ("OrEqual" if inclusive else "")
    return b.cast(b.elementwise(comparison, x, bound), dtype_of(x))


def where(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Where: g to the branch that was chosen, 0 to the other.

    A mask that is broadcast, as attention has it, multiplies: onnxruntime's Where takes seven
    times longer there. A mask of full size selects, so that an infinite gradient (that of a
    root at 0, say) stays out of the places not chosen.
    """
    g, (condition, chosen, other) = given(dy), inputs(node)
    selects = shape_of(condition) == shape_of(g)
    if chosen in wanted:
        kept = b.where(condition, g, 0.0) if selects else b.mul(g, b.cast(condition, dtype_of(g)))
        yield chosen, b.unbroadcast(kept, chosen)
    if other in wanted:
        if selects:
            kept = b.where(condition, 0.0, g)
        else:
            kept = b.mul(g, b.cast(b.elementwise("Not", condition), dtype_of(g)))
        yield other, b.unbroadcast(kept, other)


# -- functions of one input ----------------------------------------------------------------


def dropout(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:  # noqa: ARG001
    """Dropout in inference: it passes its input on, and so does the gradient."""
    training = optional(node, 2)
    if training is not None:
        mode = constant_of(training)
        if mode is None or mode.any():
            raise Refused("it may run in training mode, where it is random")
    x = inputs(node)[0]
    if x in wanted:
        yield x, given(dy)


def _one_minus_square(v: Local) -> ir.Value:
    return v.b.sub(1.0, v.b.mul(v.x, v.x))


def _one_plus_square(v: Local) -> ir.Value:
    return v.b.add(v.b.mul(v.x, v.x), 1.0)


def _square_minus_one(v: Local) -> ir.Value:
    return v.b.sub(v.b.mul(v.x, v.x), 1.0)


def _over_root(v: Local, squared: ir.Value) -> ir.Value:
    return v.b.div(v.g, v.b.elementwise("Sqrt", squared))


def _times(v: Local, function: str) -> ir.Value:
    return v.b.mul(v.g, v.b.elementwise(function, v.x))


def _erf(v: Local) -> ir.Value:
    bell = v.b.elementwise("Exp", v.b.neg(v.b.mul(v.x, v.x)))
    return v.b.mul(v.g, v.b.mul(bell, 2 / math.sqrt(math.pi)))


def _shrink(v: Local) -> ir.Value:
    bound = v.number("lambd", 0.5)
    kept = v.b.add(below(v.b, v.x, -bound), above(v.b, v.x, bound))
    return v.b.mul(v.g, kept)


RULES: Mapping[str, Rule] = {
    # arithmetic
    "Add": add,
    "Sub": sub,
    "Mul": mul,
    "Div": div,
    "Mod": fmod,
    "Pow": power,
    "Sum": add,
    "Mean": mean,
    "Neg": unary(lambda v: v.b.neg(v.g)),
    "Reciprocal": unary(lambda v: v.b.mul(v.g, v.b.neg(v.b.mul(v.y, v.y)))),
    # choices
    "Max": extremum,
    "Min": extremum,
    "Clip": clip,
    "Where": where,
    "Abs": unary(lambda v: _times(v, "Sign")),
    "Shrink": unary(_shrink),
    # the same values in another guise
    "Identity": unary(lambda v: v.g),
    "Cast": unary(lambda v: v.b.cast(v.g, dtype_of(v.x))),
    "CastLike": unary(lambda v: v.b.cast(v.g, dtype_of(v.x))),
    "Dropout": dropout,
    # functions
    "Sqrt": unary(lambda v: v.b.div(v.b.mul(v.g, 0.5), v.y)),
    "Exp": unary(lambda v: v.b.mul(v.g, v.y)),
    "Log": unary(lambda v: v.b.div(v.g, v.x)),
    "Erf": unary(_erf),
    "Sin": unary(lambda v: _times(v, "Cos")),
    "Cos": unary(lambda v: v.b.neg(_times(v, "Sin"))),
    "Tan": unary(lambda v: v.b.mul(v.g, v.b.add(v.b.mul(v.y, v.y), 1.0))),
    "Asin": unary(lambda v: _over_root(v, _one_minus_square(v))),
    "Acos": unary(lambda v: v.b.neg(_over_root(v, _one_minus_square(v)))),
    "Atan": unary(lambda v: v.b.div(v.g, _one_plus_square(v))),
    "Sinh": unary(lambda v: _times(v, "Cosh")),
    "Cosh": unary(lambda v: _times(v, "Sinh")),
    "Asinh": unary(lambda v: _over_root(v, _one_plus_square(v))),
    "Acosh": unary(lambda v: _over_root(v, _square_minus_one(v))),
    "Atanh": unary(lambda v: v.b.div(v.g, _one_minus_square(v))),
}
