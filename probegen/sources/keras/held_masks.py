"""Masks keep the values of the unmoved input while a path moves it.

A path from a baseline leaves the value that padding has, and a mask computed anew at each point
would go off with it. Masks say which elements are there at all, so they are held: those that Keras
hands from layer to layer, and what tells in another way whether an element of the moved tensor
equals some value. Gates such as `x > 0` are the model's own and move.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from probegen.errors import InstrumentError

#: What the operation is called that a mask passes, to be found again.
_MASK_NAME = "probegen_mask"
#: Operations that leave an element what it is, or sum up whether elements are there.
_SAME = frozenset(
    {
        "Abs",
        "Cast",
        "ConcatV2",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "Max",
        "Min",
        "Pack",
        "Reshape",
        "Slice",
        "Split",
        "SplitV",
        "Square",
        "Squeeze",
        "StridedSlice",
        "Sum",
        "Transpose",
        "Unpack",
    }
)
_COMPARES = frozenset({"Equal", "NotEqual"})


def mark_mask(mask: Any) -> Any:
    """Returns a mask behind an operation by which it is found again."""
    return tf.identity(mask, name=_MASK_NAME)


def hold(operations: Sequence[Any], moved: Iterable[Any], original: Sequence[Any]) -> None:
    """Lets what was computed at a point of a path read the masks of the input itself.

    Args:
        operations: those of the forward pass at the point; what reads masks is changed.
        moved: the tensors that the path moves, at the point.
        original: the operations of the forward pass at the input: the same ones in the same
            order, traced in the graph around.

    Raises:
        InstrumentError: they are not the same, so that masks cannot be told.
    """
    here, there = (([op for op in ops if _may_hold(op)]) for ops in (operations, original))
    if [op.type for op in here] != [op.type for op in there]:
        raise InstrumentError(
            "the model does other things at a point of a path than at its input, so that its masks "
            "cannot be held for integrated gradients; use pg.InputGradient() instead."
        )
    held = held_operations(operations, moved)
    stand_ins = {
        id(op.outputs[0]): fixed.outputs[0]
        for op, fixed in zip(here, there, strict=True)
        if op in held
    }
    for op in operations:
        for position, read in enumerate(op.inputs):
            if id(read) in stand_ins:
                outside = stand_ins[id(read)]
                inside = outside if outside.graph is op.graph else op.graph.capture(outside)
                op._update_input(position, inside)


def held_operations(operations: Sequence[Any], moved: Iterable[Any]) -> set[Any]:
    """Returns the operations whose results are held on a path that moves `moved`."""
    same = {id(t) for t in moved}
    depending = set(same)
    found = set()
    for op in operations:
        if not any(id(t) in depending for t in op.inputs):
            continue
        depending.update(id(t) for t in op.outputs)
        if _is_mask(op) or _tells_presence(op, same, depending):
            found.add(op)
        elif op.type in _SAME and any(id(t) in same for t in op.inputs):
            same.update(id(t) for t in op.outputs)
    return found


def _may_hold(op: Any) -> bool:
    return bool(op.type in _COMPARES or op.type == "IsNan" or _is_mask(op) or _to_bool(op))


def _is_mask(op: Any) -> bool:
    return bool(op.type == "Identity" and _MASK_NAME in op.name.rpartition("/")[2])


def _to_bool(op: Any) -> bool:
    return bool(op.type == "Cast" and op.outputs[0].dtype == tf.bool)


def _tells_presence(op: Any, same: set[int], depending: set[int]) -> bool:
    """Tells whether an operation asks if elements of a moved tensor equal something fixed."""
    if op.type == "IsNan" or _to_bool(op):
        return id(op.inputs[0]) in same
    if op.type not in _COMPARES:
        return False
    a, b = (id(t) for t in op.inputs)
    return (a in same and b not in depending) or (b in same and a not in depending)
