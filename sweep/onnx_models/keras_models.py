"""Keras models by Keras' own export, of TensorFlow and of torch, and by tf2onnx.

Those of TensorFlow are written in the compiler's environment, which has it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sweep.onnx_models.case import COMPILER, MODEL, OWN, About, Case, Run, Target, save_runs

_SEED = 3
_TENSORFLOW, _TORCH, _TF2ONNX = "keras export, TensorFlow", "keras export, torch", "tf2onnx"
_OPSETS = {_TENSORFLOW: (None,), _TORCH: (None,), _TF2ONNX: (11, 15, 18)}


def cases() -> Iterator[Case]:
    """Yields Keras models."""
    for name, (make, shape, target, probes) in _MODELS.items():
        for tool, opsets in _OPSETS.items():
            for opset in opsets:
                write = functools.partial(_write, make, shape, target, probes, tool, opset)
                how = f"{tool}, opset {opset}" if opset else tool
                home = OWN if tool == _TORCH else COMPILER
                yield Case(f"Keras: {name} ({how})", write, home)


def _write(
    make: Callable[[], Any],
    shape: tuple[int, ...],
    target: Target,
    probes: tuple[str, ...],
    tool: str,
    opset: int | None,
    folder: Path,
) -> None:
    os.environ["KERAS_BACKEND"] = "torch" if tool == _TORCH else "tensorflow"
    import keras

    keras.utils.set_random_seed(_SEED)
    model = make()
    path = folder / MODEL
    version = f"Keras {keras.__version__}"
    if tool == _TF2ONNX:
        import tensorflow as tf
        import tf2onnx

        given = [tf.TensorSpec((None, *i.shape[1:]), i.dtype, i.name) for i in model.inputs]
        function = tf.function(lambda x: model(x, training=False), autograph=False)
        tf2onnx.convert.from_function(function, given, opset=opset, output_path=str(path))
        version += f", tf2onnx {tf2onnx.__version__}"
    else:
        model(np.zeros((1, *shape), np.float32))  # what Keras takes the sizes from
        model.export(str(path), format="onnx", verbose=False)
        version += f" on {keras.backend.backend()}"
    rng = np.random.default_rng(_SEED)
    import onnx

    name = onnx.load(str(path), load_external_data=False).graph.input[0].name
    save_runs(
        folder, [Run({name: rng.normal(size=(n, *shape)).astype(np.float32)}) for n in (2, 3)]
    )
    About(tool=version, target=target, wrt=(name,), probes=probes).save(folder)


def _image() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((20, 24, 3), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", activation="swish"),
            layers.MaxPooling2D(2),
            layers.Conv2D(6, 3, activation="gelu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def _series() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 4), name="series"),
            layers.Conv1D(6, 3, padding="causal", activation="tanh"),
            layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
            layers.GRU(6),
            layers.Dense(4),
        ]
    )


def _attentive() -> Any:
    import keras

    layers = keras.layers
    x = keras.Input((9, 8), name="x")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    y = layers.Dense(5, activation="sigmoid")(layers.GlobalAveragePooling1D()(y))
    return keras.Model(x, y)


def _mobile() -> Any:
    import keras

    return keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=10)


_MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...], Target, tuple[str, ...]]] = {
    "image classifier": (_image, (20, 24, 3), 3, ("Saliency", "GradCAM")),
    "recurrent": (_series, (9, 4), 3, ("Saliency",)),
    "attention": (_attentive, (9, 8), 3, ("Saliency", "Attention")),
    "MobileNetV2": (_mobile, (64, 64, 3), 3, ("Saliency", "GradCAM")),
}
