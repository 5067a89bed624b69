"""Which values of a Keras model's inputs are padding: see `probegen.plan.padding`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen.artefact.manifest import Padding
from probegen.plan.padding import JOIN, SELECT, Fed, Operand, PaddingFinder, Step
from probegen.sources.keras.layer_calls import LayerCall

#: Operations that bring the numbers of their first operand into another shape, copy them, or tell
#: of several whether one is not 0.
_SAME = frozenset(
    {"Identity", "Reshape", "ExpandDims", "Squeeze", "Transpose", "BroadcastTo", "Tile"}
    | {"StridedSlice", "Slice", "StopGradient", "PreventGradient", "Any", "Max", "Sum"}
)
_KINDS = {
    **dict.fromkeys(_SAME, "same"),
    **{"LogicalNot": "not", "LogicalAnd": "and", "LogicalOr": "or", "Equal": "equal"},
    **{"NotEqual": "different", "Greater": "greater", "GreaterEqual": "at_least"},
    **{"Less": "less", "LessEqual": "at_most", "Neg": "negative", "Abs": "abs", "Sign": "sign"},
    **{"Add": "add", "AddV2": "add", "BiasAdd": "add", "Sub": "subtract", "Mul": "multiply"},
    **{"Div": "divide", "RealDiv": "divide", "Maximum": "largest", "Minimum": "smallest"},
    **{"Select": SELECT, "SelectV2": SELECT},
}
_COMPARING = frozenset({"Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"})


def paddings(
    operations: Sequence[Any],
    calls: Sequence[LayerCall],
    inputs: Sequence[Fed],
    constants: Sequence[float],
) -> Mapping[int, Padding]:
    """Returns the positions of inputs -> what says where they are padding.

    Args:
        operations: those of a trace, in the order in which they were made.
        calls: its layer calls.
        inputs: what is fed; keys are ids of tensors.
        constants: what `constants_compared` returns.
    """
    finder = PaddingFinder(inputs, constants)
    begun: dict[int, list[LayerCall]] = {}
    for call in calls:
        begun.setdefault(call.last_op, []).append(call)
    for number, op in enumerate(operations):
        finder.follow(_step(op, finder))
        for call in begun.get(number + 1, ()):
            for mask, data in call.masks:
                finder.mask(id(mask), [id(t) for t in data])
    return finder.found()


def constants_compared(operations: Sequence[Any]) -> list[float]:
    """Returns the numbers that operations compare with."""
    read = (t for op in operations if op.type in _COMPARING for t in op.inputs)
    return [n for n in map(_number, read) if n is not None]


def _step(op: Any, finder: PaddingFinder) -> Step:
    kind = _KINDS.get(op.type, "")
    if op.type == "Cast":
        kind = "truth" if op.outputs[0].dtype == tf.bool else "same"
    if op.type == "AddN" or _joins_vectors(op):
        kind = JOIN
    read = op.inputs[:1] if kind == "same" else op.inputs
    told = kind and any(finder.is_told(id(t)) for t in read)
    operands = [
        Operand(
            id(t),
            _number(t) if told and not finder.depends(id(t)) else None,
            t.dtype.is_floating and finder.depends(id(t)),
        )
        for t in read
    ]
    return Step(kind, tuple(operands), tuple(id(t) for t in op.outputs))


def _joins_vectors(op: Any) -> bool:
    """Tells whether an operation puts tensors behind each other along their last axis."""
    if op.type != "ConcatV2" or op.outputs[0].shape.rank is None:
        return False
    axis = tf.get_static_value(op.inputs[-1])
    return axis is not None and int(axis) in (-1, op.outputs[0].shape.rank - 1)


def _number(tensor: Any) -> float | None:
    """Returns the one number that a tensor always holds; None where there is none."""
    if tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool:
        value = tf.get_static_value(tensor)
        if value is not None and value.size == 1:
            return float(value.reshape(()))
    return None
