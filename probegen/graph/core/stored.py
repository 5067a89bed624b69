"""Weights that a file stores, as the numbers that layers use, in whole numbers or not.

Quantised files store whole numbers behind a `DequantizeLinear`, or floats that go through a pair of
`QuantizeLinear` and `DequantizeLinear` first, as exports of training with rounding have them.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import without_marks
from probegen.graph.core.values import attribute, constant_of

Array = npt.NDArray[Any]

#: What a file may write between a weight and its layer, of which the first input is the weight.
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MOVING = frozenset({"Transpose", "Identity"})


def is_stored(value: ir.Value | None) -> bool:
    """Tells whether the array of a value is known at compile time; see `stored_array`."""
    if value is None:
        return False
    if constant_of(value) is not None:
        return True
    node = without_marks(value).producer()
    if node is None or node.domain or node.op_type not in _ROUNDING | _MOVING:
        return constant_of(without_marks(value)) is not None
    if not is_stored(node.inputs[0]):
        return False
    known = all(v is None or constant_of(v) is not None for v in node.inputs[1:])
    return known and (node.op_type != "QuantizeLinear" or _limits(node) is not None)


def stored_array(value: ir.Value | None) -> Array | None:
    """Returns the array of a value known at compile time, rounded as the file rounds it.

    None for all others. Whole numbers are as they are stored, floats in 64 bits where they have
    been rounded.
    """
    if value is None or not is_stored(value):
        return None
    value = without_marks(value)
    known, node = constant_of(value), value.producer()
    if known is not None or node is None:
        return known
    x = stored_array(node.inputs[0])
    if x is None or node.op_type == "Identity":
        return x
    if node.op_type == "Transpose":
        return np.asarray(np.transpose(x, attribute(node, "perm", None)))
    scale, zero = (_along(node, x, position) for position in (1, 2))
    if node.op_type == "DequantizeLinear":
        return np.asarray((x.astype(np.float64) - zero) * scale)
    low, high = _limits(node) or (0.0, 0.0)
    return np.asarray(np.clip(np.rint(x.astype(np.float64) / scale) + zero, low, high))


def _along(node: ir.Node, x: Array, position: int) -> Array:
    """Returns the scale or the zero point of a node in a form that broadcasts to x."""
    known = constant_of(node.inputs[position]) if len(node.inputs) > position else None
    if known is None:
        return np.zeros(())
    wide, axis = known.astype(np.float64), int(attribute(node, "axis", 1))
    if wide.size == 1:
        return wide.reshape(())
    block = int(attribute(node, "block_size", 0))
    if block:
        axis %= x.ndim
        return np.repeat(wide, block, axis)[(slice(None),) * axis + (slice(x.shape[axis]),)]
    return wide.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _limits(node: ir.Node) -> tuple[float, float] | None:
    """Returns between which whole numbers a QuantizeLinear rounds; None where these are floats."""
    dtype = node.outputs[0].dtype
    if dtype is None or dtype.is_floating_point():
        return None
    limits: Any = ml_dtypes.iinfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(limits.min), float(limits.max)
