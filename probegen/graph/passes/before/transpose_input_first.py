"""Scales and shifts of the input, one a channel, as one operation on images turned already.

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


def turn_first(graph: ir.Graph) -> None:
    """Exchanges a Transpose to channels first with the scales and shifts that lead to it.

    Needs: shapes inferred.
    Leaves: the same values up to rounding, by one product and one sum; the old ones unused.
    """
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
        if x is None or numbers is None or shape_of(x) != shape or not _a_channel(numbers, shape):
            continue
        operand = numbers.astype(np.float64).reshape(-1 if numbers.size > 1 else ())
        step = _step(node.op_type, position, operand)
        if step is None:
            return None
        before = _line_to(x) or _Line(x, np.ones(()), np.zeros(()))
        factor, shift = step
        return _Line(before.x, before.factor * factor, before.shift * factor + shift)
    return None


def _a_channel(numbers: npt.NDArray[Any], shape: Sequence[Dim]) -> bool:
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


def _write(graph: ir.Graph, turn: ir.Node, line: _Line) -> None:
    """Turns x itself, shifts it and scales it then; the scaling makes the value that was turned.

    A mean that is large beside the deviation cancels in (x + shift / factor) * factor, and would
    leave the rounding of large numbers in x * factor + shift.
    """
    result, shape = turn.outputs[0], shape_of(turn.outputs[0])
    channels = None if shape is None else shape[1]
    if not isinstance(channels, int) or not np.all(line.factor):
        return

    def stored(op_type: str, numbers: npt.NDArray[np.float64]) -> ir.Value:
        wide = np.broadcast_to(numbers, channels).astype(np.float32).reshape(1, channels, 1, 1)
        return new_initializer(graph, f"{result.name}/{op_type}/operand", wide)

    perm, shift = {"perm": _CHANNELS_FIRST}, stored("add", line.shift / line.factor)
    turned = ir.node("Transpose", [line.x], attributes=perm, name=f"{result.name}/turned")
    added = ir.node("Add", [turned.outputs[0], shift], name=f"{result.name}/add")
    for node in (turned, added):
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{node.name}/result", result.type, result.shape
    graph.insert_before(turn, [turned, added])
    turn.op_type = "Mul"
    turn.attributes.pop("perm")
    turn.resize_inputs(2)
    turn.replace_input_with(0, added.outputs[0])
    turn.replace_input_with(1, stored("mul", line.factor))
