"""Probe points of Keras models."""

import keras
from keras import layers, ops

import probegen as pg
from tests import models


def test_inspect_sees_inside_custom_layers():
    points = {p.path: p for p in pg.inspect(models.transformer())}
    assert points["block_1/mha"].role == "attention"
    assert "attention" in points["block_1/mha"].probes
    assert points["embedding"].role == "embedding"
    assert "step of lstm" in pg.inspect(models.forecaster())[3].reason


def test_what_has_no_samples_cannot_be_probed():
    """An embedding of positions, as transformers for images have it: `[position, feature]`."""

    class Positions(layers.Layer):
        def __init__(self):
            super().__init__(name="positions")
            self.table = layers.Embedding(5, 3, name="table")

        def call(self, x):
            return x + self.table(ops.arange(5))

    x = keras.Input((5, 3))
    points = {p.path: p for p in pg.inspect(keras.Model(x, Positions()(x)))}
    assert points["positions/table"].probes == ()
    assert "no axis" in points["positions/table"].reason
    assert "activation" in points["positions"].probes
