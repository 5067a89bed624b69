"""Attributions that cancel to less than what rounds them are not certified."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen.errors import VerificationError


def normalised(bias=0.0):
    """A row over its length, which has a gain of a million where the row is zeros."""
    keras.utils.set_random_seed(3)
    x = keras.Input((6,), name="x")
    first = layers.Dense(5)
    h = first(x)
    y = h * ops.rsqrt(ops.maximum(ops.sum(ops.square(h), -1, keepdims=True), 1e-12))
    model = keras.Model(x, layers.Dense(3)(ops.tanh(layers.Dense(4)(y))))
    first.bias.assign(first.bias + bias)
    return model


def test_deep_lift_from_a_norm_of_zeros(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(VerificationError, match=r"'deep_lift/x' cancels: .*e\+0\d times the score"):
        pg.compile(normalised(), pg.DeepLIFT(target=1), path)
    assert not path.exists()
    away = np.linspace(-1, 2, 6, dtype=np.float32)
    assert pg.compile(normalised(), pg.DeepLIFT(away, target=1), path).report.passed


def test_parts_that_cancel_between_inputs(tmp_path):
    """Each input has millions for a sum, which together are a score."""
    x, z = keras.Input((6,), name="x"), keras.Input((4,), name="z")
    keras.utils.set_random_seed(3)
    h = layers.Add()([layers.Dense(5)(x), layers.Dense(5)(z)])
    y = h * ops.rsqrt(ops.maximum(ops.sum(ops.square(h), -1, keepdims=True), 1e-12))
    model = keras.Model([x, z], layers.Dense(3)(ops.tanh(layers.Dense(4)(y))))
    said = r"'deep_lift/x' and 'deep_lift/z' cancel: their .*e\+0\d times the score"
    with pytest.raises(VerificationError, match=said):
        pg.compile(model, pg.DeepLIFT(target=1), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_gradients_along_a_line_are_no_such_numbers(tmp_path):
    probes = [pg.DeepLIFT(target=1), pg.IntegratedGradients(4, target=1)]
    assert pg.compile(normalised(0.3), probes, tmp_path / "m.onnx").report.passed
