"""Scales and shifts of the input, one a channel, as one operation on transposed images.

Rescaling and Normalization in front of the first convolution arrive as three or four products
and sums over `[batch, height, width, channels]` and a Transpose behind them. Numbers that change
with the last, short axis are what runtimes broadcast slowest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import Dim, attribute, constant_of, new_initializer, shape_of

_CHANNELS_FIRST = [0, 3, 1, 2]


@dataclasses.dataclass(frozen=True)
class _Line:
    """What a chain of scales and shifts does: factor * x + shift, `[]` or `[channels]` each."""

    x: ir.Value
    factor: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


def transpose_input_first(model: ir.Model) -> None:
    """Exchanges a Transpose to channels first with the scales and shifts that lead to it.

    `Transpose(Add(Mul(x, a), b))` -> `Mul(Add(Transpose(x), b / a), a)`

    Needs: shapes inferred; 32-bit floats.
    Leaves: the old products and sums, which nothing reads.
    """
    graph = model.graph
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Transpose" and not node.domain else None
        if value is None or attribute(node, "perm") != _CHANNELS_FIRST:
            continue
        line = _line_to(value)
        if line is not None and value.dtype == ir.DataType.FLOAT:
            _write(graph, node, line)


def _line_to(value: ir.Value) -> _Line | None:
    """Returns the scales and shifts that alone lead to a value, None where there are none."""
    node, shape = value.producer(), shape_of(value)
    alone = sole_reader(value) is not None
    if node is None or node.domain or shape is None or not alone or len(node.inputs) != 2:
        return None
    for position in (0, 1):
        x, numbers = node.inputs[position], constant_of(node.inputs[1 - position])
        if (
            x is None
            or numbers is None
            or shape_of(x) != shape
            or not _one_per_channel(numbers, shape)
        ):
            continue
        operand = numbers.astype(np.float64).reshape(-1 if numbers.size > 1 else ())
        step = _step(node.op_type, position, operand)
        if step is None:
            return None
        before = _line_to(x) or _Line(x, np.ones(()), np.zeros(()))
        factor, shift = step
        return _Line(before.x, before.factor * factor, before.shift * factor + shift)
    return None


def _one_per_channel(numbers: npt.NDArray[Any], shape: Sequence[Dim]) -> bool:
    """Tells whether a constant has one number, or one for each place of the last axis."""
    return numbers.size == 1 or (numbers.size == numbers.shape[-1] == shape[-1])


def _step(
    op_type: str, position: int, operand: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Returns factor and shift of one node whose input at `position` is the variable one."""
    one, zero = np.ones(()), np.zeros(())
    if op_type == "Mul":
        return operand, zero
    if op_type == "Add":
        return one, operand
    if op_type == "Sub":
        return (one, -operand) if position == 0 else (-one, operand)
    if op_type == "Div" and position == 0 and np.all(operand != 0):
        return one / operand, zero
    return None


def _write(graph: ir.Graph, transpose: ir.Node, line: _Line) -> None:
    """Transposes x itself, then shifts and scales it; the product makes the transposed value.

    A mean that is large beside the deviation cancels in (x + shift / factor) * factor, and would
    leave the rounding of large numbers in x * factor + shift.
    """
    result, shape = transpose.outputs[0], shape_of(transpose.outputs[0])
    channels = None if shape is None else shape[1]
    if not isinstance(channels, int) or not np.all(line.factor):
        return
    with np.errstate(over="ignore"):
        shift_before = (line.shift / line.factor).astype(np.float32)
        factor = line.factor.astype(np.float32)
    if not (np.isfinite(shift_before).all() and np.isfinite(factor).all() and np.all(factor)):
        return

    def stored(op_type: str, numbers: npt.NDArray[np.float32]) -> ir.Value:
        wide = np.broadcast_to(numbers, channels).reshape(1, channels, 1, 1)
        return new_initializer(graph, f"{result.name}/{op_type}/operand", wide)

    perm, shift = {"perm": _CHANNELS_FIRST}, stored("add", shift_before)
    first = ir.node("Transpose", [line.x], attributes=perm, name=f"{result.name}/transposed")
    added = ir.node("Add", [first.outputs[0], shift], name=f"{result.name}/add")
    for node in (first, added):
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{node.name}/result", result.type, result.shape
    graph.insert_before(transpose, [first, added])
    transpose.op_type = "Mul"
    transpose.attributes.pop("perm")
    transpose.resize_inputs(2)
    transpose.replace_input_with(0, added.outputs[0])
    transpose.replace_input_with(1, stored("mul", factor))
