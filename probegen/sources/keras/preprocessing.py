"""Pictures as they arrive, preprocessed by TensorFlow in front of a model.

What `graph/preprocessing.py` writes in ONNX's operators is said here by `tf.image.resize` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import CROP, PAD, Preprocessing
from probegen.sources.keras.array_operations import TensorFlowOperations

_OPS = TensorFlowOperations()
#: What arrives, as `tf.image.resize` takes it.
_ORDER = ("batch", "height", "width", "channel")


def prepared(arriving: Any, spec: InputSpec) -> Any:
    """Returns what a model takes, made of what arrives.

    Args:
        arriving: the pictures, the axes of `spec`.
        spec: of the input; its preprocessing is what is done.
    """
    how = spec.preprocessing
    assert how is not None
    value = tf.transpose(arriving, [spec.axes.index(axis) for axis in _ORDER])
    value = _resized(value, how)
    if how.channels != tuple(range(value.shape[-1])):
        value = tf.gather(value, list(how.channels), axis=-1)
    if any(n != 1 for n in how.scale):
        value *= np.asarray(how.scale, np.float32)
    if any(n != 0 for n in how.mean):
        value -= np.asarray(how.mean, np.float32)
    if any(n != 1 for n in how.std):
        value /= np.asarray(how.std, np.float32)
    value = tf.transpose(value, [_ORDER.index(axis) for axis in how.axes])
    return tf.cast(value, how.dtype)


def over_picture(heat: Any, axes: Sequence[str], arriving: Any, spec: InputSpec) -> Any:
    """Returns an attribution in the size of the picture that arrived; see `ImageInput`.

    Args:
        heat: what the model's own tensor was explained by, of that tensor's height and width.
        axes: a name for each of its dimensions.
        arriving: the pictures.
        spec: of the input.
    """
    how = spec.preprocessing
    assert how is not None
    sizes = [tf.shape(arriving)[spec.axes.index(axis)] for axis in ("height", "width")]
    parts = _parts(sizes[0], sizes[1], how)
    for name, size, part in zip(("height", "width"), sizes, parts, strict=True):
        axis = list(axes).index(name)
        heat = _OPS.resize(heat, axis, tf.zeros([part.length]), 0)
        nothing = [[0, 0]] * heat.shape.rank
        if how.fit == CROP:
            behind = size - part.start - part.length
            heat = tf.pad(heat, [*nothing[:axis], [part.start, behind], *nothing[axis + 1 :]])
        elif how.fit == PAD:
            heat = tf.gather(heat, tf.range(size) - part.start, axis=axis)
    return heat


class _Part(NamedTuple):
    """Which part of an axis a model sees: its first pixel, negative with borders, and how many."""

    start: Any
    length: Any


def _parts(height: Any, width: Any, how: Preprocessing) -> tuple[_Part, _Part]:
    """Returns which part of a picture a model sees; `Preprocessing.window` says the same."""
    rows, columns = how.size
    if how.resize is None or how.fit not in (CROP, PAD):
        return _Part(0, height), _Part(0, width)
    assert rows is not None  # what is resized has a size
    assert columns is not None
    high, wide = _quotient(width * rows, columns), _quotient(height * columns, rows)
    parts = []
    for size, fitting in ((height, high), (width, wide)):
        if how.fit == CROP:
            length = tf.maximum(1, tf.minimum(size, fitting))
            parts.append(_Part((size - length) // 2, length))
        else:
            border = tf.maximum(0, fitting - size) // 2
            parts.append(_Part(-border, size + 2 * border))
    return parts[0], parts[1]


def _quotient(product: Any, by: int) -> Any:
    """Returns a quotient cut to a whole number, computed in float32 as Keras does."""
    return tf.cast(tf.cast(product, tf.float32) / np.float32(by), tf.int32)


def _resized(value: Any, how: Preprocessing) -> Any:
    """Returns `[batch, height, width, channel]` in the model's size, float32."""
    if how.resize is None:
        return tf.cast(value, tf.float32)
    channels = value.shape[-1]
    height, width = tf.shape(value)[1], tf.shape(value)[2]
    rows, columns = _parts(height, width, how)
    if how.fit == CROP:
        value = value[
            :, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length
        ]
    elif how.fit == PAD:
        borders = [[-part.start, -part.start] for part in (rows, columns)]
        value = tf.pad(
            tf.cast(value, tf.float32), [[0, 0], *borders, [0, 0]], constant_values=how.fill
        )
    made = tf.image.resize(value, how.size, method=how.resize, antialias=how.antialias)
    return tf.reshape(tf.cast(made, tf.float32), [-1, *how.size, channels])
