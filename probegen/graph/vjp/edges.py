"""Edges: where a slope is infinite or no number, and what a gradient is there.

A gradient is a product of slopes, and a product of 0 and infinity is no number in IEEE
arithmetic. Two kinds of place are known where it has a value all the same:

- *Nothing arrives.* `where(x > 0, sqrt(x), 0)` does not depend on the root at x < 0, nor does a
  product with a factor that is 0. The gradient that arrives there is 0, and what goes on is 0,
  whatever the slope. TensorFlow has this rule in the gradients of `sqrt`, `rsqrt` and
  `reciprocal` and in everything that ends in `_no_nan`; here it holds for every operator.
- *Nothing is passed on.* Below 0, `sqrt(relu(x))` is constant, though the slope of the root is
  infinite. The slope that is 0 decides. At a point where the two meet (the norm of a row of
  zeros, the root of |x| at 0) this is the middle of all slopes near by.

Guards for both cost a comparison and a choice, so a rule writes them only where the graph
cannot rule such a place out. What is known of it comes from intervals: constants, squares,
sigmoids and sums of these have bounds (`bounds`), and a root of `x * x + 1e-5` has no edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.values import Dim, constant_of, static_shape

#: How many nodes deep a value is looked into.
_DEPTH = 40
#: How much of a value may not be finite: nothing, some of each row, whole rows.
_NOTHING, _SOME, _ROWS = 0, 1, 2
#: Elements of a constant up to which its content is looked at.
_CONTENT = 2**20

Bounds = tuple[float, float]

ANY: Bounds = (-math.inf, math.inf)

_HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


# -- guards --------------------------------------------------------------------------------


def product(
    walk: Walk,
    g: ir.Value,
    factor: ir.Value,
    *,
    unbounded: bool | None = None,
    shape: Sequence[Dim] | None = None,
) -> ir.Value:
    """Returns g times a slope, 0 where one of them is 0 and the other may not be finite.

    Args:
        walk: the walk in progress.
        g: the gradient.
        factor: the slope.
        unbounded: whether `g` may be infinite, where the caller knows better than the walk.
        shape: of the result.
    """
    b = walk.builder
    result = b.elementwise("Mul", g, factor, shape=shape)
    if walk.is_unbounded(g) if unbounded is None else unbounded:
        result = zero_where(b, factor, result)
    return zero_where(b, g, result) if may_not_be_finite(factor) else result


def zero_where(b: Builder, nothing: ir.Value, result: ir.Value) -> ir.Value:
    """Returns `result`, but 0 where `nothing`, which broadcasts to it, is 0."""
    there = b.elementwise("Equal", nothing, 0.0)
    return b.op("Where", there, b.scalar(0.0, result), result, shape=result, dtype=result.dtype)


# -- what the graph tells --------------------------------------------------------------------


def never_near_zero(value: ir.Value) -> bool:
    """Tells whether no element can be so near 0 that one over its square is infinite."""
    low, high = bounds(value)
    margin = 0.004 if value.dtype in _HALF else 1e-18
    return low >= margin or high <= -margin


def never_overflows(value: ir.Value) -> bool:
    """Tells whether the exponential of no element is infinite."""
    return bounds(value)[1] <= (11 if value.dtype in _HALF else 88)


def within(value: ir.Value, low: float, high: float) -> bool:
    """Tells whether every element lies between two numbers, on neither of them."""
    found = bounds(value)
    return low < found[0] and found[1] < high


def bounds(value: ir.Value) -> Bounds:
    """Returns two numbers between which every element of a value lies, as far as is known."""
    return _bounds(value, {}, _DEPTH)


def may_not_be_finite(value: ir.Value) -> bool:
    """Tells whether a value may hold infinities or NaN though its inputs are finite numbers.

    So may what comes out of a root, a quotient, a logarithm, an exponential of arguments that
    are not known to be harmless, and what is computed from it element by element. A choice
    (`Where`, `Clip`, `Max`) is taken to have put an end to it, a product of matrices to have
    spread it past mending.
    """
    return _holes(value, {}, _DEPTH) == _ROWS


def may_leave_numbers(node: ir.Node) -> bool:
    """Tells whether a node may make infinities or NaN of finite numbers, or reads some that are.

    Those that it reads are constants.
    """
    makes = None if node.domain else _MAKES.get(node.op_type)
    constants = (v for v in node.inputs if v is not None)
    return (makes is not None and makes(node)) or any(map(_holes_of_constant, constants))


def _bounds(value: ir.Value | None, known: dict[ir.Value, Bounds], depth: int) -> Bounds:
    if value is None:
        return ANY
    found = known.get(value)
    if found is None:
        # Asked again on the way (which a graph without circles does not), it knows nothing.
        known[value] = ANY
        found = known[value] = _find_bounds(value, known, depth)
    return found


def _find_bounds(value: ir.Value, known: dict[ir.Value, Bounds], depth: int) -> Bounds:
    node = value.producer()
    if node is None or node.op_type == "Constant":
        return _bounds_of_constant(value)
    if node.domain == MARK_DOMAIN and depth:
        return _bounds(node.inputs[0], known, depth - 1)
    if node.domain or not depth:
        return ANY
    if node.op_type in ("Mul", "Pow") and _is_even_power(node):
        return 0.0, math.inf
    rule = _BOUNDS.get(node.op_type)
    if rule is None:
        return ANY
    low, high = rule(node, [_bounds(v, known, depth - 1) for v in node.inputs])
    # A sum of infinite bounds of both signs says nothing.
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def _bounds_of_constant(value: ir.Value) -> Bounds:
    content = _content(value)
    if content is None or not content.size or not np.isfinite(content).all():
        return ANY
    return float(content.min()), float(content.max())


def _content(value: ir.Value) -> npt.NDArray[Any] | None:
    shape = static_shape(value)
    if shape is not None and math.prod(shape) > _CONTENT:
        return None
    content = constant_of(value)
    return content if content is not None and content.dtype.kind in "fiu" else None


def _is_even_power(node: ir.Node) -> bool:
    first, second = node.inputs[:2]
    if node.op_type == "Mul":
        return first is second
    exponent = None if second is None else _content(second)
    return exponent is not None and bool((exponent % 2 == 0).all() and (exponent >= 0).all())


def _mul(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    ends = [a * b if a and b else 0.0 for a in operands[0] for b in operands[1]]
    return min(ends), max(ends)


def _div(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    (low, high), (under, over) = operands
    if not under > 0:
        return ANY
    ends = [a / b if math.isfinite(b) else 0.0 for a in (low, high) for b in (under, over)]
    return min(ends), max(ends)


def _reciprocal(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    low, high = operands[0]
    if low == 0:
        return (1 / high if high else math.inf), math.inf
    return (1 / high, 1 / low) if low > 0 else ANY


def _abs(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    low, high = operands[0]
    return max(low, -high, 0.0), max(-low, high)


def _clip(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    (low, high), *limits = operands
    under = limits[0][0] if limits else -math.inf
    over = limits[1][1] if len(limits) > 1 else math.inf
    return min(max(low, under), over), max(min(high, over), under)


def _reduce_sum(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    low, high = operands[0]
    # Of how many is not asked; of none at all the sum is 0.
    return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)


def _rising(
    function: Callable[[float], float],
) -> Callable[[ir.Node, Sequence[Bounds]], Bounds]:
    """Returns the bounds of a function that never falls, of which arguments may be out of range."""

    def of(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
        ends = []
        for end, at_worst in zip(operands[0], ANY, strict=True):
            try:
                ends.append(function(end))
            except (ValueError, OverflowError):
                ends.append(at_worst)
        return ends[0], ends[1]

    return of


def _same(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    return operands[0]


def _union(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in operands), max(high for _, high in operands)


def _sum(_: ir.Node, operands: Sequence[Bounds]) -> Bounds:
    return sum(low for low, _ in operands), sum(high for _, high in operands)


def _between(low: float, high: float) -> Callable[[ir.Node, Sequence[Bounds]], Bounds]:
    return lambda _, __: (low, high)


#: Operators that hand elements on or choose among those of their first input.
_SHAPING = (
    *("Cast", "CastLike", "Compress", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *("Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)

_BOUNDS: Mapping[str, Callable[[ir.Node, Sequence[Bounds]], Bounds]] = {
    **dict.fromkeys(_SHAPING, _same),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "MaxPool"), _same),
    "ReduceSum": _reduce_sum,
    "ReduceSumSquare": _between(0.0, math.inf),
    "ReduceL1": _between(0.0, math.inf),
    "ReduceL2": _between(0.0, math.inf),
    "Add": _sum,
    "Sum": _sum,
    "Sub": lambda _, o: (o[0][0] - o[1][1], o[0][1] - o[1][0]),
    "Mul": _mul,
    "Div": _div,
    "Reciprocal": _reciprocal,
    "Neg": lambda _, o: (-o[0][1], -o[0][0]),
    "Abs": _abs,
    "Max": lambda _, o: (max(low for low, _ in o), max(high for _, high in o)),
    "Min": lambda _, o: (min(low for low, _ in o), min(high for _, high in o)),
    "Clip": _clip,
    "Where": lambda n, o: _union(n, o[1:]),
    "Concat": _union,
    "Sqrt": _rising(math.sqrt),
    "Exp": _rising(math.exp),
    "Log": _rising(lambda x: math.log(x) if x else -math.inf),
    "Relu": lambda _, o: (max(o[0][0], 0.0), max(o[0][1], 0.0)),
    "Softplus": _between(0.0, math.inf),
    "Sigmoid": _between(0.0, 1.0),
    "HardSigmoid": _between(0.0, 1.0),
    "Softmax": _between(0.0, 1.0),
    "Tanh": _between(-1.0, 1.0),
    "Softsign": _between(-1.0, 1.0),
    "Erf": _between(-1.0, 1.0),
    "Sin": _between(-1.0, 1.0),
    "Cos": _between(-1.0, 1.0),
}


def _holes(value: ir.Value | None, known: dict[ir.Value, int], depth: int) -> int:
    """Returns how much of a value may not be finite: `_NOTHING`, `_SOME` or `_ROWS` of it."""
    if value is None:
        return _NOTHING
    found = known.get(value)
    if found is None:
        known[value] = _NOTHING
        found = known[value] = _find_holes(value, known, depth)
    return found


def _find_holes(value: ir.Value, known: dict[ir.Value, int], depth: int) -> int:
    node = value.producer()
    if node is None or node.op_type == "Constant":
        return _holes_of_constant(value)
    if not depth:
        return _NOTHING
    makes = _MAKES.get(node.op_type)
    if makes is not None and makes(node):
        return _ROWS
    if node.op_type == "Where":
        chosen = [_holes_of_constant(v) for v in node.inputs[1:] if v is not None]
        return _ROWS if _ROWS in chosen else _NOTHING
    if not (node.domain or node.op_type in _PASSES):
        return _NOTHING
    degrees = [_holes(v, known, depth - 1) for v in node.inputs]
    # Two masks may leave nothing of a row of which each leaves something.
    masks = sum(degree > _NOTHING for degree in degrees)
    return _ROWS if masks > 1 else max(degrees, default=_NOTHING)


def _holes_of_constant(value: ir.Value) -> int:
    """Returns how much of a constant is not finite.

    A causal mask of -inf leaves a finite number in each row: a softmax over it is a finite
    number everywhere. Of a row that is masked whole it is none.
    """
    content = _content(value)
    if content is None or content.dtype.kind != "f" or np.isfinite(content).all():
        return _NOTHING
    each_row = np.isfinite(content).any(axis=-1) if content.ndim else np.False_
    return _SOME if each_row.all() else _ROWS


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name!r} has no first input")
    return value


def _second(node: ir.Node) -> ir.Value:
    value = node.inputs[1]
    if value is None:
        raise ValueError(f"{node.name!r} has no second input")
    return value


def has_steep_power(node: ir.Node) -> bool:
    """Tells whether a Pow, or its slope, may be infinite or no number at finite arguments."""
    exponent = _content(_second(node))
    base = _first(node)
    if never_near_zero(base) and bounds(base)[0] > 0:
        return False
    return exponent is None or bool((exponent < 0).any() or (exponent % 1 != 0).any())


#: Operator -> whether a node of it can make of finite numbers what is none.
_MAKES: Mapping[str, Callable[[ir.Node], bool]] = {
    "Sqrt": lambda n: bounds(_first(n))[0] < 0,
    "Log": lambda n: bounds(_first(n))[0] <= 0,
    "Reciprocal": lambda n: not never_near_zero(_first(n)),
    "Div": lambda n: not never_near_zero(_second(n)),
    "Mod": lambda n: not never_near_zero(_second(n)),
    "Pow": has_steep_power,
    "Exp": lambda n: not never_overflows(_first(n)),
    "Sinh": lambda n: not within(_first(n), -88, 88),
    "Cosh": lambda n: not within(_first(n), -88, 88),
    "Asin": lambda n: not within(_first(n), -1.000001, 1.000001),
    "Acos": lambda n: not within(_first(n), -1.000001, 1.000001),
    "Atanh": lambda n: not within(_first(n), -1, 1),
    "Acosh": lambda n: bounds(_first(n))[0] < 1,
    "ReduceLogSum": lambda _: True,
}

#: Operators whose result is not finite where their input is not.
_PASSES = frozenset(
    {
        *_SHAPING,
        *("Add", "Sub", "Mul", "Div", "Sum", "Mean", "Neg", "Abs", "Concat", "Reciprocal"),
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
        *("ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "CumSum", "TopK", "Pad"),
        *("Sqrt", "Exp", "Log", "Pow", "Mod", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
        *("Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Tanh", "Sigmoid", "Relu", "LeakyRelu"),
        *("PRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish"),
        *("Swish", "Mish", "Gelu", "Softmax", "LogSoftmax", "ThresholdedRelu", "Shrink"),
        *("Round", "Floor", "Ceil", "Sign"),
        *("LayerNormalization", "RMSNormalization", "LpNormalization", "BatchNormalization"),
    }
)
