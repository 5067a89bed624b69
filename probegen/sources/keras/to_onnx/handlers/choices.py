"""Operations that choose between values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto

#: Element types that onnxruntime chooses between, and what others are carried in.
_CHOSEN = frozenset(
    {
        _Type.FLOAT,
        _Type.FLOAT16,
        _Type.DOUBLE,
        _Type.INT32,
        _Type.INT64,
        _Type.UINT8,
        _Type.STRING,
    }
)
_WIDER: Mapping[int, int] = {
    _Type.INT8: _Type.INT32,
    _Type.INT16: _Type.INT32,
    _Type.UINT16: _Type.INT32,
    _Type.UINT32: _Type.INT64,
    _Type.UINT64: _Type.INT64,
    _Type.BOOL: _Type.UINT8,
}


def select(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `where(c, a, b)` as a Where.

    tf2onnx writes `c * a + (1 - c) * b`, in which whatever is infinite or no number in the
    branch that is not taken makes the result no number.
    """
    w = Writer(context, node)
    condition, one, other = w.inputs
    if node.type == "Select" and w.rank_of(condition) == 1:
        condition = _along_first_axis(w, condition, one, other)
    if w.dtype in _CHOSEN:
        w.finish("Where", condition, one, other)
        return
    carrier = _WIDER[w.dtype]
    w.give(w.where(condition, w.cast(one, carrier), w.cast(other, carrier)))


def _along_first_axis(w: Writer, condition: str, one: str, other: str) -> str:
    """Lets a vector choose between rows, as the older Select has it."""
    rank = w.rank_of(one) or w.rank_of(other)
    if rank is None:
        raise ValueError("Select by a vector needs operands whose number of axes is known")
    return condition if rank == 1 else w.unsqueeze(condition, list(range(1, rank)))


#: The smallest number of full precision. What is smaller TensorFlow takes for 0.
_LEAST: Mapping[int, float] = {
    _Type.FLOAT: float(np.finfo(np.float32).tiny),
    _Type.DOUBLE: float(np.finfo(np.float64).tiny),
}


def div_no_nan(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `x / y`, and 0 where y is 0, or so small that its reciprocal may be infinite.

    The division is one by 1 there: its gradient is then 0, and not 0 times infinity.
    """
    w = Writer(context, node)
    x, y = w.inputs
    least = _LEAST.get(w.dtype)
    if least is None:
        is_zero = w.test("Equal", y, w.const(0))
    else:
        is_zero = w.test("Less", w.op("Abs", y), w.const(least))
    quotient = w.op("Div", x, w.where(is_zero, w.const(1), y))
    w.finish("Where", is_zero, w.const(0), quotient)


def mul_no_nan(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `x * y`, and 0 where y is 0, whatever x is."""
    w = Writer(context, node)
    x, y = w.inputs
    is_zero = w.test("Equal", y, w.const(0))
    w.finish("Where", is_zero, w.const(0), w.op("Mul", w.where(is_zero, w.const(0), x), y))
