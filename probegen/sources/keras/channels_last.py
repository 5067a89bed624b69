"""Lets TensorFlow run channels-first convolutions anywhere.

On a CPU, TensorFlow convolves channels-first images only where oneDNN does it, which depends on
the processor; elsewhere it has neither the convolution nor its gradient. Keras works around that
for some layers (it transposes before and after the operation), and leaves Conv1D, Conv2D, their
transposes and ConvLSTM out. Here the same is done for all of them, one level below Keras, while
a model is traced or called. The numbers are the same, and what is traced (a SavedModel, say) runs
on every machine.

Convolutions with a dilation have their axes moved where TensorFlow is called. It computes them in
a batch of smaller images, and where channels stand first it treats them as one more axis of the
image: how many there are is lost. tf2onnx puts only the channels-last form together again.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_nn_ops, nn_ops

from probegen.sources.keras.patching import Patch, Patches, set_to

#: Function -> its arguments that are maps, and those that are sizes of maps.
_FUNCTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv2d": (("input",), ()),
    "conv3d": (("input",), ()),
    "conv2d_backprop_input": (("out_backprop",), ("input_sizes",)),
    "conv3d_backprop_input_v2": (("out_backprop",), ("input_sizes",)),
    "depthwise_conv2d_native": (("input",), ()),
    "max_pool": (("input",), ()),
    "max_pool3d": (("input",), ()),
    "avg_pool": (("value",), ()),
    "avg_pool3d": (("input",), ()),
    "fused_batch_norm_v3": (("x",), ()),
}
_CHANNELS_LAST = {"NCHW": "NHWC", "NCDHW": "NDHWC"}
_DILATED = {"NCW": "NWC", **_CHANNELS_LAST}
#: Attributes with one entry an axis; with a pair an axis.
_PER_AXIS, _PAIR_PER_AXIS = ("strides", "dilations", "ksize"), ("explicit_paddings",)

_active: contextvars.ContextVar[bool] = contextvars.ContextVar("channels_last", default=False)


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Runs TensorFlow's channels-first operations channels-last inside the `with` block."""
    with _patches.applied(_PATCHES), set_to(_active, True):
        yield


def _transposing(
    original: Callable[..., Any], maps: Sequence[str], sizes: Sequence[str]
) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def transposing(*args: Any, **kwargs: Any) -> Any:
        if not _active.get():
            return original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        plain = _CHANNELS_LAST.get(given["data_format"])
        if plain is None:
            return original(*args, **kwargs)
        rank = len(plain)
        last = [0, *range(2, rank), 1]
        given["data_format"] = plain
        for name in maps:
            given[name] = tf.transpose(given[name], last)
        for name in sizes:
            # Slices and a concatenation: shape inference follows these, but no gather.
            given[name] = tf.concat([given[name][:1], given[name][2:], given[name][1:2]], 0)
        for name in _PER_AXIS:
            if len(given.get(name) or ()) == rank:
                given[name] = [given[name][i] for i in last]
        for name in _PAIR_PER_AXIS:
            if given.get(name):
                given[name] = [v for i in last for v in given[name][2 * i : 2 * i + 2]]
        result = original(*bound.args, **bound.kwargs)
        first = [0, rank - 1, *range(1, rank - 1)]
        if isinstance(result, tf.Tensor):
            return tf.transpose(result, first)
        return result._replace(y=tf.transpose(result.y, first))

    return transposing


def _dilating(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps TensorFlow's convolution of any number of axes."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def dilating(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        plain = _DILATED.get(str(given.get("data_format")))
        rank = given["input"].shape.rank
        dilations = np.reshape(given.get("dilations") or 1, -1)
        if not _active.get() or plain is None or rank != len(plain) or (dilations == 1).all():
            return original(*args, **kwargs)
        given["data_format"] = plain
        given["input"] = tf.transpose(given["input"], [0, *range(2, rank), 1])
        for name in ("strides", "dilations"):
            sizes = given.get(name)
            if isinstance(sizes, Sequence) and len(sizes) == rank:
                given[name] = [sizes[0], *sizes[2:], sizes[1]]
        result = original(*bound.args, **bound.kwargs)
        return tf.transpose(result, [0, rank - 1, *range(1, rank - 1)])

    return dilating


_patches = Patches()
_PATCHES = (
    *(
        Patch(gen_nn_ops, name, functools.partial(_transposing, maps=maps, sizes=sizes))
        for name, (maps, sizes) in _FUNCTIONS.items()
    ),
    Patch(nn_ops, "convolution_internal", _dilating),
)
