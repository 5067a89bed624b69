"""Models as sources: their inputs, in whatever nest, and what these are called."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen.sources.keras.keras_model import as_keras_model
from tests import models


def test_nests_of_inputs():
    a, b, c = (keras.Input((n,), name=name) for n, name in ((5, "a"), (7, "b"), (2, "c")))
    dense = keras.layers.Dense(3, activation="tanh")
    y = keras.layers.Concatenate()([dense(a), keras.layers.Dense(4)(b), c])
    data = [models.images((n,), seed=n) for n in (5, 7, 2)]
    head = keras.layers.Dense(2, name="head")(y)
    for nest, given in (([a, [b, c]], [data[0], data[1:]]), ((a, b, c), data)):
        model = keras.Model(nest, head)
        probed = pg.instrument(model, pg.InputGradient())
        np.testing.assert_allclose(probed(data)["head"], model(given), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            probed.predict(data, verbose=0)["head"], model(given), rtol=1e-5, atol=1e-6
        )
        assert [i.name for i in probed.manifest.inputs] == ["a", "b", "c"]
    model = keras.Model({"c": c, "b": b, "a": a}, {"y": head, "h": dense(a)})
    named = dict(zip("abc", data, strict=True))
    outputs = pg.instrument(model, pg.InputGradient(output=1))(named)
    np.testing.assert_allclose(outputs["h"], model(named)["h"], rtol=1e-5, atol=1e-6)


def test_inputs_are_called_as_their_layers_over_saving_and_loading(tmp_path):
    x = keras.Input((5,))  # unnamed: the tensor's own name is a counter that a file forgets
    model = keras.Model(x, keras.layers.Dense(3, name="head")(x))
    probed = pg.instrument(model, pg.Saliency())
    name = model.layers[0].name
    assert [i.name for i in probed.manifest.inputs] == [name]
    probed.save(tmp_path / "m.keras")
    data = {name: models.images((5,))}
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for key, value in probed(data).items():
        np.testing.assert_allclose(loaded(data)[key], value, rtol=1e-6)


class Bytes(keras.Model):
    """A class around a model of bytes, ids and text; a fourth input is read as it is."""

    def __init__(self):
        super().__init__()
        image, ids = keras.Input((5, 4, 2), dtype="uint8"), keras.Input((3,), dtype="int32")
        y = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
        z = keras.layers.Flatten()(keras.layers.Embedding(7, 2)(ids))
        text = keras.Input((1,), dtype="string")
        w = keras.layers.Hashing(5, output_mode="one_hot")(text)
        self.core = keras.Model([image, ids, text], keras.layers.Concatenate()([y, z, w]))
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(self.core(inputs[:3])) * keras.ops.sum(inputs[3], -1, keepdims=True)


def test_a_class_takes_what_it_casts_its_inputs_to():
    """Keras records sizes alone: numbers below 0 would be other bytes in each runtime."""
    model, rng = Bytes(), np.random.default_rng(0)
    image, ids = rng.integers(0, 255, (2, 5, 4, 2)), rng.integers(0, 7, (2, 3))
    model([image, ids, tf.constant([["a"], ["b"]]), np.ones((2, 6), "f")])
    with pytest.warns(UserWarning, match="records the sizes"):
        known = as_keras_model(model)
    assert [spec.dtype.name for spec in known.input_specs] == [
        "uint8",
        "int32",
        "string",
        "float32",
    ]
