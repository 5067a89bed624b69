"""Gradients that TensorFlow lacks, of operations that Keras' layers use.

Where a TensorFlow has one of its own, that stays.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops


def _dynamic_update_slice(op: Any, gradient: Any) -> tuple[Any, Any, None]:
    """Gradient of a block that is written into a tensor, moved so far that it fits.

    `keras.ops.slice_update`, which caches of keys and values are written with. The block gets the
    gradient of where it stands, the tensor that of all else.
    """
    x, block, start = op.inputs
    sizes = tf.shape(block, start.dtype)
    room = tf.shape(x, start.dtype) - sizes
    before = tf.clip_by_value(start, 0, room)
    widths = tf.stack([before, room - before], axis=1)
    written = tf.pad(tf.ones_like(block, tf.bool), widths)
    around = tf.where(written, tf.zeros_like(gradient), gradient)
    return around, tf.slice(gradient, before, sizes), None


_GRADIENTS = {"XlaDynamicUpdateSlice": _dynamic_update_slice}


def _is_known(name: str) -> bool:
    try:
        tf_ops.gradient_registry.lookup(name)
    except LookupError:
        return False
    return True


def register() -> None:
    """Tells TensorFlow those that it does not know."""
    for name, gradient in _GRADIENTS.items():
        if not _is_known(name):
            tf.RegisterGradient(name)(gradient)
