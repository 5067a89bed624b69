"""What comparisons of an input's numbers are used for: as numbers, or to weigh something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_ON_THE_WAY = frozenset(
    {"Cast", "Identity", "Reshape", "ExpandDims", "Squeeze", "StridedSlice", "Transpose", "Tile"}
    | {"BroadcastTo", "LogicalAnd", "LogicalOr", "LogicalNot", "Sub", "Sum", "Maximum", "Minimum"}
)
_WEIGHING = frozenset({"Mul", "Select", "SelectV2"})
_DIVIDING = frozenset({"Div", "RealDiv", "DivNoNan"})
_SIZES = frozenset({"Shape", "Size", "Rank"})
_PENALTY = -1e4


def is_read_as_number(compared: Any, varies: Callable[[Any], bool]) -> bool:
    """Tells whether the result of a comparison is more than a mask.

    A mask weighs what hangs on inputs, chooses between such, or becomes a large negative number;
    what it weighs is divided by how much of it there is.

    Args:
        compared: the result.
        varies: tells whether a tensor hangs on what is fed.
    """
    pending, seen = [compared], set()
    while pending:
        tensor = pending.pop()
        for op in tensor.consumers():
            if op in seen or op.type in _SIZES:
                continue
            seen.add(op)
            if op.type in _DIVIDING and op.inputs[1] is tensor:
                continue
            if op.type not in _ON_THE_WAY and op.type not in _WEIGHING:
                return True
            others = [t for t in op.inputs if t is not tensor]
            if op.type in _WEIGHING and any(varies(t) or _is_penalty(t) for t in others):
                continue
            pending.extend(op.outputs)
    return False


def _is_penalty(tensor: Any) -> bool:
    value = tf.get_static_value(tensor)
    return value is not None and bool(value.size) and bool(value.min() <= _PENALTY)
