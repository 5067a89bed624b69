"""Operations on the bits of a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto


#: The sign bit of an int32, which is also the least of them.
_SIGN = np.iinfo(np.int32).min


def bitcast(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the sign bit of floats where nothing else is read; others stay, and are refused.

    `keras.ops.signbit` does so, and with it argmax and argmin, which tell 0 from -0.
    """
    w = Writer(context, node)
    x = w.inputs[0]
    readers = context.find_output_consumers(node.output[0])
    if (w.dtype_of(x), w.dtype) != (_Type.FLOAT, _Type.INT32) or any(
        reader.type != "BitwiseAnd" or _mask(Writer(context, reader)) != _SIGN for reader in readers
    ):
        return
    zero = w.const(0, _Type.FLOAT)
    turned = w.test("Less", w.op("Reciprocal", x, dtype=_Type.FLOAT), zero)
    negative = w.test("Or", w.test("Less", x, zero), turned)
    w.finish("Where", negative, w.const(_SIGN), w.const(0))


def bitwise_and(context: Any, node: Any, _: str, __: Any) -> None:
    """Reads the sign bit of int32 by a comparison; others are as in ONNX, from opset 18 on."""
    w = Writer(context, node)
    if w.dtype == _Type.INT32 and _mask(w) == _SIGN:
        x = next(name for name in w.inputs if w.value_of(name) is None)
        w.finish("Where", w.test("Less", x, w.const(0)), w.const(_SIGN), w.const(0))


def _mask(w: Writer) -> int | None:
    """Returns what a BitwiseAnd with one constant number keeps, None for others."""
    constants = [value for name in w.inputs if (value := w.value_of(name)) is not None]
    return (
        int(np.ravel(constants[0])[0]) if len(constants) == 1 and constants[0].size == 1 else None
    )
