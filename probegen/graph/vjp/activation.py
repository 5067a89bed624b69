"""Rules of activation functions.

`x` is a node's input, `y` its output, `g` the gradient of `y`. A rule uses `y` where it can:
the input of an activation is often fused away, its output is kept for the next layer anyway. It
does not where y runs to a bound and the slope is what is left to it: see `saturating`.
Where a function has a kink, its slope there is the one TensorFlow's gradient op takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.composite_ops import GELU_C, GELU_CUBIC
from probegen.graph.core.values import attribute, dtype_of
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    axis_of,
    given,
    inputs,
    pointwise,
    unary,
)
from probegen.graph.vjp.edges import may_not_be_finite, product, zero_where
from probegen.graph.vjp.masks import above, below
from probegen.graph.vjp.saturating import (
    times_sigmoid,
    times_slope_of_sigmoid,
    times_slope_of_tanh,
)

# -- rectifiers ----------------------------------------------------------------------------


def _relu(v: Local) -> ir.Value:
    """Slope 1 where y > 0, 0 at 0 and below."""
    return v.b.mul(v.g, above(v.b, v.y, 0.0))


def _leaky_relu(v: Local) -> ir.Value:
    """Slope 1 where x > 0, alpha at 0 and below."""
    b, alpha = v.b, v.number("alpha", 0.01)
    positive = above(b, v.y if alpha >= 0 else v.x, 0.0)
    if 0 <= alpha <= 1:
        return b.mul(v.g, b.elementwise("Max", positive, alpha))
    return b.mul(v.g, b.add(b.mul(positive, 1 - alpha), alpha))


def prelu(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """PRelu: slope 1 where x >= 0, the learned slope below; that gets g * min(x, 0)."""
    b = walk.builder
    g, (x, slope) = given(dy), inputs(node)
    if x in walk.wanted and (walk.is_unbounded(g) or may_not_be_finite(x)):
        positive = b.elementwise("GreaterOrEqual", x, 0.0)
        through = product(walk, g, b.where(positive, b.scalar(1.0, g), slope))
        yield x, zero_where(b, g, through)
    elif x in walk.wanted:
        passed = b.mul(g, above(b, x, 0.0, inclusive=True))
        yield x, b.add(passed, b.mul(b.sub(g, passed), slope))
    if slope in walk.wanted:
        yield slope, b.unbroadcast(b.mul(g, b.elementwise("Min", x, 0.0)), slope)


def _thresholded_relu(v: Local) -> ir.Value:
    """Slope 1 where x > alpha, 0 at alpha and below."""
    return v.b.mul(v.g, above(v.b, v.x, v.number("alpha", 1.0)))


# -- exponential units ---------------------------------------------------------------------


def _below_zero(v: Local, steepness: float = 1.0) -> ir.Value:
    """Returns exp(x * steepness) where x < 0, else 1; y + 1 has lost it where y is about -1."""
    return v.b.elementwise("Exp", v.b.mul(v.b.elementwise("Min", v.x, 0.0), steepness))


def _elu(v: Local) -> ir.Value:
    """Slope 1 where x > 0, alpha * exp(x) at 0 and below."""
    b, alpha = v.b, v.number("alpha", 1.0)
    if alpha == 1:
        return b.mul(v.g, _below_zero(v))
    passed = b.mul(v.g, above(b, v.x, 0.0))
    return b.add(passed, b.mul(b.sub(v.g, passed), b.mul(_below_zero(v), alpha)))


def _selu(v: Local) -> ir.Value:
    """Slope gamma where x >= 0, gamma * alpha * exp(x) below."""
    b = v.b
    alpha = v.number("alpha", 1.67326319217681884765625)
    gamma = v.number("gamma", 1.05070102214813232421875)
    same_sign = gamma > 0 and alpha > 0
    passed = b.mul(v.g, above(b, v.y if same_sign else v.x, 0.0, inclusive=True))
    below_zero = b.mul(b.sub(v.g, passed), b.mul(_below_zero(v), gamma * alpha))
    return b.add(b.mul(passed, gamma), below_zero)


def _celu(v: Local) -> ir.Value:
    """Slope 1 where x >= 0, exp(x / alpha) below."""
    return v.b.mul(v.g, _below_zero(v, 1 / v.number("alpha", 1.0)))


# -- sigmoids and what is built on them ------------------------------------------------------


def _sigmoid(v: Local) -> ir.Value:
    """Slope y (1 - y), from x."""
    if _is_map_inside(v.y):
        return v.b.mul(v.g, v.b.mul(v.y, v.b.sub(1.0, v.y)))
    return times_slope_of_sigmoid(v.b, v.g, v.x)


def _hard_sigmoid(v: Local) -> ir.Value:
    """Slope alpha where 0 < y < 1, 0 on the bounds, as TensorFlow's relu6 has it."""
    b = v.b
    inside = b.mul(above(b, v.y, 0.0), below(b, v.y, 1.0))
    return b.mul(v.g, b.mul(inside, v.number("alpha", 0.2)))


def _hard_swish(v: Local) -> ir.Value:
    """Slope h + x / 6 between -3 and 3, h outside; h is clip(x / 6 + 1/2, 0, 1)."""
    b = v.b
    gate = b.op("HardSigmoid", v.x, shape=v.x, alpha=1 / 6, beta=0.5)
    inside = b.mul(above(b, v.x, -3.0), below(b, v.x, 3.0))
    return b.mul(v.g, b.add(gate, b.mul(b.mul(v.x, 1 / 6), inside)))


def _swish(v: Local) -> ir.Value:
    """Slope s + alpha * y * (1 - s), s the sigmoid of alpha * x."""
    b, alpha = v.b, v.number("alpha", 1.0)
    gate = b.elementwise("Sigmoid", b.mul(v.x, alpha))
    rest = b.mul(b.mul(v.y, alpha), b.sub(1.0, gate))
    return b.mul(v.g, b.add(gate, rest))


def _mish(v: Local) -> ir.Value:
    """Slope t + x * s * (1 - t * t), t the tanh of softplus(x), s the sigmoid of x."""
    b = v.b
    t = b.elementwise("Tanh", b.elementwise("Softplus", v.x))
    s = b.elementwise("Sigmoid", v.x)
    bend = b.mul(b.mul(v.x, s), b.sub(1.0, b.mul(t, t)))
    return b.mul(v.g, b.add(t, bend))


def _softplus(v: Local) -> ir.Value:
    """Slope sigmoid(x)."""
    return times_sigmoid(v.b, v.g, v.x)


def _tanh(v: Local) -> ir.Value:
    """Slope 1 - y * y, from x."""
    if _is_map_inside(v.y):
        return v.b.mul(v.g, v.b.sub(1.0, v.b.mul(v.y, v.y)))
    return times_slope_of_tanh(v.b, v.g, v.x)


def _is_map_inside(y: ir.Value) -> bool:
    """Tells whether a convolution or pooling reads y: one number of thousands that are summed up.

    There the slope is taken from y, which a convolution fuses: it is off by a rounding of 1, which
    counts where all of a map is saturated alone, and the other form takes a tenth of the pass.
    """
    return any(node.op_type in _OF_MAPS and not node.domain for node, _ in y.uses())


def _softsign(v: Local) -> ir.Value:
    """Slope 1 / (1 + |x|)**2."""
    b = v.b
    width = b.add(b.elementwise("Abs", v.x), 1.0)
    return b.div(b.div(v.g, width), width)


# -- the Gaussian error linear unit ----------------------------------------------------------


def _gelu(v: Local) -> ir.Value:
    """Hendrycks and Gimpel, 2016 (arXiv:1606.08415), exact or by their tanh.

    Of ONNX' own operator, which gives its result alone, the pieces are written again.
    """
    b, x = v.b, v.x
    if attribute(v.node, "approximate", "none") == "tanh":
        u = b.mul(x, b.add(b.mul(b.mul(x, x), GELU_C * GELU_CUBIC), GELU_C))
        return b.mul(v.g, slope_by_tanh(b, x, _half_above(b, b.elementwise("Tanh", u)), u))
    u = b.mul(x, math.sqrt(0.5))
    return b.mul(v.g, slope_by_erf(b, _half_above(b, b.elementwise("Erf", u)), u))


def _half_above(b: Builder, curve: ir.Value) -> ir.Value:
    """Returns (1 + curve) / 2."""
    return b.mul(b.add(curve, 1.0), 0.5)


def slope_by_erf(b: Builder, p: ir.Value, u: ir.Value) -> ir.Value:
    """Returns P + x * density(x) = P + u * exp(-u * u) / sqrt(pi).

    exp(u * u) may become infinite; u over it is the 0 that it should be.
    """
    bell = b.div(u, b.elementwise("Exp", b.mul(u, u)))
    return b.add(p, b.mul(bell, 1 / math.sqrt(math.pi)))


def slope_by_tanh(b: Builder, x: ir.Value, p: ir.Value, u: ir.Value) -> ir.Value:
    """Returns P + 2 P (1 - P) x u', where x u' = 3 u - 2 c x.

    u is of the third degree and may become infinite, in 16 bits from 122 on, where P (1 - P)
    is 0 since long.
    """
    bend = b.sub(b.mul(u, 6.0), b.mul(x, 4 * GELU_C))
    most = float(np.finfo(dtype_of(x).numpy()).max)
    bend = b.op("Clip", bend, b.scalar(-most, x), b.scalar(most, x), shape=bend)
    return b.mul(p, b.add(b.mul(b.sub(1.0, p), bend), 1.0))


# -- along an axis -------------------------------------------------------------------------


def _softmax(v: Local) -> ir.Value:
    """The gradient (g - sum(g * y)) * y.

    A row that is masked whole is no number; where nothing arrives at it, nothing goes on.
    """
    b = v.b
    axis = axis_of(v.node, v.x, -1)
    total = b.reduce_sum(product(v.walk, v.g, v.y), [axis], keepdims=True)
    return _without_sum(v, product(v.walk, b.sub(v.g, total), v.y), v.y, axis)


def _log_softmax(v: Local) -> ir.Value:
    """The gradient g - exp(y) * sum(g)."""
    b = v.b
    axis = axis_of(v.node, v.x, -1)
    total = b.reduce_sum(v.g, [axis], keepdims=True)
    y = b.elementwise("Exp", v.y)
    return _without_sum(v, b.sub(v.g, product(v.walk, total, y)), y, axis)


def _without_sum(v: Local, gradient: ir.Value, y: ir.Value, axis: int) -> ir.Value:
    """Returns the gradient of a softmax y without the sum along the axis, which is to be 0.

    Where y is nearly 1 the gradient is a difference of two numbers that are nearly equal: it is
    off by their rounding, which is more than the whole of it where a softmax is saturated. The
    gradients of all others are exact, and so the sum is what that one is off by.
    """
    rest = v.b.reduce_sum(gradient, [axis], keepdims=True)
    return v.b.sub(gradient, product(v.walk, rest, y))


_OF_MAPS = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})

RULES: Mapping[str, Rule] = {
    "Relu": pointwise(_relu),
    "LeakyRelu": pointwise(_leaky_relu),
    "PRelu": prelu,
    "ThresholdedRelu": pointwise(_thresholded_relu),
    "Elu": pointwise(_elu),
    "Selu": pointwise(_selu),
    "Celu": pointwise(_celu),
    "Sigmoid": pointwise(_sigmoid),
    "HardSigmoid": pointwise(_hard_sigmoid),
    "HardSwish": pointwise(_hard_swish),
    "Swish": pointwise(_swish),
    "Mish": pointwise(_mish),
    "Softplus": pointwise(_softplus),
    "Tanh": pointwise(_tanh),
    "Softsign": pointwise(_softsign),
    "Gelu": pointwise(_gelu),
    "Softmax": unary(_softmax),
    "LogSoftmax": unary(_log_softmax),
}
