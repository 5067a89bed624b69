"""Functions of angles; those of float64, for which onnxruntime has no kernels, by polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.functions import polynomial
from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto


def tangent(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Tan of float64 as sine over cosine."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        w.finish("Div", w.op("Sin", *w.inputs), w.op("Cos", *w.inputs))


def arctangent(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Atan of float64."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        w.give(_arctangent(w, *w.inputs))


def _arctangent(w: Writer, x: str) -> str:
    """Returns the arctangent, of float64 to 1e-15.

    Up to 1 it is x times a polynomial of x squared, which is smooth at 0; beyond, a right angle
    less that of 1 / x.
    """
    if w.dtype != _Type.DOUBLE:
        return w.op("Atan", x)
    one = w.const(1)
    flat = w.test("LessOrEqual", w.op("Abs", x), one)
    turned = w.op("Reciprocal", w.where(flat, one, x))
    within = w.where(flat, x, turned)
    small = _times_even(w, within, math.atan, 1.0)
    right = w.where(w.test("Less", x, w.const(0)), w.const(-np.pi / 2), w.const(np.pi / 2))
    return w.where(flat, small, w.op("Sub", right, small))


def arcsine(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Asin of float64: beyond a half by the half of the angle that is left to 1."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        (x,) = w.inputs
        near, small, left = _arcsine_in_parts(w, x)
        far = w.op("Sub", w.const(np.pi / 2), left)
        below = w.test("Less", x, w.const(0))
        w.give(w.where(near, small, w.where(below, w.op("Neg", far), far)))


def arccosine(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Acos of float64: close to 1 as the angle that is left, of which every digit counts."""
    w = Writer(context, node)
    if w.dtype == _Type.DOUBLE:
        (x,) = w.inputs
        near, small, left = _arcsine_in_parts(w, x)
        below = w.test("Less", x, w.const(0))
        far = w.where(below, w.op("Sub", w.const(np.pi), left), left)
        w.give(w.where(near, w.op("Sub", w.const(np.pi / 2), small), far))


def _arcsine_in_parts(w: Writer, x: str) -> tuple[str, str, str]:
    """Returns where |x| is at most a half, asin(x) there, and acos(|x|), of float64 to 1e-15.

    The first is x times a polynomial of x squared, the second 2 asin(sqrt((1 - |x|) / 2)).
    """
    half, size = w.const(0.5), w.op("Abs", x)
    near = w.test("LessOrEqual", size, half)
    small = _times_even(w, w.where(near, x, w.const(0)), math.asin, 0.5)
    rest = w.op("Mul", w.op("Sub", w.const(1), w.where(near, half, size)), half)
    left = _times_even(w, w.op("Sqrt", rest), math.asin, 0.5)
    return near, small, w.op("Mul", left, w.const(2))


def _times_even(w: Writer, x: str, function: Callable[[float], float], end: float) -> str:
    """Returns an odd function up to a bound: x times a polynomial of x squared."""
    squares = (0.0, end * end)
    ratio = polynomial(w, w.op("Mul", x, x), lambda u: function(u**0.5) / u**0.5, squares)
    return w.op("Mul", x, ratio)


def atan2(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `atan2(y, x)`; tf2onnx has a product of signs, whose slope is lost where one is 0."""
    w = Writer(context, node)
    kind = w.dtype
    if kind != _Type.DOUBLE:
        w.dtype = _Type.FLOAT  # onnxruntime has no arctangent of others
    y, x = (w.cast(name, w.dtype) for name in w.inputs)
    w.give(w.cast(angle(w, y, x), kind))


def angle(w: Writer, y: str, x: str) -> str:
    """Returns the angle of points by the arctangent of the smaller over the larger.

    Where the larger is 0 it is taken for 1. The gradient through the quotient is then the true
    one everywhere but at 0, 0, where there is none.
    """
    flat = w.test("GreaterOrEqual", w.op("Abs", x), w.op("Abs", y))
    zero, half = w.const(0), w.const(np.pi / 2)
    down, back = _is_negative(w, y), _is_negative(w, x)
    smaller, larger = w.where(flat, y, x), w.where(flat, x, y)
    safe = w.where(w.test("Equal", larger, zero), w.const(1), larger)
    turned = _arctangent(w, w.op("Div", smaller, safe))
    turn = w.where(down, w.const(-np.pi), w.const(np.pi))
    level = w.op("Add", turned, w.where(back, turn, zero))
    steep = w.op("Sub", w.where(down, w.op("Neg", half), half), turned)
    both = w.test("And", w.test("IsInf", y), w.test("IsInf", x))
    corner = w.where(back, w.const(np.pi * 3 / 4), w.const(np.pi / 4))
    corner = w.where(down, w.op("Neg", corner), corner)
    return w.where(both, corner, w.where(flat, level, steep))


def _is_negative(w: Writer, name: str) -> str:
    """Returns where numbers are negative; -0 is."""
    zero = w.const(0)
    turned = w.test("Less", w.op("Reciprocal", name), zero)
    return w.test("Or", w.test("Less", name, zero), turned)
