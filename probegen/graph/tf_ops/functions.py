"""Functions of single numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from probegen.graph.tf_ops.writer import Writer

_Type = onnx.TensorProto


def erfc(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Erfc(x)` (exact GELU) as `1 - Erf(x)`."""
    w = Writer(context, node)
    w.finish("Sub", w.const(1), w.op("Erf", *w.inputs))


def expm1(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Expm1(x)` as `exp(x) - 1`: its gradient is then `exp(x)`, exact everywhere."""
    w = Writer(context, node)
    w.finish("Sub", w.op("Exp", *w.inputs), w.const(1))


def log1p(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Log1p(x)` as `log(1 + x)`."""
    w = Writer(context, node)
    w.finish("Log", w.op("Add", *w.inputs, w.const(1)))


def atan2(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `atan2(y, x)` by the arctangent of the smaller over the larger.

    Where the larger is 0 it is taken for 1. The gradient through the quotient is then the true
    one everywhere but at 0, 0, where there is none. tf2onnx has a product of signs, whose slope
    is lost where one is 0.
    """
    w = Writer(context, node)
    given = w.dtype
    w.dtype = _Type.FLOAT  # onnxruntime has no arctangent of others
    y, x = (w.cast(name, w.dtype) for name in w.inputs)
    flat = w.test("GreaterOrEqual", w.op("Abs", x), w.op("Abs", y))
    zero, half = w.const(0), w.const(np.pi / 2)
    down, back = _is_negative(w, y), _is_negative(w, x)
    angle = w.op("Atan", w.op("Div", w.where(flat, y, x), _not_zero(w, w.where(flat, x, y))))
    turn = w.where(down, w.const(-np.pi), w.const(np.pi))
    level = w.op("Add", angle, w.where(back, turn, zero))
    steep = w.op("Sub", w.where(down, w.op("Neg", half), half), angle)
    both = w.test("And", w.test("IsInf", y), w.test("IsInf", x))
    corner = w.where(back, w.const(np.pi * 3 / 4), w.const(np.pi / 4))
    corner = w.where(down, w.op("Neg", corner), corner)
    made = w.where(both, corner, w.where(flat, level, steep))
    w.give(w.cast(made, given))


def in_single_precision(context: Any, node: Any, _: str, __: Any) -> None:
    """Computes a function of float64 in float32, where onnxruntime has no other on a CPU."""
    if context.get_dtype(node.output[0]) == _Type.DOUBLE:
        w = Writer(context, node)
        given = (w.cast(name, _Type.FLOAT) for name in w.inputs)
        w.give(w.op(node.type, *given, dtype=_Type.FLOAT))


def _is_negative(w: Writer, name: str) -> str:
    """Returns where numbers are negative; -0 is."""
    zero = w.const(0)
    return w.test("Or", w.test("Less", name, zero), w.test("Less", w.op("Reciprocal", name), zero))


def _not_zero(w: Writer, name: str) -> str:
    """Returns numbers with 1 in the place of 0."""
    return w.where(w.test("Equal", name, w.const(0)), w.const(1), name)
