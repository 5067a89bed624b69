"""Slopes of functions that run to a bound, from their argument.

From the result y of a sigmoid the slope is y (1 - y), from that of a tanh 1 - y * y. Where 32-bit
floats round y to 1, both differences have lost what was there: of a sigmoid the slope is off by a
tenth from about 14 on, and is 0 from 17 on, where it still is 4e-8 and all that a saturated score
has. From the argument there is no difference to lose digits in. An exponential that overflows makes
the slope the 0 that it should be; the argument may be infinite.

Sigmoids of engines are no help: onnxruntime's is exact to a rounding of 1, so that `sigmoid(-x)` is
worth no more than `1 - y`, and a sigmoid of -16 has no digits. Its exponential is exact to a
rounding of the result.

Values of 16 bits are widened: an exponential of 12 is infinite there.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dtype_of
from probegen.graph.vjp.common import widened

#: Not far beyond it, exponentials of 32 bits are infinite.
_MOST = 87.0


def times_slope_of_sigmoid(b: Builder, g: ir.Value, x: ir.Value) -> ir.Value:
    """Returns g / (2 + exp(x) + exp(-x)), which is g times the slope of the sigmoid at x."""
    return _over(b, g, b.add(_both_exponentials(b, x), 2.0))


def times_slope_of_tanh(b: Builder, g: ir.Value, x: ir.Value) -> ir.Value:
    """Returns g / cosh(x)^2, which is g times the slope of tanh at x."""
    inverse = _inverse_of_cosh(b, x)
    return b.cast(b.mul(b.mul(widened(b, g), inverse), inverse), dtype_of(g))


def times_sigmoid(b: Builder, g: ir.Value, x: ir.Value) -> ir.Value:
    """Returns g / (1 + exp(-x)), which is g times the sigmoid, to a rounding of a small one too."""
    return _over(b, g, b.add(b.elementwise("Exp", b.neg(widened(b, x))), 1.0))


def slope_of_sigmoid(b: Builder, x: ir.Value) -> ir.Value:
    """Returns the slope of the sigmoid at x."""
    return times_slope_of_sigmoid(b, b.scalar(1.0, x), x)


def slope_of_tanh(b: Builder, x: ir.Value) -> ir.Value:
    """Returns the slope of tanh at x."""
    inverse = _inverse_of_cosh(b, x)
    return b.cast(b.mul(inverse, inverse), dtype_of(x))


def sigmoid_and_rest(b: Builder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Returns the sigmoid of x, and 1 less it, which is the sigmoid of -x; each to its rounding."""
    up = b.elementwise("Exp", b.elementwise("Min", widened(b, x), _MOST))
    rest = b.elementwise("Reciprocal", b.add(up, 1.0))
    return b.cast(b.mul(up, rest), dtype_of(x)), b.cast(rest, dtype_of(x))


def _both_exponentials(b: Builder, x: ir.Value) -> ir.Value:
    """Returns exp(x) + exp(-x)."""
    up = b.elementwise("Exp", widened(b, x))
    return b.add(up, b.elementwise("Reciprocal", up))


def _inverse_of_cosh(b: Builder, x: ir.Value) -> ir.Value:
    return b.div(2.0, _both_exponentials(b, x))


def _over(b: Builder, g: ir.Value, below: ir.Value) -> ir.Value:
    """Returns g / below, as g is typed."""
    return b.cast(b.div(widened(b, g), below), dtype_of(g))
