"""Models whose height, width or time is open: one file for all sizes and batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen.errors import UnsupportedOpsError
from probegen.parity import measure
from sweep.subject import stir

Make = Callable[[Any], Any]


@keras.saving.register_keras_serializable(package="probegen_tests")
class ResizeLike(layers.Layer):
    """Resizes one image to the size of another, as decoders do."""

    def __init__(self, method: str = "bilinear", **more: Any) -> None:
        super().__init__(**more)
        self.method = method

    def call(self, image: Any, other: Any) -> Any:
        return tf.image.resize(image, tf.shape(other)[1:3], self.method)

    def compute_output_shape(self, image_shape: Any, other_shape: Any) -> Any:
        return (*other_shape[:3], image_shape[-1])


def pooled(make: Make, shape: tuple[int | None, ...], dtype: str | None = None) -> Any:
    """Returns a model that takes the mean over all positions of what `make` returns."""
    keras.utils.set_random_seed(3)
    x = keras.Input(shape, dtype=dtype, name="x")
    y = layers.Activation("softsign")(make(x))
    pool = {2: layers.Identity, 3: layers.GlobalAveragePooling1D}
    y = pool.get(len(y.shape), layers.GlobalAveragePooling2D)()(y)
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(y))
    stir(model)
    return model


def chain(*steps: Any) -> Make:
    def make(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return make


def convolved(filters: int = 4) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="tanh", name="conv")


def decoder(x: Any, method: str = "bilinear") -> Any:
    low = layers.MaxPooling2D(3, 2)(convolved()(x))
    return layers.Concatenate()([ResizeLike(method)(low, x), x])


IMAGES: dict[str, Callable[[], Make]] = {
    "convolutions": lambda: chain(
        layers.Conv2D(5, 3, strides=2, padding="same"),
        layers.DepthwiseConv2D(2, strides=2, depth_multiplier=2),
        layers.SeparableConv2D(4, 3, padding="same", dilation_rate=2),
    ),
    "transposed": lambda: chain(
        layers.Conv2DTranspose(3, 3, strides=2),
        layers.Conv2DTranspose(5, 2, strides=3, padding="same"),
    ),
    "pools": lambda: chain(
        convolved(),
        layers.MaxPooling2D(3, 2, padding="same"),
        layers.AveragePooling2D(2, padding="same"),
        layers.GlobalMaxPooling2D(),
    ),
    "moved about": lambda: chain(
        convolved(),
        layers.UpSampling2D((2, 3)),
        layers.ZeroPadding2D(((1, 2), (0, 3))),
        layers.Cropping2D(((2, 1), (4, 0))),
        layers.BatchNormalization(),
    ),
    "resized": lambda: chain(convolved(), layers.Resizing(6, 8)),
    "cropped": lambda: chain(convolved(), layers.Resizing(6, 8, crop_to_aspect_ratio=True)),
    "padded": lambda: chain(
        convolved(), layers.Resizing(8, 6, pad_to_aspect_ratio=True, interpolation="nearest")
    ),
    "decoder": lambda: decoder,
    "decoder, nearest": lambda: lambda x: decoder(x, "nearest"),
}
SERIES: dict[str, Callable[[], Make]] = {
    "convolutions": lambda: chain(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, name="conv"),
        layers.MaxPooling1D(3, 2, padding="same"),
        layers.UpSampling1D(3),
        layers.Conv1DTranspose(4, 2, strides=3, padding="same"),
    ),
    "recurrent": lambda: chain(
        layers.Masking(),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.GRU(4, go_backwards=True),
    ),
    "attention": lambda: lambda x: layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
}


def agrees(model: Any, path: Path, samples: np.ndarray, *, gate: bool = True) -> bool:
    """Compiles a model with saliency and, where it has a convolution, a Grad-CAM at it.

    It is measured on the samples, and on variants of them of another batch and other sizes.
    """
    cam = [pg.GradCAM("conv")] if any(layer.name == "conv" for layer in model.layers) else []
    probes = [pg.Saliency(), *cam]
    pg.compile(model, probes, path, gate=gate, verify=False)
    report = measure(path, pg.instrument(model, probes), samples)
    assert len(report.runs) == 2
    return all(p.passed and p.l2_rel < 1e-4 for p in report.values())


@pytest.mark.parametrize(("name", "gate"), [*((n, True) for n in IMAGES), ("decoder", False)])
def test_height_and_width(name: str, gate: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((1, 11, 9, 3))
    model = pooled(IMAGES[name](), (None, None, 3))
    assert agrees(model, tmp_path / "m.onnx", samples, gate=gate)


@pytest.mark.parametrize(("name", "gate"), [*((n, True) for n in SERIES), ("attention", False)])
def test_time(name: str, gate: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((1, 11, 5))
    model = pooled(SERIES[name](), (None, 5))
    assert agrees(model, tmp_path / "m.onnx", samples, gate=gate)


def test_length_of_a_text(tmp_path: Path) -> None:
    def make(tokens: Any) -> Any:
        x = layers.Embedding(13, 6, mask_zero=True)(tokens)
        return layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 3)(x, x))

    rng = np.random.default_rng(0)
    samples = rng.integers(1, 13, (3, 8)).astype("int32")
    samples[0, -2:] = 0
    assert agrees(pooled(make, (None,), "int32"), tmp_path / "m.onnx", samples)


def test_a_table_of_weights_needs_sizes(tmp_path: Path) -> None:
    make = chain(convolved(), layers.Resizing(6, 8, interpolation="bicubic"))
    with pytest.raises(UnsupportedOpsError, match=r"ResizeBicubic.*fixed height and width"):
        pg.compile(pooled(make, (None, None, 3)), [pg.Saliency()], tmp_path / "m.onnx")
