"""Targets on the TensorFlow side: the scalar that is differentiated, and its seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError
from probegen.sources.keras.logits import pre_activation
from probegen.stages import cause


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
        InstrumentError: it fails, or does not return one floating scalar a sample.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    scores = keras.tree.map_structure(lambda output: score(output, logits), nest)
    try:
        value = tf.convert_to_tensor(function(scores))
    except Exception as error:  # a user's function raises whatever it likes
        shapes = keras.tree.map_structure(lambda s: tuple(s.shape), scores)
        raise InstrumentError(
            f"the target {name} fails on the model's outputs, of shape {shapes}. {cause(error)}"
        ) from error
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


def parts(
    scores: Any, target: TargetSpec, request: Any = None, region: Any = None
) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Returns what a target of several explains one by one, and what makes a seed.

    Classes or steps along the first axis; and what returns, given the scores and one of them, the
    gradient of its scalar at the scores.
    """
    if target.step is None:

        def of_class(here: Any, one: Any) -> Any:
            return one_hot(here, one) if region is None else one_hot(here, one) * region

        return choices(scores, target, region), of_class
    at = target.step
    whole = seed(scores, target, request, region)

    def of_step(here: Any, one: Any) -> Any:
        row = tf.one_hot(one, tf.shape(here)[at], dtype=here.dtype)
        return whole * tf.reshape(row, [-1 if i == at else 1 for i in range(here.shape.rank)])

    return tf.range(tf.shape(scores)[at]), of_step


def choices(scores: Any, target: TargetSpec, region: Any = None) -> Any:
    """Returns the classes that a target of several explains, best first: see `artefact.seeds`."""
    if target.mode == "top":
        best = tf.math.top_k(_ranked(scores, target, region), target.count).indices
        rank = scores.shape.rank
        return tf.transpose(best, [rank - 1, *range(rank - 1)])
    if target.mode == "list":
        return tf.constant(target.chosen, tf.int32)
    return tf.range(tf.shape(scores)[-1])


def one_hot(scores: Any, classes: Any) -> Any:
    """Returns ones of the shape of `scores` where the last axis is at a class, zeros elsewhere."""
    chosen = tf.one_hot(classes, tf.shape(scores)[-1], dtype=scores.dtype)
    return tf.broadcast_to(chosen, tf.shape(scores))


def seed(scores: Any, target: TargetSpec, request: Any = None, region: Any = None) -> Any:
    """Returns the gradient of the target's scalar at `scores`; see `artefact.seeds`."""
    picked = _picked(scores, target, request, region)
    return picked if region is None else picked * region


def _picked(scores: Any, target: TargetSpec, request: Any, region: Any) -> Any:
    """Returns the seed without the weights of a region."""
    if target.mode == "callable" or scores.shape.rank == 1:
        return tf.ones_like(scores)
    sizes = tf.shape(scores)
    if target.mode == "index":
        picked = tf.ones_like(scores)
        for axis, index in enumerate(target.index or (), start=1):
            if index is not None:
                at = index if index >= 0 else sizes[axis] + index
                row = tf.one_hot(at, sizes[axis], dtype=scores.dtype)
                form = [1] * scores.shape.rank
                form[axis] = -1
                picked *= tf.reshape(row, form)
        return picked
    if target.mode == "contrast":
        ranked = _ranked(scores, target, region)
        ahead, behind = (one_hot(scores, _side(ranked, side)) for side in target.chosen or ())
        return ahead - behind
    classes = tf.argmax(_ranked(scores, target, region), axis=-1, output_type=tf.int32)
    if target.mode == "input" and request is not None:
        request = tf.cast(request, tf.int32)
        asked = tf.reshape(request, [-1] + [1] * (scores.shape.rank - 2))
        classes = tf.where(asked < 0, classes, asked)
    return one_hot(scores, classes)


def _ranked(scores: Any, target: TargetSpec, region: Any) -> Any:
    """Returns what tells which class is the best: of a layer the sums over its positions."""
    if target.layer is None or target.step is not None:
        return scores
    weighed = scores if region is None else scores * region
    return tf.reduce_sum(weighed, axis=list(range(1, scores.shape.rank - 1)), keepdims=True)


def _side(scores: Any, side: int | str) -> Any:
    """Returns the class of one side of a contrast, of each sample where it is told by scores."""
    if isinstance(side, int):
        return side
    if side == "argmax":
        return tf.argmax(scores, axis=-1, output_type=tf.int32)
    return tf.math.top_k(scores, 2).indices[..., 1]
