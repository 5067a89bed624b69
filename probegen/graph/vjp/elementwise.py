"""Rules of arithmetic and of functions taken element by element.

`x` is a node's input, `y` its output, `g` the gradient of `y`. A rule uses `y` where the
derivative is cheaper from it. At ties and at bounds, where there is no derivative, the choice
is TensorFlow's. Where a slope is infinite, or no number, `edges` says what the gradient is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.values import (
    Dim,
    attribute,
    broadcast,
    constant_of,
    dims_of,
    dtype_of,
    rank_of,
    shape_of,
)
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    axis_of,
    given,
    inputs,
    optional,
    pointwise,
    single,
    unary,
)
from probegen.graph.vjp.decomposition import decomposed
from probegen.graph.vjp.edges import (
    bounds,
    has_steep_power,
    may_not_be_finite,
    never_near_zero,
    never_overflows,
    product,
    within,
    zero_where,
)
from probegen.graph.vjp.masks import above, below

# -- broadcasting --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Broadcast:
    """The gradient of an operator that broadcasts its inputs, on its way back to them.

    Attributes:
        walk: the walk in progress.
        g: the gradient of the output.
        shape: the shape of the output, as far as the output and its inputs tell.
        unbounded: whether `g` may be infinite.
    """

    walk: Walk
    g: ir.Value
    shape: tuple[Dim, ...] | None
    unbounded: bool

    @classmethod
    def of(cls, walk: Walk, node: ir.Node, dy: Dys) -> _Broadcast:
        g = given(dy)
        by_inputs = broadcast(*(shape_of(x) for x in inputs(node)))
        return cls(walk, g, _better(by_inputs, shape_of(g)), walk.is_unbounded(g))

    def times(self, factor: ir.Value) -> ir.Value:
        """Multiplies by a slope; 0 where one of the two is 0 and the other not finite."""
        return product(self.walk, self.g, factor, unbounded=self.unbounded, shape=self.shape)

    def apply(self, op_type: str, *operands: ir.Value | float) -> ir.Value:
        """Writes an operator whose result has the shape of the output."""
        return self.walk.builder.elementwise(op_type, *operands, shape=self.shape)

    def back(self, gradient: ir.Value, x: ir.Value) -> ir.Value:
        """Sums a gradient of the output's shape down to that of one input."""
        return self.walk.builder.unbroadcast(gradient, x, self.shape)


def _better(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """Returns what two descriptions of one shape tell together; names of the first prevail."""
    if a is None or b is None:
        return a if b is None else b
    return tuple(
        second if first is None or isinstance(second, int) else first
        for first, second in zip(a, b, strict=True)
    )


# -- arithmetic ----------------------------------------------------------------------------


def add(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Add and Sum: each input gets g, summed over what was broadcast."""
    way = _Broadcast.of(walk, node, dy)
    for x in inputs(node):
        if x in walk.wanted:
            yield x, way.back(way.g, x)


def sub(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Sub: g to the first input, -g to the second."""
    b = walk.builder
    way, (x1, x2) = _Broadcast.of(walk, node, dy), inputs(node)
    if x1 in walk.wanted:
        yield x1, way.back(way.g, x1)
    if x2 in walk.wanted:
        yield x2, b.neg(way.back(way.g, x2))


def mul(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Mul: g times the other input; x * sigmoid(x), the swish, is taken in one step."""
    b = walk.builder
    way, (x1, x2) = _Broadcast.of(walk, node, dy), inputs(node)
    for x, gate in ((x1, x2), (x2, x1)):
        if x in walk.wanted and _is_gate_of(walk, gate, x):
            yield x, _through_swish(way, gate, node.outputs[0])
            return
    if x1 is x2:
        half = way.times(x1)
        yield x1, b.add(half, half)
        return
    for x, other in ((x1, x2), (x2, x1)):
        if x in walk.wanted:
            gradient = way.back(way.times(other), x)
            if may_not_be_finite(other):
                walk.mark_unbounded(gradient)
            yield x, gradient


def _is_gate_of(walk: Walk, gate: ir.Value, x: ir.Value) -> bool:
    """Tells whether `gate` is the sigmoid of `x` and nothing that a gradient is asked for at."""
    made_by = gate.producer()
    return (
        made_by is not None
        and not made_by.domain
        and made_by.op_type == "Sigmoid"
        and made_by.inputs[0] is x
        and gate not in walk.asked_for
    )


def _through_swish(way: _Broadcast, gate: ir.Value, y: ir.Value) -> ir.Value:
    """Returns g * (s + y * (1 - s)), s the sigmoid of x and y = x * s.

    Where x is so large that s is 1, y counts exactly 0 times; s * (1 + x - y), which is the same,
    would have lost the 1 there. All of it is done where images stay in blocks of channels.

    The slope is exact to 3e-6, as onnxruntime's sigmoid is to 2e-7: to a hundredth of itself at
    -12, to none of its digits from -16 on, where it is below 2e-6.
    """
    bend = way.apply("Mul", way.apply("Sub", 1.0, gate), y)
    slope = way.apply("Add", bend, gate)
    return way.times(slope) if way.unbounded else way.apply("Mul", slope, way.g)


def div(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Div: g / x2 to the first input, -g / x2 * y to the second; 0 where g is."""
    b = walk.builder
    way, (x1, x2) = _Broadcast.of(walk, node, dy), inputs(node)
    y, safe = node.outputs[0], never_near_zero(x2) and not may_not_be_finite(x2)
    quotient = way.apply("Div", way.g, x2)
    if x1 in walk.wanted:
        to_x1 = way.back(quotient if safe else zero_where(b, way.g, quotient), x1)
        if not safe:
            walk.mark_unbounded(to_x1)
        yield x1, to_x1
    if x2 in walk.wanted:
        down = way.apply("Mul", quotient, y)
        if way.unbounded:
            down = zero_where(b, y, down)
        if not safe or may_not_be_finite(y):
            down = zero_where(b, way.g, down)
        to_x2 = b.neg(way.back(down, x2))
        if not safe:
            walk.mark_unbounded(to_x2)
        yield x2, to_x2


def fmod(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Mod: g to the first input, -g * trunc(x1 / x2) to the second."""
    b = walk.builder
    way, (x1, x2) = _Broadcast.of(walk, node, dy), inputs(node)
    if x1 in walk.wanted:
        yield x1, way.back(way.g, x1)
    if x2 in walk.wanted:
        # y - x1 is a whole multiple of x2, but for rounding.
        times = b.elementwise("Round", b.div(b.sub(node.outputs[0], x1), x2))
        yield x2, way.back(way.times(times), x2)


def power(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Pow: g * n * x**(n - 1) to the base x, g * y * log(x) to the exponent n.

    The first is 0 where n is, and the second where x <= 0, as in TensorFlow. A constant
    exponent of 0, 1, 2, 3, -1 or 1/2 gets products in place of a power.
    """
    b = walk.builder
    way, (x, n), y = _Broadcast.of(walk, node, dy), inputs(node), node.outputs[0]
    if x in walk.wanted:
        constant, steep = single(n), has_steep_power(node)
        if constant is None:
            exponent = b.cast(n, dtype_of(x))
            lowered = b.elementwise("Pow", x, b.sub(exponent, 1.0))
            through = way.times(zero_where(b, exponent, b.mul(exponent, lowered)))
        elif way.unbounded:
            through = way.times(_through_power(b, x, y, constant)(b.scalar(1.0, way.g)))
        else:
            through = _through_power(b, x, y, constant)(way.g)
        if steep or may_not_be_finite(x):
            through = zero_where(b, way.g, through)
        to_x = way.back(through, x)
        if steep:
            walk.mark_unbounded(to_x)
        yield x, to_x
    if n in walk.wanted:
        positive = b.elementwise("Greater", x, 0.0)
        log_x = b.elementwise("Log", b.where(positive, x, 1.0))
        slope = b.where(positive, b.mul(y, log_x), 0.0)
        yield n, b.cast(way.back(way.times(slope), n), dtype_of(n))


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


def mean(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Mean of several inputs: each gets g over their number."""
    b = walk.builder
    way = _Broadcast.of(walk, node, dy)
    share = b.mul(way.g, 1.0 / len(node.inputs))
    for x in inputs(node):
        if x in walk.wanted:
            yield x, way.back(share, x)


# -- choices -------------------------------------------------------------------------------


def extremum(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Max and Min of any number of inputs: g goes to the one that was chosen.

    At a tie the first of them gets it all, as in TensorFlow's `maximum(x, y)`, which asks
    x >= y. Several inputs are taken pair by pair from the left.
    """
    b = walk.builder
    op, reads = node.op_type, inputs(node)
    so_far = [reads[0]]
    for x in reads[1:-1]:
        so_far.append(b.elementwise(op, so_far[-1], x))
    first = _Broadcast.of(walk, node, dy)
    g, shape, unbounded = first.g, first.shape, first.unbounded
    for position in reversed(range(1, len(reads))):
        left, right = so_far[position - 1], reads[position]
        way = _Broadcast(walk, g, shape, unbounded)
        if not any(x in walk.wanted for x in reads[:position]):
            chosen = _chosen(b, op, right, left, tie=False)
            yield right, way.back(way.times(chosen), right)
            return
        to_left = way.times(_chosen(b, op, left, right, tie=True))
        if right in walk.wanted and unbounded:
            # The difference of two infinities is no number.
            chosen = _chosen(b, op, right, left, tie=False)
            yield right, way.back(way.times(chosen), right)
        elif right in walk.wanted:
            yield right, way.back(way.apply("Sub", g, to_left), right)
        g, shape = way.back(to_left, left), shape_of(left)
    if reads[0] in walk.wanted:
        yield reads[0], g


def _chosen(b: Builder, op: str, x: ir.Value, other: ir.Value, *, tie: bool) -> ir.Value:
    """Returns 1 where Max or Min takes `x` and not `other`, else 0; `tie` is the answer there."""
    bound = single(other)
    if bound is not None and len(other.shape or ()) <= len(x.shape or ()):
        return (above if op == "Max" else below)(b, x, bound, inclusive=tie)
    comparison = ("Greater" if op == "Max" else "Less") + ("OrEqual" if tie else "")
    return b.cast(b.elementwise(comparison, x, other), dtype_of(x))


def clip(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Clip: g where x lies within the bounds; a bound gets g where it replaced x.

    TensorFlow has two answers for an x on a bound, and so has this rule: nothing passes in
    `relu6`, which arrives as a Clip to [0, 6], and all of it in `clip_by_value`, which is any
    other.
    """
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    low, high = optional(node, 1), optional(node, 2)
    if x in walk.wanted:
        relu6 = (single(low), single(high)) == (0.0, 6.0)
        # The output tells as much there, and spares a runtime to keep the input.
        seen = node.outputs[0] if relu6 else x
        # All masks before the products: onnxruntime then makes each just before it is used.
        sides = (("Greater", low), ("Less", high))
        masks = [
            _on_side(b, side, seen, bound, inclusive=not relu6)
            for side, bound in sides
            if bound is not None
        ]
        through = functools.partial(product, walk, unbounded=walk.is_unbounded(g))
        yield x, functools.reduce(through, masks, g)
    if low is not None and low in walk.wanted:
        replaced = b.mul(g, _on_side(b, "Less", x, low, inclusive=False))
        if high is not None:  # a bound that lies above the other does not come through it
            replaced = b.mul(replaced, _on_side(b, "Less", low, high, inclusive=True))
        yield low, b.unbroadcast(replaced, low)
    if high is not None and high in walk.wanted:
        raised = x if low is None else b.elementwise("Max", x, low)
        replaced = b.mul(g, _on_side(b, "Greater", raised, high, inclusive=False))
        yield high, b.unbroadcast(replaced, high)


def _on_side(b: Builder, side: str, x: ir.Value, bound: ir.Value, *, inclusive: bool) -> ir.Value:
    """Returns 1 where x is `Greater` or `Less` than a scalar bound, else 0."""
    number = single(bound)
    if number is not None:
        return (above if side == "Greater" else below)(b, x, number, inclusive=inclusive)
    comparison = side + ("OrEqual" if inclusive else "")
    return b.cast(b.elementwise(comparison, x, bound), dtype_of(x))


def where(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Where: g to the branch that was chosen, 0 to the other.

    A mask that is broadcast, as attention has it, multiplies: onnxruntime's Where takes seven
    times longer there. A mask of full size selects, and any does where the gradient may be
    infinite (that of a root at 0, say), which so stays out of the places not chosen.
    """
    b = walk.builder
    way, (condition, chosen, other) = _Broadcast.of(walk, node, dy), inputs(node)
    g, selects = way.g, way.unbounded or shape_of(condition) == way.shape
    if chosen in walk.wanted:
        if selects:
            yield chosen, way.back(b.where(condition, g, 0.0), chosen)
        else:
            yield chosen, way.back(way.times(b.cast(condition, dtype_of(g))), chosen)
    if other in walk.wanted:
        if selects:
            yield other, way.back(b.where(condition, 0.0, g), other)
        else:
            opposite = b.cast(b.elementwise("Not", condition), dtype_of(g))
            yield other, way.back(way.times(opposite), other)


# -- functions of one input ----------------------------------------------------------------


def dropout(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Dropout in inference: it passes its input on, and so does the gradient."""
    training = optional(node, 2)
    if training is not None:
        mode = constant_of(training)
        if mode is None or mode.any():
            raise Refused("it may run in training mode, where it is random")
    x = inputs(node)[0]
    if x in walk.wanted:
        yield x, given(dy)


def _one_minus_square(v: Local) -> ir.Value:
    """1 - x^2 as (1 - x) (1 + x): near 1 and -1 the square is rounded, these are not."""
    return v.b.mul(v.b.sub(1.0, v.x), v.b.add(v.x, 1.0))


def _one_plus_square(v: Local) -> ir.Value:
    return v.b.add(v.b.mul(v.x, v.x), 1.0)


def _over_root(v: Local, squared: ir.Value) -> ir.Value:
    return v.b.div(v.g, v.b.elementwise("Sqrt", squared))


def _asinh(v: Local) -> ir.Value:
    """g / sqrt(x^2 + 1), without the square of what is large, which overflows."""
    size = v.b.elementwise("Abs", v.x)
    inverse = v.b.elementwise("Reciprocal", v.b.elementwise("Max", size, 1))
    small = v.b.elementwise("Min", size, 1)
    root = v.b.elementwise("Sqrt", v.b.add(v.b.mul(small, small), v.b.mul(inverse, inverse)))
    return v.b.mul(v.g, v.b.div(inverse, root))


def _acosh(v: Local) -> ir.Value:
    """g / sqrt(x^2 - 1), without the square: it overflows, and near 1 takes the digits."""
    roots = [v.b.elementwise("Sqrt", v.b.add(v.x, one)) for one in (-1.0, 1.0)]
    return v.b.div(v.b.div(v.g, roots[0]), roots[1])


def _times(v: Local, function: str) -> ir.Value:
    return v.b.mul(v.g, v.b.elementwise(function, v.x))


def _is_positive(x: ir.Value) -> bool:
    return never_near_zero(x) and bounds(x)[0] > 0


def _reaches_one(v: Local) -> bool:
    return not within(v.x, -0.999, 0.999)


def _is_large(v: Local) -> bool:
    return not (never_overflows(v.x) and bounds(v.x)[0] > -80)


def _erf(v: Local) -> ir.Value:
    bell = v.b.elementwise("Exp", v.b.neg(v.b.mul(v.x, v.x)))
    return v.b.mul(v.g, v.b.mul(bell, 2 / math.sqrt(math.pi)))


def _range(b: Builder, node: ir.Node) -> list[ir.Value]:
    """Range: start + i * delta; how many there are does not move with a small step."""
    start, _, delta = inputs(node)
    y = node.outputs[0]
    steps = b.count_up(b.size(y, 0), (shape_of(y) or (None,))[0])
    return [b.add(b.mul(b.cast(steps, dtype_of(start)), delta), start)]


def _dequantize(b: Builder, node: ir.Node) -> list[ir.Value]:
    """DequantizeLinear: (x - zero) * scale; one scale in all, an entry of an axis, or a block."""
    x, scale = inputs(node)[:2]
    zero = optional(node, 2)
    dtype = dtype_of(scale)
    scales = _along_blocks(b, node, x, scale)
    numbers = b.cast(x, dtype)
    if zero is not None:
        numbers = b.sub(numbers, _along_blocks(b, node, x, b.cast(zero, dtype)))
    return [b.cast(b.mul(numbers, scales), dtype_of(node.outputs[0]))]


def _along_blocks(b: Builder, node: ir.Node, x: ir.Value, value: ir.Value) -> ir.Value:
    """Returns a scale or a zero in a shape that broadcasts against x."""
    rank, axis = rank_of(x), axis_of(node, x, 1)
    block = int(attribute(node, "block_size", 0))
    if rank_of(value) == 0 or dims_of(value) == (1,):
        return value
    if not block:
        return b.reshape(value, [-1 if i == axis else 1 for i in range(rank)])
    wide = b.unsqueeze(value, [axis + 1])
    times = b.ints(*(block if i == axis + 1 else 1 for i in range(rank + 1)))
    repeated = b.op("Expand", wide, times, shape=[None] * (rank + 1))
    sizes: list[Size] = [-1 if i == axis else (x, i) for i in range(rank)]
    whole = b.reshape(repeated, sizes)
    size = dims_of(x)[axis]
    if not isinstance(size, int):
        raise Refused("the size of its blocked axis is known at run time only")
    return b.slice(whole, axis, 0, size)


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
    "Reciprocal": pointwise(
        lambda v: v.b.mul(v.g, v.b.neg(v.b.mul(v.y, v.y))), lambda v: not never_near_zero(v.x)
    ),
    # choices
    "Max": extremum,
    "Min": extremum,
    "Clip": clip,
    "Where": where,
    "Abs": pointwise(lambda v: _times(v, "Sign")),
    "Shrink": pointwise(_shrink),
    # the same values in another guise
    "Identity": unary(lambda v: v.g),
    "Cast": unary(lambda v: v.b.cast(v.g, dtype_of(v.x))),
    "CastLike": unary(lambda v: v.b.cast(v.g, dtype_of(v.x))),
    "Dropout": dropout,
    "Range": decomposed(_range),
    "DequantizeLinear": decomposed(_dequantize),
    # functions
    "Sqrt": pointwise(lambda v: v.b.div(v.b.mul(v.g, 0.5), v.y), lambda v: not _is_positive(v.x)),
    "Exp": pointwise(lambda v: v.b.mul(v.g, v.y), lambda v: not never_overflows(v.x)),
    "Log": pointwise(lambda v: v.b.div(v.g, v.x), lambda v: not _is_positive(v.x)),
    "Erf": pointwise(_erf),
    "Sin": pointwise(lambda v: _times(v, "Cos")),
    "Cos": pointwise(lambda v: v.b.neg(_times(v, "Sin"))),
    "Tan": pointwise(lambda v: v.b.mul(v.g, v.b.add(v.b.mul(v.y, v.y), 1.0))),
    "Asin": pointwise(lambda v: _over_root(v, _one_minus_square(v)), _reaches_one),
    "Acos": pointwise(lambda v: v.b.neg(_over_root(v, _one_minus_square(v))), _reaches_one),
    "Atan": pointwise(lambda v: v.b.div(v.g, _one_plus_square(v))),
    "Sinh": pointwise(lambda v: _times(v, "Cosh"), _is_large),
    "Cosh": pointwise(lambda v: _times(v, "Sinh"), _is_large),
    "Asinh": pointwise(_asinh),
    "Acosh": pointwise(_acosh, lambda v: not bounds(v.x)[0] > 1),
    "Atanh": pointwise(lambda v: v.b.div(v.g, _one_minus_square(v)), _reaches_one),
}
