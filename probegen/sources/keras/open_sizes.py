"""Layers and functions of Keras that do other things, or fail, where sizes are open when traced.

Each has a stand-in here that computes what it computes eagerly. It is called in the place of the
layer's own method, or of the function, while a model is traced, and leaves known sizes to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import numpy as functions

#: Takes the original method, the layer, and what the method was called with; or a function and what
#: it was called with.
StandIn = Callable[..., Any]


def _center_crop(
    original: Any, layer: Any, images: Any, transformation: Any = None, training: Any = True
) -> Any:
    """CenterCrop: images smaller than asked for are resized, which Keras decides when it traces."""

    def run(x: Any) -> Any:
        return original(layer, x, transformation, training)

    height, width = _size(images, layer.data_format)
    if isinstance(height, int) and isinstance(width, int):
        return run(images)
    large = tf.logical_and(height >= layer.height, width >= layer.width)

    def resized() -> Any:
        return keras.preprocessing.image.smart_resize(
            tf.cast(images, layer.compute_dtype),
            [layer.height, layer.width],
            data_format=layer.data_format,
            backend_module=layer.backend,
        )

    result = tf.cond(large, lambda: run(images), resized)
    result.set_shape(layer.compute_output_shape(tuple(images.shape)))
    return result


def _random_crop(
    original: Any, layer: Any, data: Any, training: Any = True, seed: Any = None
) -> Any:
    """RandomCrop: at inference it passes images through, but reckons where it would crop."""
    images = data["images"] if isinstance(data, dict) else data
    if training or all(isinstance(n, int) for n in _size(images, layer.data_format)):
        return original(layer, data, training=training, seed=seed)
    return 0, 0


def _up_sampling(
    original: Any,
    layer: Any,
    x: Any,
    height_factor: Any,
    width_factor: Any,
    data_format: str,
    interpolation: str = "nearest",
) -> Any:
    """UpSampling2D: Keras compares the new size with 0, which a tensor cannot answer."""
    height, width = _size(x, data_format)
    if interpolation == "nearest" or (isinstance(height, int) and isinstance(width, int)):
        return original(layer, x, height_factor, width_factor, data_format, interpolation)
    first = data_format == "channels_first"
    images = tf.transpose(x, [0, 2, 3, 1]) if first else x
    size = tf.stack([height * height_factor, width * width_factor])
    made = tf.cast(tf.image.resize(images, size, method=interpolation), x.dtype)
    return tf.transpose(made, [0, 3, 1, 2]) if first else made


def _size(images: Any, data_format: str) -> tuple[Any, Any]:
    """Returns height and width, as ints where they are known."""
    sizes = keras.ops.shape(images)
    return tuple(sizes[-2:] if data_format == "channels_first" else sizes[-3:-1])


def _array_split(original: Any, x: Any, indices_or_sections: int, axis: int = 0) -> list[Any]:
    """Splits into parts of almost one size: Keras counts them in lists, as often as a tensor says.

    Of an open size it makes one part of it all, and splits no more.
    """
    x = tf.convert_to_tensor(x)
    if x.shape.rank is None or x.shape[axis] is not None:
        return list(original(x, indices_or_sections, axis))
    at, count = axis % x.shape.rank, indices_or_sections
    size = tf.shape(x)[at]
    # The first ones have one entry more, as many as are left.
    bounds = [size // count * i + tf.minimum(size % count, i) for i in range(count + 1)]
    around = (slice(None),) * at
    return [x[(*around, slice(*ends))] for ends in itertools.pairwise(bounds)]


#: Class and method, or module and function -> what stands in for it.
STAND_INS: dict[tuple[Any, str], StandIn] = {
    (keras.layers.CenterCrop, "transform_images"): _center_crop,
    (keras.layers.RandomCrop, "get_random_transformation"): _random_crop,
    (keras.layers.UpSampling2D, "_resize_images"): _up_sampling,
    (functions, "array_split"): _array_split,
}
