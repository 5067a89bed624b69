"""Targets on the TensorFlow side: the scalar that is differentiated, and its seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError
from probegen.sources.keras.trace import pre_activation


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
