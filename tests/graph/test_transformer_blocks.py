"""Blocks of transformers and of ConvNeXt, from Keras to ONNX: the few operators they come to.

The passes know the pieces that Keras and tf2onnx write today; these tests tell when those change.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import onnx
import pytest
from keras import layers

import probegen as pg
from sweep.subject import stir


def encoder(activation: str = "gelu") -> Any:
    x = keras.Input((5, 12), name="x")
    y = layers.LayerNormalization()(x)
    attended = layers.MultiHeadAttention(3, 4)(y, y)
    y = layers.LayerNormalization()(y + attended)
    hidden = layers.Dense(20, activation)(y)
    y = layers.LayerNormalization()(y + layers.Dense(12)(hidden))
    return keras.Model(x, layers.Dense(3, activation="softmax")(y[:, 0]))


def convnext() -> Any:
    x = keras.Input((12, 10, 3), name="x")
    y = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(8, 2, strides=2)(x))
    for _ in range(2):
        hidden = layers.DepthwiseConv2D(3, padding="same")(y)
        hidden = layers.LayerNormalization(epsilon=1e-6)(hidden)
        hidden = layers.Dense(8)(layers.Dense(20, "gelu")(hidden))
        y = y + layers.Rescaling([0.5, 2, 1, 1, 3, 1, 1, 0.25])(hidden)
    return keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(y)))


def exported(model: Any, path: Path, probes: Any, **options: Any) -> Counter[str]:
    """Compiles a model with stirred weights, which verifies it, and counts its operators."""
    stir(model)
    pg.compile(model, probes, path, gate=False, **options)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_an_encoder(tmp_path: Path) -> None:
    count = exported(encoder(), tmp_path / "m.onnx", [pg.Saliency(), pg.InputGradient()])
    assert count["LayerNormalization"] == 3
    assert count["Erf"] == count["Exp"] == 1
    # Two of the normalisations are read by a sum beside a Dense, and take the mean of g as well.
    assert count["ReduceMean"] == 6
    assert not {"Sqrt", "Shape", "Expand", "Neg", "Compress"} & set(count)


def test_an_encoder_with_the_approximation(tmp_path: Path) -> None:
    def approximate(x: Any) -> Any:
        return keras.activations.gelu(x, approximate=True)

    count = exported(encoder(approximate), tmp_path / "m.onnx", pg.Saliency())
    assert count["Tanh"] == 1
    assert not {"Erf", "Pow"} & set(count)


def test_convnext(tmp_path: Path) -> None:
    count = exported(convnext(), tmp_path / "m.onnx", pg.Saliency())
    assert count["LayerNormalization"] == 3
    assert count["Erf"] == count["Exp"] == 2
    # One mean for each normalisation whose scale a Dense took, two where a convolution and a sum
    # read it.
    assert count["ReduceMean"] == 1 + 1 + 2
    assert not {"Sqrt", "Shape", "Neg", "Compress"} & set(count)


@pytest.mark.parametrize("opset", [18, 21])
def test_every_method_passes_them(tmp_path: Path, opset: int) -> None:
    probes = [
        pg.Saliency(),
        pg.GradCAM(),
        pg.IntegratedGradients(steps=3),
        pg.Activations("type:LayerNormalization"),
        pg.Activations("type:Dense"),
    ]
    # What is exported is compared with the source model, every output of it.
    exported(convnext(), tmp_path / "m.onnx", probes, opset=opset)
