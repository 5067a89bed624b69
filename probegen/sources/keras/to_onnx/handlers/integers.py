"""Division, remainders and shifts, right for negative numbers too."""

from __future__ import annotations

from typing import Any

import onnx

from probegen.sources.keras.to_onnx.handlers.writer import FLOATS, UNSIGNED, Handler, Writer

_Type = onnx.TensorProto


def floor_div(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the quotient rounded down; tf2onnx rounds that of integers towards 0."""
    w = Writer(context, node)
    x, y = w.inputs
    if w.dtype in FLOATS:
        w.finish("Floor", w.op("Div", x, y))
        return
    if w.dtype in UNSIGNED:
        w.finish("Div", x, y)
        return
    wide = _arithmetic_type(w.dtype)
    w.give(_floored(w, w.cast(x, wide), w.cast(y, wide)))


def _floored(w: Writer, x: str, y: str) -> str:
    """Returns the quotient of integers, rounded down."""
    dtype = w.dtype_of(x)
    quotient = w.op("Div", x, y, dtype=dtype)
    rest = w.op("Sub", x, w.op("Mul", quotient, y, dtype=dtype), dtype=dtype)
    zero = w.const(0, dtype)
    signs = w.test("Xor", w.test("Less", rest, zero), w.test("Less", y, zero))
    below = w.test("And", signs, w.test("Not", w.test("Equal", rest, zero)))
    return w.op("Sub", quotient, w.cast(below, dtype), dtype=dtype)


def floor_mod(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the remainder that has the sign of the divisor.

    That of floats is the exact one, plus the divisor where the signs differ, as in TensorFlow:
    `x - floor(x / y) * y` rounds, and is no number where y is infinite.
    """
    w = Writer(context, node)
    x, y = w.inputs
    if w.dtype not in FLOATS:
        wide = _arithmetic_type(w.dtype)
        w.give(w.op("Mod", w.cast(x, wide), w.cast(y, wide), dtype=wide, fmod=0))
        return
    rest, zero = w.op("Mod", x, y, fmod=1), w.const(0)
    signs = w.test("Xor", w.test("Less", rest, zero), w.test("Less", y, zero))
    other = w.test("And", signs, w.test("Not", w.test("Equal", rest, zero)))
    w.finish("Where", other, w.op("Add", rest, y), rest)


def truncated_mod(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the remainder that has the sign of the dividend, as C has it."""
    w = Writer(context, node)
    wide = w.dtype if w.dtype in FLOATS else _arithmetic_type(w.dtype)
    x, y = (w.cast(name, wide) for name in w.inputs)
    w.give(w.op("Mod", x, y, dtype=wide, fmod=1))


def truncated_div(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the quotient of integers rounded towards 0, as C has it."""
    w = Writer(context, node)
    wide = _arithmetic_type(w.dtype)
    w.give(w.op("Div", *(w.cast(name, wide) for name in w.inputs), dtype=wide))


def right_shift(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a shift to the right that keeps the sign; ONNX shifts unsigned integers alone.

    It is a division by a power of two, rounded down. TensorFlow takes a shift by less than 0
    for one by 0, and by more than there are bits for one by all but one.
    """
    w = Writer(context, node)
    if w.dtype in UNSIGNED:
        _shift_unsigned(w, "RIGHT")
        return
    x = w.cast(w.inputs[0], _Type.INT64)
    bits = _bits(w.dtype)
    steps = _clamped(w, w.cast(w.inputs[1], _Type.INT64), min(bits - 1, 62))
    shifted = _floored(w, x, _power_of_two(w, steps))
    if bits == 64:  # 2 ** 63 is no int64: what is left after 63 steps is the sign
        most = w.test("Less", w.const(62, _Type.INT64), w.cast(w.inputs[1], _Type.INT64))
        negative = w.test("Less", x, w.const(0, _Type.INT64))
        sign = w.where(negative, w.const(-1, _Type.INT64), w.const(0, _Type.INT64))
        shifted = w.where(most, sign, shifted)
    w.give(shifted)


def left_shift(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a shift to the left as a product with a power of two."""
    w = Writer(context, node)
    if w.dtype in UNSIGNED:
        _shift_unsigned(w, "LEFT")
        return
    bits = _bits(w.dtype)
    if bits == 64:
        unsigned = [w.cast(name, _Type.UINT64) for name in w.inputs]
        w.give(w.op("BitShift", *unsigned, dtype=_Type.UINT64, direction="LEFT"))
        return
    steps = _clamped(w, w.cast(w.inputs[1], _Type.INT64), bits - 1)
    w.give(
        w.op(
            "Mul",
            w.cast(w.inputs[0], _Type.INT64),
            _power_of_two(w, steps),
            dtype=_Type.INT64,
        )
    )


def _shift_unsigned(w: Writer, direction: str) -> None:
    wide = w.dtype if w.dtype != _Type.UINT16 else _Type.UINT32
    x, steps = (w.cast(name, wide) for name in w.inputs)
    w.give(w.op("BitShift", x, steps, dtype=wide, direction=direction))


def _clamped(w: Writer, steps: str, most: int) -> str:
    bounds = (w.const(n, _Type.INT64) for n in (0, most))
    return w.op("Clip", steps, *bounds, dtype=_Type.INT64)


def _power_of_two(w: Writer, steps: str) -> str:
    """Returns 2 to the power of int64 numbers of 0 to 62."""
    one = w.const(1, _Type.UINT64)
    made = w.op("BitShift", one, w.cast(steps, _Type.UINT64), dtype=_Type.UINT64, direction="LEFT")
    return w.cast(made, _Type.INT64)


def _bits(dtype: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(dtype).itemsize * 8)


def _arithmetic_type(dtype: int) -> int:
    """Returns what integers are reckoned in: onnxruntime divides few of the narrow ones."""
    if dtype in (_Type.INT64, _Type.UINT64, _Type.INT32):
        return dtype
    return _Type.INT64 if dtype == _Type.UINT32 else _Type.INT32


def extremum(op_type: str) -> Handler:
    """Returns a handler for the larger or the smaller of two, of narrow integers too."""

    def handler(context: Any, node: Any, _: str, __: Any) -> None:
        w = Writer(context, node)
        wide = _compared_type(w.dtype)
        w.give(w.op(op_type, *(w.cast(x, wide) for x in w.inputs), dtype=wide))

    return handler


def relu(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes Relu and Relu6, of integers too."""
    w = Writer(context, node)
    if w.dtype in FLOATS:
        if node.type == "Relu6":
            w.finish("Clip", w.inputs[0], w.const(0), w.const(6))
        return
    wide = _compared_type(w.dtype)
    made = w.op("Max", w.cast(w.inputs[0], wide), w.const(0, wide), dtype=wide)
    w.give(w.op("Min", made, w.const(6, wide), dtype=wide) if node.type == "Relu6" else made)


def _compared_type(dtype: int) -> int:
    """Returns what onnxruntime compares in where it has no kernel for a type."""
    return int(_Type.INT32 if dtype in (_Type.INT16, _Type.UINT16) else dtype)
