"""Gradients of single nodes by numpy, written without a look at the rules of `graph.vjp`.

Operators that only move elements are asked where each one goes. Functions taken element by element
are differentiated by differences in float64. Products, convolutions, poolings and normalisations
have a formula here, recurrent operators in `recurrent`. What is left, if it is small, is
differentiated by differences as a whole.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.elementwise import COMPUTED, FunctionOfOne
from probegen.graph.core.marks import (
    HIGHEST,
    LOWEST,
    MARK,
    MARK_DOMAIN,
    STOP_GRADIENT,
    STRAIGHT_THROUGH,
)
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute
from probegen.parity.witness.evaluation import IN_FLOAT32, NodeEvaluator
from probegen.parity.witness.recurrent import RECURRENT, through_time
from probegen.parity.witness.step import Step, Unknown
from probegen.parity.witness.windows import windows_of

Array = npt.NDArray[Any]

#: Elements up to which a node is differentiated by differences as a whole.
_SMALL = 1500
#: Weights of the pixels of a picture for those that are sampled of it.
_MOST_SAMPLED = 20_000_000
#: Numbers that the reference evaluator may look at to resize the unit vectors of one axis.
_MOST_RESIZED = 500_000
#: What the reference evaluator computes in 32 bits, whatever it is given.
_INEXACT = frozenset({"Gelu"})
#: Linear, and computed in 32 bits.
_LINEAR = IN_FLOAT32 | {"AffineGrid"}
#: How far, in steps of a quantisation, half a step of it may be rounded.
_HALF_ROUNDED = 5e-4
#: The step of differences in float64, relative to what is moved.
_STEP = 1e-6
#: How far an evaluation of a node may be from what the model's own run gave, of the largest.
_EVALUATED_ALIKE = 1e-3
#: How far slopes on both sides are apart, relative to their mean, where a function bends.
_BENDS = 1e-3
#: Returns the gradient at the input at a position.
_Formula = Callable[[Step, Array, int], Array]


def adjoint(step: Step, g: Sequence[Array | None], position: int) -> Array:
    """Returns the gradient at one input of a node.

    Args:
        step: the node.
        g: the gradients of its outputs, None for zero.
        position: of the input.

    Raises:
        Unknown: there is no rule for this node.
    """
    key = key_of(step.node)
    first = g[0]
    if key in _SAME:
        # A further operand says how: the share that a Dropout keeps, the type of a CastLike.
        return np.asarray(first) if position == 0 else np.zeros_like(step.inputs[position])
    reduction = attribute(step.node, "reduction", "none") if key in _SCATTERS else None
    if key in _MOVING or reduction == "none":
        return _moved(step, g, position)
    if key in RECURRENT:
        return through_time(step, g, position)
    if first is None or any(other is not None for other in g[1:]):
        raise Unknown(f"{key}, of which another output than the first is used")
    if key in _FORMULAS:
        return np.asarray(_FORMULAS[key](step, first, position)).reshape(
            np.shape(step.inputs[position])
        )
    if key in _ELEMENTWISE:
        return _elementwise(step, first, position)
    return _by_differences(step, first, position)


def unbroadcast(gradient: Array, shape: Sequence[int]) -> Array:
    """Returns a gradient summed down to the shape of an operand that was broadcast."""
    extra = gradient.ndim - len(shape)
    summed = gradient.sum(axis=tuple(range(extra))) if extra else gradient
    wide = tuple(i for i, n in enumerate(shape) if n == 1 and summed.shape[i] != 1)
    return np.asarray(summed.sum(axis=wide, keepdims=True) if wide else summed)


# -- what only moves elements ------------------------------------------------------------------

_SAME = frozenset(
    {
        "Identity",
        "Cast",
        "CastLike",
        "Dropout",
        f"{MARK_DOMAIN}::{MARK}",
        f"{MARK_DOMAIN}::{STOP_GRADIENT}",
    }
)
_MOVING = frozenset(
    {
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather",
        "GatherElements", "GatherND", "Concat", "Split", "Expand", "Tile", "DepthToSpace",
        "SpaceToDepth", "ReverseSequence", "Pad", "Where", "Trilu", "Compress",
    }
)  # fmt: skip
#: What only moves elements where those that meet are not combined.
_SCATTERS = frozenset({"ScatterElements", "ScatterND"})


def _moved(step: Step, g: Sequence[Array | None], position: int) -> Array:
    """Sends numbered elements through a node, and each gradient back to where its number is."""
    shape = np.shape(step.inputs[position])
    count = int(np.prod(shape))
    arrays: list[Array | None] = []
    for i, a in enumerate(step.inputs):
        floating = a is not None and a.dtype.kind == "f"
        numbered = np.arange(1, count + 1, dtype=np.float64).reshape(shape)
        arrays.append(numbered if i == position else np.zeros_like(a) if floating else a)
    total = np.zeros(count + 1)
    for places, gradient in zip(step.evaluate(step.node, arrays), g, strict=False):
        if gradient is not None:
            at = np.rint(places).astype(np.int64).reshape(-1)
            total += np.bincount(at, np.asarray(gradient).reshape(-1), minlength=count + 1)
    return total[1:].reshape(shape)


def _scattered(step: Step, g: Array, position: int) -> Array:
    """Sends a gradient to what meets in a scatter: of a sum all to x, to updates their place's."""
    reduction = attribute(step.node, "reduction", "none")
    if reduction in ("max", "min"):
        return _extreme_scattered(step, g, position)
    if reduction != "add":
        return _by_differences(step, g, position)
    return g if position == 0 else np.asarray(g[_places(step)])


def _places(step: Step) -> tuple[Array, ...]:
    """Returns where a scatter puts its updates, as indices of x."""
    at = np.asarray(step.inputs[1])
    if step.node.op_type == "ScatterND":
        return tuple(np.moveaxis(at, -1, 0))
    places: list[Array] = list(np.indices(at.shape))
    places[int(attribute(step.node, "axis", 0))] = at
    return tuple(places)


def _extreme_scattered(step: Step, g: Array, position: int) -> Array:
    """Sends a gradient to the extreme of what met at each place; equal ones share it."""
    places, y = _places(step), step.y
    own, met = step.x == y, np.asarray(step.inputs[2]) == y[places]
    count = own.astype(np.float64)
    np.add.at(count, places, met)
    share = g / np.maximum(count, 1)
    return np.asarray(own * share if position == 0 else met * share[places])


def _straight_through(step: Step, g: Array, position: int) -> Array:
    """Sends a gradient past a rounding to where the value was not cut off."""
    if position == 0:
        return g
    x, scale, *zeros = (np.asarray(a, np.float64) for a in step.inputs[1:] if a is not None)
    if attribute(step.node, "block_size", 0):
        raise Unknown("a quantisation whose steps differ from block to block")
    axis = int(attribute(step.node, "axis", 1))
    scale, zero = (
        np.moveaxis(a.reshape(-1, *[1] * (x.ndim - 1)), 0, axis) if a.size > 1 else a.reshape(())
        for a in (scale, *(zeros or [np.zeros(())]))
    )
    whole, half = x / scale + zero, 0.5 + _HALF_ROUNDED
    low, high = (float(attribute(step.node, end)) for end in (LOWEST, HIGHEST))
    return np.where((whole >= low - half) & (whole <= high + half), g, 0.0)


# -- element by element ------------------------------------------------------------------------

_ELEMENTWISE = frozenset(
    {
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Clip", "Cos", "Cosh",
        "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min",
        "Mish", "Mod", "Pow", "PRelu", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Sinh",
        "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip


#: Slopes of functions that are defined on one side of a number, or bend without bound beside it:
#: a step across it, or as long as what is left to it, tells nothing. And of those that run to 1:
#: what a step changes there is less than a rounding of 1.
_SLOPES: Mapping[str, Callable[[Array], Array]] = {
    "Acos": lambda x: -1 / np.sqrt(1 - x * x),
    "Acosh": lambda x: 1 / np.sqrt(x * x - 1),
    "Asin": lambda x: 1 / np.sqrt(1 - x * x),
    "Atanh": lambda x: 1 / (1 - x * x),
    "Erf": lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x),
    "Log": lambda x: 1 / x,
    "Reciprocal": lambda x: -1 / (x * x),
    "Sigmoid": lambda x: 0.25 / np.cosh(x / 2) ** 2,
    "Sqrt": lambda x: 0.5 / np.sqrt(x),
    "Tanh": lambda x: 1 / np.cosh(x) ** 2,
}


def _slope_of_relu(step: Step, x: Array) -> Array:
    low = float(attribute(step.node, "alpha", 0.01)) if step.node.op_type != "Relu" else 0.0
    return np.where(x > 0, 1.0, low)


def _slope_of_power(step: Step, x: Array) -> Array:
    """By differences the slope of a cube at 0 is the square of the step."""
    n = np.asarray(step.inputs[1], np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(n == 0, 0.0, n * x ** (n - 1)))


def _within(step: Step, x: Array) -> Array:
    """Returns 1 within the bounds of a Clip; on them 0 for relu6 and 1 for all others."""
    bounds = [np.asarray(a, np.float64) for a in step.inputs[1:] if a is not None]
    rectifies = [float(b) for b in bounds if b.size == 1] == [0.0, 6.0]
    low, high = ([*step.inputs[1:], None, None])[:2]
    passed = np.ones(x.shape, bool)
    for bound, sign in ((low, 1.0), (high, -1.0)):
        if bound is not None:
            above = sign * (x - np.asarray(bound, np.float64))
            passed &= above > 0 if rectifies else above >= 0
    return passed.astype(np.float64)


def _slope_of_elu(step: Step, x: Array) -> Array:
    below = float(attribute(step.node, "alpha", 1.0)) * np.exp(np.minimum(x, 0))
    return np.asarray(np.where(x > 0, 1.0, below))


def _slope_of_celu(step: Step, x: Array) -> Array:
    return np.asarray(np.exp(np.minimum(x, 0) / float(attribute(step.node, "alpha", 1.0))))


def _slope_of_selu(step: Step, x: Array) -> Array:
    alpha = float(attribute(step.node, "alpha", 1.67326319217681884765625))
    gamma = float(attribute(step.node, "gamma", 1.05070102214813232421875))
    return np.asarray(gamma * np.where(x >= 0, 1.0, alpha * np.exp(np.minimum(x, 0))))


#: Slopes of functions that bend at some places: a step across these tells of the bend.
_BENT: Mapping[str, Callable[[Step, Array], Array]] = {
    "Celu": _slope_of_celu,
    "Clip": _within,
    "Elu": _slope_of_elu,
    "LeakyRelu": _slope_of_relu,
    "Pow": _slope_of_power,
    "Relu": _slope_of_relu,
    "Selu": _slope_of_selu,
}


def _elementwise(step: Step, g: Array, position: int) -> Array:
    return unbroadcast(_times(g, slope(step, position)), np.shape(step.inputs[position]))


def _times(g: Array, factor: Array) -> Array:
    """Returns a product that is 0 where a factor is, as of the infinite slope of a root at 0."""
    with np.errstate(invalid="ignore"):
        return np.where((g == 0) | (factor == 0), 0.0, g * factor)


def slope(step: Step, position: int = 0) -> Array:
    """Returns the slope of a function taken element by element, in the shape of its result.

    At a kink it is the one on the lower side where the function rises from 0 there, as frameworks
    have it for rectifiers; of equal extrema the first has it all.
    """
    x = np.asarray(step.inputs[position], np.float64)
    if step.node.op_type in ("Max", "Min"):
        return _chosen(step, position)
    if step.node.op_type in _BENT and position == 0:
        return _BENT[step.node.op_type](step, x)
    if step.node.op_type in _SLOPES:
        with np.errstate(all="ignore"):
            return np.asarray(_SLOPES[step.node.op_type](x))
    h = _STEP * np.maximum(1.0, np.abs(x))
    exact = COMPUTED[step.node.op_type] if step.node.op_type in _INEXACT else None
    if exact is not None:
        ahead, behind = (np.asarray(exact(step.node, [there])) for there in (x + h, x - h))
    else:
        ahead, behind = step.at({position: x + h}), step.at({position: x - h})
    return np.asarray((ahead - behind) / np.broadcast_to(2 * h, ahead.shape))


def _chosen(step: Step, position: int) -> Array:
    """Returns 1 where an extreme of several tensors is that of one, and of none before it."""
    arrays = [np.broadcast_to(a, step.y.shape) for a in step.inputs if a is not None]
    best = arrays[position] == step.y
    for before in arrays[:position]:
        best = best & (before != step.y)
    return np.asarray(best, np.float64)


def slope_of(
    function: FunctionOfOne, values: Mapping[ir.Value, Any], evaluate: NodeEvaluator
) -> Array:
    """Returns the slope of a function of one tensor, by differences.

    Beside a kink it is what the slopes of its nodes come to, as frameworks have it: a PReLU that is
    spelled as `Relu(x) - a * Relu(-x)` has none at 0. So it is where kinks of its nodes cancel out:
    `max(x, y) + log1p(exp(-|x - y|))` is smooth where x and y are equal, and its nodes are not.

    Args:
        function: the function.
        values: its tensors, and the constants that it reads.
        evaluate: evaluates a node.
    """
    x = np.asarray(values[function.entry], np.float64)
    h = _STEP * np.maximum(1.0, np.abs(x))
    here, before, after = (function.values_at(at) for at in (x, x - h, x + h))
    bent, steep = np.zeros(x.shape, bool), np.zeros(x.shape)
    for value in (v for v in (*function.inner, function.result) if here[v].dtype.kind == "f"):
        ahead, behind = (after[value] - here[value]) / h, (here[value] - before[value]) / h
        steep = (ahead + behind) / 2
        bent |= np.abs(ahead - behind) > _BENDS * (0.01 + np.abs(steep))
    if not bent.any():
        return np.asarray(steep)
    try:
        return np.asarray(np.where(bent, _by_nodes(function, values, evaluate), steep))
    except Unknown:
        return np.asarray(steep)


def _by_nodes(
    function: FunctionOfOne, values: Mapping[ir.Value, Any], evaluate: NodeEvaluator
) -> Array:
    """Returns the slope of a function by those of its nodes, one after the other."""
    total: dict[ir.Value, Array] = {function.result: np.ones_like(values[function.result])}
    passed = {function.entry, *(v for v in function.inner if values[v].dtype.kind == "f")}
    for node in reversed(function.nodes):
        g = total.get(node.outputs[0])
        if g is None:
            continue
        inputs = [None if v is None else values.get(v) for v in node.inputs]
        step = Step(node, inputs, [values[node.outputs[0]]], evaluate, values)
        for position, value in enumerate(node.inputs):
            if value in passed:
                found = adjoint(step, [g], position)
                total[value] = total[value] + found if value in total else found
    return np.asarray(total.get(function.entry, np.zeros_like(values[function.entry])))


def _add(step: Step, g: Array, position: int) -> Array:
    return unbroadcast(g, np.shape(step.inputs[position]))


def _sub(step: Step, g: Array, position: int) -> Array:
    return unbroadcast(-g if position else g, np.shape(step.inputs[position]))


def _mean(step: Step, g: Array, position: int) -> Array:
    return _add(step, g / len(step.inputs), position)


def _mul(step: Step, g: Array, position: int) -> Array:
    found = _times(g, step.inputs[1 - position])
    return unbroadcast(found, np.shape(step.inputs[position]))


def _div(step: Step, g: Array, position: int) -> Array:
    a, b = step.inputs[:2]
    with np.errstate(all="ignore"):  # what a mask takes out behind it
        found = g / b if position == 0 else -g * a / b**2
    return unbroadcast(found, np.shape(step.inputs[position]))


# -- products ----------------------------------------------------------------------------------


def _matmul(step: Step, g: Array, position: int) -> Array:
    a, b = step.inputs[:2]
    rows, columns = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    g = g[..., None, :] if a.ndim == 1 else g
    g = g[..., None] if b.ndim == 1 else g
    if position == 0:
        return unbroadcast(g @ np.swapaxes(columns, -1, -2), rows.shape)
    return unbroadcast(np.swapaxes(rows, -1, -2) @ g, columns.shape)


def _gemm(step: Step, g: Array, position: int) -> Array:
    a, b = step.inputs[:2]
    turn_a, turn_b = attribute(step.node, "transA", 0), attribute(step.node, "transB", 0)
    scale = float(attribute(step.node, "alpha", 1.0))
    if position == 2:
        beta = float(attribute(step.node, "beta", 1.0))
        return unbroadcast(beta * g, np.shape(step.inputs[2]))
    if position == 0:
        found = scale * g @ (b if turn_b else b.T)
        return np.asarray(found.T if turn_a else found)
    found = scale * (a if turn_a else a.T) @ g
    return np.asarray(found.T if turn_b else found)


def _einsum(step: Step, g: Array, position: int) -> Array:
    equation = str(attribute(step.node, "equation"))
    terms, right = _spelled(equation, [np.ndim(x) for x in step.inputs], g.ndim)
    own = terms[position]
    if any(len(set(t)) < len(t) for t in terms):
        raise Unknown(f"Einsum with the equation {equation!r}")
    others = [t for i, t in enumerate(terms) if i != position]
    known = set("".join(others)) | set(right)
    arrays = [a for i, a in enumerate(step.inputs) if i != position]
    shape = np.shape(step.inputs[position])
    kept = "".join(c for c in own if c in known)
    found = np.einsum(f"{right},{','.join(others)}->{kept}".replace(",->", "->"), g, *arrays)
    of_kept = iter(found.shape)
    found = found.reshape([next(of_kept) if c in known else 1 for c in own])
    spread = tuple(i for i, n in enumerate(shape) if n == 1 and found.shape[i] > 1)
    return np.broadcast_to(found.sum(spread, keepdims=True), shape)


def _spelled(equation: str, ranks: Sequence[int], rank: int) -> tuple[list[str], str]:
    """Returns the letters of each operand and of the result, with letters for an ellipsis too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        right = "..." * ("..." in left) + "".join(once)
    unused = [c for c in string.ascii_letters if c not in equation]

    def spelled(term: str, count: int) -> str:
        covered = count - len(term.replace("...", ""))
        return term.replace("...", "".join(unused[:covered][::-1]))  # the same ones from the right

    return [spelled(t, n) for t, n in zip(terms, ranks, strict=True)], spelled(right, rank)


# -- windows -----------------------------------------------------------------------------------


def _conv(step: Step, g: Array, position: int) -> Array:
    x, w = step.inputs[:2]
    if position == 2:
        return np.asarray(g.sum(axis=(0, *range(2, g.ndim))))
    group = int(attribute(step.node, "group", 1))
    found = windows_of(step.node, x.shape[2:], g.shape[2:], w.shape[2:])
    back = g.reshape(len(g), group, -1, found.at.shape[0])
    if position == 1:
        columns = found.gathered(x.reshape(len(x), group, -1, found.size))
        return np.asarray(np.einsum("ngop,ngcpk->gock", back, columns))
    kernels = w.reshape(group, -1, w.shape[1], found.at.shape[1])
    return found.scattered(np.einsum("ngop,gock->ngcpk", back, kernels))


def _conv_transpose(step: Step, g: Array, position: int) -> Array:
    x, w = step.inputs[:2]
    if position == 2:
        return np.asarray(g.sum(axis=(0, *range(2, g.ndim))))
    if attribute(step.node, "auto_pad", "NOTSET") != "NOTSET" or position == 1:
        raise Unknown("ConvTranspose with padding chosen by itself, or with a moving kernel")
    if attribute(step.node, "output_shape") is not None:
        raise Unknown("ConvTranspose with an output_shape")
    group = int(attribute(step.node, "group", 1))
    found = windows_of(step.node, g.shape[2:], x.shape[2:], w.shape[2:])
    columns = found.gathered(g.reshape(len(g), group, -1, found.size))
    kernels = w.reshape(group, -1, w.shape[1], found.at.shape[1])
    return np.asarray(np.einsum("ngopk,gcok->ngcp", columns, kernels))


def _average_pool(step: Step, g: Array, position: int) -> Array:
    del position
    x, kernel = step.x, attribute(step.node, "kernel_shape")
    found = windows_of(step.node, x.shape[2:], g.shape[2:], kernel)
    counted = found.inside.sum(axis=1)
    if attribute(step.node, "count_include_pad", 0):
        rounded_up = bool(attribute(step.node, "ceil_mode", 0))
        counted = (
            found.counted.sum(axis=1) if rounded_up else np.full_like(counted, np.prod(kernel))
        )
    back = g.reshape(*g.shape[:2], -1) / counted
    return found.scattered(np.broadcast_to(back[..., None], (*back.shape, found.at.shape[1])))


def _max_pool(step: Step, g: Array, position: int) -> Array:
    del position
    x, kernel = step.x, attribute(step.node, "kernel_shape")
    found = windows_of(step.node, x.shape[2:], g.shape[2:], kernel)
    columns = found.gathered(x.reshape(*x.shape[:2], -1), -np.inf)
    largest = columns.argmax(axis=-1)[..., None]
    spread = np.zeros_like(columns)
    np.put_along_axis(spread, largest, g.reshape(*g.shape[:2], -1, 1), axis=-1)
    return found.scattered(spread)


def _global(step: Step) -> tuple[int, ...]:
    return tuple(range(2, step.x.ndim))


def _global_average(step: Step, g: Array, position: int) -> Array:
    del position
    return np.broadcast_to(g, step.x.shape) / np.prod(step.x.shape[2:])


def _global_max(step: Step, g: Array, position: int) -> Array:
    del position
    return _to_largest(step.x, g, _global(step))


def _to_largest(x: Array, g: Array, axes: Sequence[int]) -> Array:
    """Sends a gradient to the first of the largest elements along some axes, kept as 1 in it."""
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    flat = moved.reshape(*moved.shape[: -len(axes)], -1)
    spread = np.zeros_like(flat)
    back = np.moveaxis(g, axes, range(-len(axes), 0)).reshape(*flat.shape[:-1], 1)
    np.put_along_axis(spread, flat.argmax(-1)[..., None], back, axis=-1)
    return np.moveaxis(spread.reshape(moved.shape), range(-len(axes), 0), axes)


# -- reductions --------------------------------------------------------------------------------


def axes_of(step: Step) -> tuple[int, ...]:
    """Returns the axes that a reduction works on, not negative."""
    given = attribute(step.node, "axes")
    if given is None and len(step.inputs) > 1 and step.inputs[1] is not None:
        given = step.inputs[1].reshape(-1)
    if given is None or not len(given):
        empty = bool(attribute(step.node, "noop_with_empty_axes", 0))
        return () if empty else tuple(range(step.x.ndim))
    return tuple(int(a) % step.x.ndim for a in given)


def _kept(step: Step, g: Array) -> Array:
    """Returns what arrives at a reduction with the reduced axes as 1."""
    return g.reshape([1 if i in axes_of(step) else n for i, n in enumerate(step.x.shape)])


def _reduce_sum(step: Step, g: Array, position: int) -> Array:
    del position
    return np.broadcast_to(_kept(step, g), step.x.shape)


def _reduce_mean(step: Step, g: Array, position: int) -> Array:
    count = np.prod([step.x.shape[i] for i in axes_of(step)])
    return np.asarray(_reduce_sum(step, g, position) / count)


def _reduced_by(slope_at: Callable[[Array, Array], Array]) -> _Formula:
    """Returns the formula of a reduction by its slope at x, whose result is y."""

    def formula(step: Step, g: Array, position: int) -> Array:
        del position
        found = _kept(step, g) * slope_at(step.x, _kept(step, step.y))
        return np.broadcast_to(found, step.x.shape)

    return formula


def _cumulative(step: Step, g: Array, position: int) -> Array:
    """Sums up from the other end."""
    del position
    axis = int(step.inputs[1])
    turned = np.flip(g, axis) if not attribute(step.node, "reverse", 0) else g
    found = np.cumsum(turned, axis)
    if attribute(step.node, "exclusive", 0):
        found = found - turned
    return np.asarray(found if turned is g else np.flip(found, axis))


def _top_k(step: Step, g: Array, position: int) -> Array:
    del position
    axis = int(attribute(step.node, "axis", -1))
    found = np.zeros_like(step.x)
    np.put_along_axis(found, np.asarray(step.outputs[1]), g, axis)
    return found


def _reduce_extreme(step: Step, g: Array, position: int) -> Array:
    del position
    x = step.x if step.node.op_type == "ReduceMax" else -step.x
    best = x == x.max(axis=axes_of(step), keepdims=True)
    return np.asarray(best * _kept(step, g) / best.sum(axis=axes_of(step), keepdims=True))


# -- along an axis -----------------------------------------------------------------------------


def _softmax(step: Step, g: Array, position: int) -> Array:
    del position
    axis = int(attribute(step.node, "axis", -1))
    if step.node.op_type == "LogSoftmax":
        return np.asarray(g - np.exp(step.y) * g.sum(axis=axis, keepdims=True))
    return np.asarray(step.y * (g - (g * step.y).sum(axis=axis, keepdims=True)))


def _batch_normalisation(step: Step, g: Array, position: int) -> Array:
    if position:
        raise Unknown("BatchNormalization with statistics that move")
    form = [1, -1] + [1] * (step.x.ndim - 2)
    scale, variance = step.inputs[1], step.inputs[4]
    epsilon = float(attribute(step.node, "epsilon", 1e-5))
    return np.asarray(g * (scale / np.sqrt(variance + epsilon)).reshape(form))


def _normalised(x: Array, axes: tuple[int, ...], epsilon: float, g: Array) -> Array:
    """Returns the gradient at x of (x - mean) / sqrt(variance + epsilon)."""
    centred = x - x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)
    y = centred * scale
    inner = g - g.mean(axis=axes, keepdims=True) - y * (g * y).mean(axis=axes, keepdims=True)
    return np.asarray(inner * scale)


@dataclasses.dataclass(frozen=True)
class OwnStatistics:
    """What a normalisation by statistics of its own does.

    Attributes:
        form: the sizes of x in which the axes of the statistics are axes.
        axes: these axes.
        scale: in x's own form.
        epsilon: what is added to the variance.
    """

    form: tuple[int, ...]
    axes: tuple[int, ...]
    scale: Array
    epsilon: float

    @staticmethod
    def of(step: Step) -> OwnStatistics:
        """Returns what a node does."""
        epsilon, shape = float(attribute(step.node, "epsilon", 1e-5)), step.x.shape
        if step.node.op_type in ("LayerNormalization", "RMSNormalization"):
            first = int(attribute(step.node, "axis", -1)) % len(shape)
            return OwnStatistics(shape, tuple(range(first, len(shape))), step.inputs[1], epsilon)
        form, scale = shape, step.inputs[1].reshape([1, -1, *[1] * (len(shape) - 2)])
        if step.node.op_type == "GroupNormalization":
            groups = int(attribute(step.node, "num_groups"))
            form = (shape[0], groups, shape[1] // groups, *shape[2:])
        return OwnStatistics(form, tuple(range(2, len(form))), scale, epsilon)


def _own_statistics(step: Step, g: Array, position: int) -> Array:
    if position:
        raise Unknown(f"{step.node.op_type} with a scale that moves")
    own = OwnStatistics.of(step)
    arrived = (g * own.scale).reshape(own.form)
    found = _normalised(step.x.reshape(own.form), own.axes, own.epsilon, arrived)
    return found.reshape(step.x.shape)


def _lp_normalised(step: Step, g: Array, position: int) -> Array:
    """x over its norm along an axis; onnx's evaluator forgets the magnitudes where p is 1."""
    del position
    axis, p = int(attribute(step.node, "axis", -1)), int(attribute(step.node, "p", 2))
    norm = np.linalg.norm(step.x, p, axis=axis, keepdims=True)
    there = norm > 0
    norm = np.where(there, norm, 1.0)
    y = step.x / norm
    along = (g * y).sum(axis=axis, keepdims=True)
    return np.where(there, (g - (np.sign(step.x) if p == 1 else y) * along) / norm, 0.0)


# -- all else ----------------------------------------------------------------------------------


def _resize(step: Step, g: Array, position: int) -> Array:
    """Resizing is linear, one axis after the other: unit vectors say what each axis does."""
    node, x = step.node, step.x
    scales, sizes = (*step.inputs[2:], None, None)[:2]
    crops = attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    keeps = attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    given = [p for p, a in ((2, scales), (3, sizes)) if a is not None and np.size(a)]
    named = attribute(node, "axes") or range(x.ndim)
    places = {axis % x.ndim: place for place, axis in enumerate(named)}
    asked = np.asarray(step.inputs[given[0]]) if given else np.zeros(0)
    if position or crops or keeps or len(given) != 1 or asked.size != len(places):
        return _by_differences(step, g, position)
    found = g
    for axis, (before, after) in enumerate(zip(x.shape, g.shape, strict=True)):
        if before == after and (axis not in places or given[0] == 3 or asked[places[axis]] == 1):
            continue
        if x.ndim < 2 or before * before * after > _MOST_RESIZED:
            return _by_differences(step, g, position)
        beside = 0 if axis else 1  # the axis that the unit vectors are counted along
        shape = [1] * x.ndim
        shape[axis] = shape[beside] = before
        units = np.eye(before).reshape(shape)
        small = np.ones_like(asked)
        small[places[axis]] = asked[places[axis]]
        if given[0] == 3 and beside in places:
            small[places[beside]] = before
        rows = step.at({0: units, given[0]: small}).reshape(
            (before, after) if beside < axis else (after, before)
        )
        matrix = rows if beside < axis else rows.T
        found = np.moveaxis(np.tensordot(found, matrix, (axis, 1)), -1, axis)
    return found


def _grid_sample(step: Step, g: Array, position: int) -> Array:
    """Samples pictures of one pixel each: what comes out are the weights of that pixel.

    The slope at a place that is a pixel is that of the way to the next one, as frameworks have it.

    Raises:
        Unknown: there are too many.
    """
    x, (grid,) = step.x, step.inputs[1:]
    if position:
        return _of_places(step, g, np.asarray(grid))
    sizes, count = x.shape[2:], int(np.prod(x.shape[2:]))
    if grid is None or count * g[0, 0].size > _MOST_SAMPLED:
        raise Unknown(key_of(step.node))
    pixels = np.eye(count).reshape(1, count, *sizes)
    found = np.zeros((*x.shape[:2], count))
    for n, row in enumerate(grid):
        weights = step.evaluate(step.node, [pixels, row[None]])[0].reshape(count, -1)
        found[n] = g[n].reshape(len(g[n]), -1) @ weights.T
    return found.reshape(x.shape)


def _of_places(step: Step, g: Array, places: Array) -> Array:
    """Moves one coordinate of all places at once, of which each has samples of its own."""
    found = np.zeros(places.shape)
    for axis in range(places.shape[-1]):
        moved = places.copy()
        moved[..., axis] += _STEP
        change = step.at({1: moved}) - step.at({})
        found[..., axis] = (change * g).sum(axis=1) / _STEP
    return found


def _by_differences(step: Step, g: Array, position: int) -> Array:
    """Moves each element of an input by itself.

    Raises:
        Unknown: there are too many, or the node cannot be evaluated alone.
    """
    x = step.inputs[position]
    key = key_of(step.node)
    inner = any(a.type in _GRAPHS for a in step.node.attributes.values())
    if inner or step.node.domain or x.size > _SMALL:
        raise Unknown(key)
    found = np.zeros(x.size)
    if not _evaluates(step):
        raise Unknown(f"{key}, of which the evaluation is not what the model computes")
    try:
        for i in range(x.size):
            h = _STEP * max(1.0, abs(float(x.reshape(-1)[i])))
            h = 1.0 if key in _LINEAR else h
            there = []
            for sign in (1.0, -1.0):
                moved = x.copy()
                moved.reshape(-1)[i] += sign * h
                there.append(step.at({position: moved}))
            change = there[0] - there[1]
            # What does not change has no part, though a number that is none may arrive there.
            found[i] = np.where(change == 0, 0, change * g).sum() / (2 * h)
    except Exception as error:
        raise Unknown(key) from error
    return found.reshape(x.shape)


def _evaluates(step: Step) -> bool:
    """Tells whether evaluating a node gives what the model's own run gave, if it gives anything."""
    if not step.outputs or step.outputs[0] is None:
        return True
    try:
        found, y = step.at({}), step.y
    except Exception:  # whoever moves its inputs finds out
        return True
    if found.shape != y.shape:
        return False
    finite = np.isfinite(y) & np.isfinite(found)
    largest = np.abs(y[finite]).max(initial=0.0)
    return bool(np.all(np.abs(found - y)[finite] <= _EVALUATED_ALIKE * largest))


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

_FORMULAS: Mapping[str, _Formula] = {
    f"{MARK_DOMAIN}::{STRAIGHT_THROUGH}": _straight_through,
    "ScatterElements": _scattered,
    "ScatterND": _scattered,
    "Add": _add,
    "Sum": _add,
    "Sub": _sub,
    "Mean": _mean,
    "Neg": lambda _, g, __: -g,
    "Mul": _mul,
    "Div": _div,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "ReduceSum": _reduce_sum,
    "ReduceMean": _reduce_mean,
    "ReduceMax": _reduce_extreme,
    "ReduceMin": _reduce_extreme,
    "ReduceL1": _reduced_by(lambda x, _: np.sign(x)),
    "ReduceL2": _reduced_by(lambda x, y: x / np.where(y == 0, 1, y)),
    "ReduceSumSquare": _reduced_by(lambda x, _: 2 * x),
    "ReduceLogSum": _reduced_by(lambda _, y: np.exp(-y)),
    "ReduceLogSumExp": _reduced_by(lambda x, y: np.exp(x - y)),
    "CumSum": _cumulative,
    "TopK": _top_k,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "BatchNormalization": _batch_normalisation,
    "LayerNormalization": _own_statistics,
    "LpNormalization": _lp_normalised,
    "InstanceNormalization": _own_statistics,
    "GroupNormalization": _own_statistics,
    "Resize": _resize,
    "GridSample": _grid_sample,
}
