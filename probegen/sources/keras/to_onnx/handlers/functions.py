"""Functions of single numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import Handler, Writer

_Type = onnx.TensorProto


def erfc(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Erfc(x)` (exact GELU) as `1 - Erf(x)`."""
    w = Writer(context, node)
    w.finish("Sub", w.const(1), _erf(w, w.inputs[0]))


def erf(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Erf` of float64, which onnxruntime lacks, by polynomials."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        w.give(_erf(w, w.inputs[0]))


#: Where one polynomial of the error function ends and the other begins, and where it is 1.
_MIDDLE, _END = 2.0, 6.2


def _erf(w: Writer, x: str) -> str:
    """Returns the error function, of float64 to 1e-15.

    In the middle it is x times a polynomial of x squared, which is smooth at 0; outside, with
    z = |x| and t = 2 / (2 + z), one less t exp(p(t) - z^2) (Press et al., Numerical Recipes, 6.2).
    """
    if w.dtype != _Type.DOUBLE:
        return w.op("Erf", x)
    near, squares = w.test("Less", w.op("Abs", x), w.const(_MIDDLE)), (0.0, _MIDDLE**2)
    inside = w.where(near, x, w.const(0))
    ratio = polynomial(w, w.op("Mul", inside, inside), lambda u: math.erf(u**0.5) / u**0.5, squares)
    z = w.op("Min", w.op("Max", w.op("Abs", x), w.const(_MIDDLE)), w.const(_END))
    t = w.op("Div", w.const(2), w.op("Add", z, w.const(2)))

    def exponent(t: float) -> float:
        z = 2 / t - 2
        return math.log(math.erfc(z) / t) + z * z

    p = polynomial(w, t, exponent, (2 / (2 + _END), 2 / (2 + _MIDDLE)))
    rest = w.op("Mul", t, w.op("Exp", w.op("Sub", p, w.op("Mul", z, z))))
    far = w.op("Mul", w.op("Sign", x), w.op("Sub", w.const(1), rest))
    return w.where(near, w.op("Mul", inside, ratio), far)


#: The degree of polynomials that stand for functions to the last bits of float64.
_DEGREE = 20


def polynomial(
    w: Writer, x: str, function: Callable[[float], float], bounds: tuple[float, float]
) -> str:
    """Returns a function between two bounds by Chebyshev polynomials, by Clenshaw's recurrence."""
    low, high = bounds
    angles = np.pi * (np.arange(10 * _DEGREE) + 0.5) / (10 * _DEGREE)
    values = [function(v) for v in (low + high) / 2 + (high - low) / 2 * np.cos(angles)]
    first, *others = np.polynomial.chebyshev.chebfit(np.cos(angles), values, _DEGREE).tolist()
    at = w.op("Mul", w.op("Sub", x, w.const((low + high) / 2)), w.const(2 / (high - low)))
    twice = w.op("Add", at, at)
    one, before = w.const(others[-1]), w.const(0)
    for coefficient in reversed(others[:-1]):
        moved = w.op("Sub", w.op("Mul", twice, one), before)
        one, before = w.op("Add", moved, w.const(coefficient)), one
    return w.op("Add", w.op("Sub", w.op("Mul", at, one), before), w.const(first))


def softplus(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Softplus of float64 by exponentials; of float16 in float32.

    onnxruntime has no kernel for one, and that of the other is infinite too early. The
    logarithm of w, which is 1 + u rounded, is off by `((w - 1) - u) / w`: far below 0 by all of it.
    """
    w = Writer(context, node)
    if w.dtype == _Type.FLOAT16:
        in_single_precision(_Type.FLOAT16)(context, node, _, __)
    if w.dtype != _Type.DOUBLE:
        return
    x = w.inputs[0]
    large = w.test("Greater", x, w.const(_LARGE))
    inside = w.where(large, w.const(0), x)
    u = w.op("Exp", inside)
    whole = w.op("Add", u, w.const(1))
    rounded = w.op("Sub", w.op("Sub", whole, w.const(1)), u)
    small = w.op("Sub", w.op("Log", whole), w.op("Div", rounded, whole))
    w.give(w.where(large, x, small))


#: Above this log(1 + exp(x)) is x in float64.
_LARGE = 40.0
#: Of the scaled exponential linear unit (Klambauer et al. 2017).
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def selu(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Selu of float64 in pieces: ONNX has its two numbers in float32 alone.

    At 0 itself, where no input is below, the slope is that of the numbers above, as TensorFlow's.
    """
    w = Writer(context, node)
    if w.dtype != _Type.DOUBLE:
        return
    x = w.inputs[0]
    below = w.test("Less", x, w.const(0))
    curve = w.op("Sub", w.op("Exp", w.where(below, x, w.const(0))), w.const(1))
    bent = w.where(below, w.op("Mul", curve, w.const(_SELU_ALPHA)), x)
    w.finish("Mul", bent, w.const(_SELU_SCALE))


def expm1(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Expm1(x)` as `exp(x) - 1`: its gradient is then `exp(x)`, exact everywhere."""
    w = Writer(context, node)
    w.finish("Sub", w.op("Exp", *w.inputs), w.const(1))


def log1p(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Log1p(x)` as `log(1 + x)`."""
    w = Writer(context, node)
    w.finish("Log", w.op("Add", *w.inputs, w.const(1)))


def in_single_precision(*kinds: int) -> Handler:
    """Returns a handler that computes numbers of some types in float32.

    onnxruntime has no kernel for them, or one that is infinite too early.
    """

    def handler(context: Any, node: Any, _: str, __: Any) -> None:
        if context.get_dtype(node.input[0]) in kinds:
            w = Writer(context, node)
            gives = _Type.BOOL if w.dtype == _Type.BOOL else _Type.FLOAT
            w.give(w.op(node.type, *(w.cast(x, _Type.FLOAT) for x in w.inputs), dtype=gives))

    return handler


def keep(_: Any, __: Any, ___: str, ____: Any) -> None:
    """Keeps an operation that ONNX has too."""


def hyperbolic(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Sinh and Cosh of float64, which onnxruntime lacks, by exponentials."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        up, down = w.op("Exp", w.inputs[0]), w.op("Exp", w.op("Neg", w.inputs[0]))
        w.finish("Mul", w.op("Sub" if node.type == "Sinh" else "Add", up, down), w.const(0.5))


def inverse_hyperbolic(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Asinh, Acosh and Atanh of float64, which onnxruntime lacks, by logarithms.

    Asinh by that of the size, as the two summands cancel below 0; by a choice, not by a sign, whose
    slope at 0 would be none.
    """
    w = Writer(context, node)
    if w.dtype != _Type.DOUBLE:
        return
    (x,), one = w.inputs, w.const(1)
    if node.type == "Atanh":
        apart = w.op("Sub", w.op("Log", w.op("Add", one, x)), w.op("Log", w.op("Sub", one, x)))
        w.finish("Mul", apart, w.const(0.5))
        return
    is_sine = node.type == "Asinh"
    root = w.op("Sqrt", w.op("Add" if is_sine else "Sub", w.op("Mul", x, x), one))
    ahead = w.op("Log", w.op("Add", root, x))
    if is_sine:
        behind = w.op("Neg", w.op("Log", w.op("Sub", root, x)))
        ahead = w.where(w.test("Less", x, w.const(0)), behind, ahead)
    w.give(ahead)


def half_square(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes half of the sum of squares."""
    w = Writer(context, node)
    total = w.op("ReduceSumSquare", w.inputs[0], keepdims=0)
    w.finish("Mul", total, w.const(0.5))


def cross_entropy(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the cross entropy of labels, and its gradient, which the operation gives as well."""
    w = Writer(context, node)
    scores, labels = w.inputs
    count = w.reshape(w.size(scores, 1), [])
    bounds = w.const(0, _Type.INT64), count, w.const(1, _Type.INT64)
    classes = w.op("Range", *bounds, dtype=_Type.INT64)
    hit = w.test("Equal", w.unsqueeze(w.cast(labels, _Type.INT64), [1]), classes)
    taken = w.where(hit, w.op("LogSoftmax", scores, axis=-1), w.const(0))
    slope = w.op("Sub", w.op("Softmax", scores, axis=-1), w.cast(hit, w.dtype))
    w.give(w.op("Neg", w.sum(taken, [1])), slope)


def is_finite(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes what is a number and not infinite."""
    w = Writer(context, node)
    x = w.inputs[0]
    x = w.cast(x, _Type.FLOAT) if w.dtype_of(x) == _Type.FLOAT16 else x
    w.finish("Not", w.test("Or", w.test("IsInf", x), w.test("IsNaN", x)))


def is_inf(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes what is infinite, of 16 bits too."""
    w = Writer(context, node)
    x = w.inputs[0]
    w.finish("IsInf", w.cast(x, _Type.FLOAT) if w.dtype_of(x) == _Type.FLOAT16 else x)


def reciprocal(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `1 / x`."""
    w = Writer(context, node)
    w.finish("Reciprocal", *w.inputs)


def xlogy(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `x log(y)`, and `x log(1 + y)`: 0 where x is 0, whatever y is."""
    w = Writer(context, node)
    x, y = w.inputs
    if node.type == "Xlog1py":
        y = w.op("Add", y, w.const(1))
    is_zero = w.test("Equal", x, w.const(0))
    wide = w.op("Mul", x, w.op("Log", w.where(is_zero, w.const(1), y)))
    w.finish("Where", is_zero, w.const(0), wide)


def xdivy(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `x / y`: 0 where x is 0, whatever y is."""
    w = Writer(context, node)
    x, y = w.inputs
    is_zero = w.test("Equal", x, w.const(0))
    w.finish("Where", is_zero, w.const(0), w.op("Div", x, w.where(is_zero, w.const(1), y)))


def approximate_equal(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes where two numbers are less than a distance apart."""
    w = Writer(context, node)
    kind = w.dtype_of(w.inputs[0])
    apart = w.op("Abs", w.op("Sub", *w.inputs, dtype=kind), dtype=kind)
    w.finish("Less", apart, w.const(node.get_attr_value("tolerance"), kind))


def cross(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the cross product along the last axis."""
    w = Writer(context, node)
    next_, after = (w.indices(order) for order in ([1, 2, 0], [2, 0, 1]))
    (a, b), (c, d) = ([w.op("Gather", x, i, axis=-1) for i in (next_, after)] for x in w.inputs)
    w.finish("Sub", w.op("Mul", a, d), w.op("Mul", b, c))
