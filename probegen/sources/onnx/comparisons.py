"""What comparisons of an input's numbers are used for: as numbers, or to weigh something else."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from probegen.graph.core.values import constant_of

_ON_THE_WAY = frozenset(
    {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Transpose", "Tile", "Expand"}
    | {"And", "Or", "Not", "Sub", "ReduceSum", "Max", "Min", "Clip"}
)
_WEIGHING = frozenset({"Mul", "Where"})
_SIZES = frozenset({"Shape", "Size"})
_PENALTY = -1e4


def is_read_as_number(compared: ir.Value, varying: Container[ir.Value | None]) -> bool:
    """Tells whether the result of a comparison is more than a mask.

    A mask weighs what hangs on inputs, chooses between such, or becomes a large negative number;
    what it weighs is divided by how much of it there is.

    Args:
        compared: the result.
        varying: what hangs on what is fed.
    """
    pending, seen = [compared], set()
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return True
        for node, place in value.uses():
            if node in seen or node.op_type in _SIZES or (node.op_type == "Div" and place == 1):
                continue
            seen.add(node)
            if node.op_type not in _ON_THE_WAY | _WEIGHING:
                return True
            others = [v for v in node.inputs if v is not value and v is not None]
            if node.op_type in _WEIGHING and any(v in varying or _is_penalty(v) for v in others):
                continue
            pending.extend(node.outputs)
    return False


def _is_penalty(value: ir.Value) -> bool:
    array = constant_of(value)
    return array is not None and bool(array.size) and bool(array.min() <= _PENALTY)
