"""Targets on the TensorFlow side: the scalar that is differentiated, and its seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError
from probegen.sources.keras.trace import pre_activation


def target_index(
    target: Any, shape: Sequence[int | None], name: str, class_axis: int | None = -1
) -> tuple[str, tuple[int | None, ...] | None]:
    """Returns mode and index of a target that is no callable, checked against the output.

    Args:
        target: what the probe says.
        shape: of the output.
        name: of the output.
        class_axis: the axis that classes lie along; None for one number a sample.

    Raises:
        InstrumentError: the output has no such entry; says what it has.
    """
    rank = len(shape)
    if isinstance(target, str):
        if target == "input" and rank < 2:
            raise InstrumentError(
                f"output {name!r} is one number a sample; target='input' has no use."
            )
        return target, None
    if isinstance(target, int):
        at = rank - 1 if class_axis is None else class_axis % max(rank, 1)
        size = shape[at] if rank > 1 else 1
        if target < 0 or (size is not None and target >= size):
            legal = (
                "its single unit is target 0 or 'argmax'"
                if size == 1
                else f"0 to {(size or 1) - 1}"
            )
            raise InstrumentError(
                f"target {target} is out of range: the {'last' if at == rank - 1 else 'class'} "
                f"axis of output {name!r} {tuple(shape)} has {size} entries ({legal})."
            )
        return "index", tuple(target if i == at else None for i in range(1, rank))
    if len(target) != rank - 1:
        raise InstrumentError(
            f"target {target} has {len(target)} entries; output {name!r} {tuple(shape)} takes one "
            f"for each of its {rank - 1} axes behind the batch, None meaning their sum."
        )
    for i, size in zip(target, shape[1:], strict=True):
        if i is not None and size is not None and not -size <= i < size:
            raise InstrumentError(
                f"target {target} is out of range for output {name!r} of shape {tuple(shape)}."
            )
    return "index", tuple(target)


def score(output: Any, logits: bool) -> Any:
    """Returns a model output, or with `logits` the pre-activation of its softmax or sigmoid."""
    before = pre_activation(output) if logits else None
    return output if before is None else before


def callable_value(function: Callable[[Any], Any], nest: Any, logits: bool) -> Any:
    """Returns what a callable target makes of the model's outputs, `[batch]`.

    Args:
        function: the target.
        nest: the predictions as the model nests them; the function gets their scores.
        logits: hand the function pre-activations.

    Raises:
        InstrumentError: it does not return one floating scalar a sample.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    scores = keras.tree.map_structure(lambda output: score(output, logits), nest)
    value = tf.convert_to_tensor(function(scores))
    if not value.dtype.is_floating:
        raise InstrumentError(f"the target {name} returns {value.dtype.name}, not a number.")
    if value.shape.rank == 2 and value.shape[-1] == 1:
        value = value[:, 0]
    if value.shape.rank != 1:
        raise InstrumentError(
            f"the target {name} must return one scalar a sample, shape [batch], such as "
            f"lambda y: y[:, 3]; it returns shape {tuple(value.shape)}."
        )
    return value


def seed(scores: Any, target: TargetSpec, request: Any = None) -> Any:
    """Returns the gradient of the target's scalar with respect to `scores`: zeros and ones."""
    if target.mode == "callable" or scores.shape.rank == 1:
        return tf.ones_like(scores)
    sizes = tf.shape(scores)
    if target.mode == "index":
        picked = tf.ones_like(scores)
        for axis, index in enumerate(target.index or (), start=1):
            if index is not None:
                at = index if index >= 0 else sizes[axis] + index
                one_hot = tf.one_hot(at, sizes[axis], dtype=scores.dtype)
                form = [1] * scores.shape.rank
                form[axis] = -1
                picked *= tf.reshape(one_hot, form)
        return picked
    classes = tf.argmax(scores, axis=-1, output_type=tf.int32)
    if target.mode == "input" and request is not None:
        request = tf.cast(request, tf.int32)
        asked = tf.reshape(request, [-1] + [1] * (scores.shape.rank - 2))
        classes = tf.where(asked < 0, classes, asked)
    return tf.one_hot(classes, sizes[-1], dtype=scores.dtype)
