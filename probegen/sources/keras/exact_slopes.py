"""Slopes that take the place of TensorFlow's own, which are rounding, count ties, or are none.

TensorFlow takes the slope of a sigmoid y as y (1 - y), that of a tanh as 1 - y * y. Where y is
rounded to 1 that is 0, while the slope is all that a saturated score has. The ONNX side has the
same slopes (`graph/vjp/saturating.py`), and the reference that it is held against is computed here.

The gradient of a pooling in three dimensions goes whole to each of several equal maxima: over a
constant background (of a scan, say) a window of 3 x 3 x 3 hands on 27 times what it gets. In two
dimensions the first of them gets it, and so it does here.

Keras adds CELU up of a maximum and a minimum with 0, and at 0 TensorFlow gives both all of the
gradient: a slope of 2, where it is 1 on either side. While a model is traced it is chosen instead.

Resizing by cubic or Lanczos kernels gives float32 of float16, and TensorFlow has no gradient of
that: it hands on nothing, without a word.

TensorFlow has one table of gradients for all. It holds ours while a graph is differentiated
(`exact_slopes`), in the bodies of its loops as well, and its own again afterwards: what a user
trains is none of our business.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import nn
from tensorflow.python.framework import ops as tf_ops

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _sigmoid(op: Any, gradient: Any) -> Any:
    """Slope y (1 - y); 1 - y is the sigmoid of -x."""
    (x,), (y,) = op.inputs, op.outputs
    return gradient * (y * tf.sigmoid(-x))


def _tanh(op: Any, gradient: Any) -> Any:
    """Slope 1 - y * y = 4 s (1 - s), s the sigmoid of 2 x."""
    (x,) = op.inputs
    return gradient * (4 * tf.sigmoid(2 * x) * tf.sigmoid(-2 * x))


def _elu(op: Any, gradient: Any) -> Any:
    (x,) = op.inputs
    return gradient * tf.exp(tf.minimum(x, 0))


def _selu(op: Any, gradient: Any) -> Any:
    (x,) = op.inputs
    below = _SELU_ALPHA * tf.exp(tf.minimum(x, 0))
    return gradient * _SELU_SCALE * tf.where(x < 0, below, tf.ones_like(x))


def _softmax(op: Any, gradient: Any) -> Any:
    (y,) = op.outputs
    total = tf.reduce_sum(gradient * y, -1, keepdims=True)
    return _without_sum((gradient - total) * y, y)


def _log_softmax(op: Any, gradient: Any) -> Any:
    y = tf.exp(op.outputs[0])
    return _without_sum(gradient - tf.reduce_sum(gradient, -1, keepdims=True) * y, y)


def _without_sum(gradient: Any, y: Any) -> Any:
    """Returns the gradient of a softmax y without its sum along the last axis, which is to be 0.

    What is left of a sum is what the gradient is off by where y is nearly 1.
    """
    return gradient - tf.reduce_sum(gradient, -1, keepdims=True) * y


def _max_pool_3d(op: Any, gradient: Any) -> Any:
    """The gradient of pooling each plane, and then along the first axis: the first maximum's."""
    if op.get_attr("data_format") != b"NDHWC":  # traced outside of `channels_last`
        return _own[op.type]["type"](op, gradient)
    x, y = op.inputs[0], op.outputs[0]
    kind = {"padding": op.get_attr("padding").decode()}
    sizes, steps = op.get_attr("ksize"), op.get_attr("strides")
    batch, depth, height, width, channels = tf.unstack(tf.shape(x))
    planes = tf.reshape(x, [batch * depth, height, width, channels])
    in_plane = {"ksize": [1, *sizes[2:4], 1], "strides": [1, *steps[2:4], 1], **kind}
    pooled = tf.raw_ops.MaxPool(input=planes, **in_plane)
    rows = tf.reduce_prod(tf.shape(pooled)[1:3])
    lines = tf.reshape(pooled, [batch, depth, rows, channels])
    along = {"ksize": [1, sizes[1], 1, 1], "strides": [1, steps[1], 1, 1], **kind}
    ends = [batch, tf.shape(y)[1], rows, channels]
    of_lines = tf.raw_ops.MaxPoolGrad(
        orig_input=lines, orig_output=tf.reshape(y, ends), grad=tf.reshape(gradient, ends), **along
    )
    of_planes = tf.raw_ops.MaxPoolGrad(
        orig_input=planes,
        orig_output=pooled,
        grad=tf.reshape(of_lines, tf.shape(pooled)),
        **in_plane,
    )
    return tf.reshape(of_planes, tf.shape(x))


def _resize_bicubic(op: Any, gradient: Any) -> tuple[Any, None]:
    (x, *_), kind = op.inputs, tf.float64 if op.inputs[0].dtype == tf.float64 else tf.float32
    back = tf.raw_ops.ResizeBicubicGrad(
        grads=gradient,
        original_image=tf.cast(x, kind),
        align_corners=op.get_attr("align_corners"),
        half_pixel_centers=op.get_attr("half_pixel_centers"),
    )
    return tf.cast(back, x.dtype), None


def _scale_and_translate(op: Any, gradient: Any) -> tuple[Any, None, None, None]:
    x, _, scale, translation = op.inputs
    back = tf.raw_ops.ScaleAndTranslateGrad(
        grads=gradient,
        original_image=tf.cast(x, tf.float32),
        scale=scale,
        translation=translation,
        kernel_type=op.get_attr("kernel_type"),
        antialias=op.get_attr("antialias"),
    )
    return tf.cast(back, x.dtype), None, None, None


def _celu(_: Any, x: Any, alpha: float = 1.0) -> Any:
    """CELU, chosen by the sign, in the place of Keras' sum: its slope at 0 is 1."""
    x = tf.convert_to_tensor(x)
    return tf.where(x > 0, x, alpha * tf.math.expm1(tf.minimum(x, 0) / alpha))


#: Module and function -> what stands in for it while a model is traced.
STAND_INS: Mapping[tuple[Any, str], Callable[..., Any]] = {(nn, "celu"): _celu}

_SLOPES: Mapping[str, Callable[[Any, Any], Any]] = {
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Elu": _elu,
    "Selu": _selu,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "MaxPool3D": _max_pool_3d,
    "ResizeBicubic": _resize_bicubic,
    "ScaleAndTranslate": _scale_and_translate,
}


_LOCK = threading.Lock()
#: What the table holds by itself, while it holds ours.
_own: dict[str, dict[str, Any]] = {}
#: One entry for each that it holds ours for.
_users: list[None] = []


@contextlib.contextmanager
def exact_slopes() -> Iterator[None]:
    """Has TensorFlow differentiate with these slopes in the place of its own.

    Threads may do so at once: the last to leave puts TensorFlow's own back.
    """
    entries = tf_ops.gradient_registry._registry
    with _LOCK:
        if not _users:
            _own.update((name, dict(entries[name])) for name in _SLOPES)
            for name, slope in _SLOPES.items():
                entries[name]["type"] = functools.partial(_of_whole, slope)
        _users.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _users.pop()
            if not _users:
                for name, entry in _own.items():
                    entries[name].update(entry)


def _of_whole(slope: Callable[[Any, Any], Any], op: Any, gradient: Any) -> Any:
    """Returns a gradient; what look-ups hand on in slices is put together first."""
    return slope(op, tf.convert_to_tensor(gradient))


def gradients_at(scores: Any, tensors: Any, seeds: Any) -> list[Any]:
    """Returns the gradient of scores, each times its seed, at some tensors; None where none is."""
    with exact_slopes():
        found: list[Any] = tf.gradients(scores, tensors, seeds)
    return found
