"""Layers that return their own input, and other tensors that go by two names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime

PASSING = {
    "dropout": lambda: layers.Dropout(0.5, name="passes"),
    "identity": lambda: layers.Identity(name="passes"),
    "linear": lambda: layers.Activation("linear", name="passes"),
    "noise": lambda: layers.GaussianNoise(0.3, name="passes"),
    "spatial": lambda: layers.SpatialDropout2D(0.3, name="passes"),
}


def passing(layer, first=False):
    """What a layer passes through is used behind it and beside it."""
    keras.utils.set_random_seed(2)
    x = keras.Input((7, 6, 3), name="x")
    h = x if first else layers.Conv2D(3, 2, activation="relu", name="conv")(x)
    passed = layer(h)
    y = layers.Conv2D(3, 2, padding="same", activation="tanh", name="behind")(passed)
    y = layers.GlobalAveragePooling2D(name="mean")(layers.Add()([y, h]))
    return keras.Model(x, layers.Dense(2, name="y")(y))


def rest(model, passed, beside):
    """Returns the score of class 1 by what the layer passes and what goes beside it."""
    parts = [model.get_layer("behind")(passed), beside]
    return model.get_layer("y")(model.get_layer("mean")(tf.add_n(parts)))[:, 1]


def gradient(model, h):
    passed = tf.Variable(h)
    with tf.GradientTape() as tape:
        score = rest(model, passed, h)
    return tape.gradient(score, passed).numpy()


def given(count=3):
    return np.random.default_rng(3).standard_normal((count, 7, 6, 3)).astype("float32")


PROBES = (
    pg.InputGradient(target=1, wrt="passes", name="gradient"),
    pg.GradCAM(target=1, layer="passes", name="map"),
    pg.IntegratedGradients(target=1, wrt="passes", steps=4, name="integrated"),
)


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("first", [False, True], ids=["inside", "first"])
def test_the_gradient_is_of_what_reads_the_layer(kind, first):
    model = passing(PASSING[kind](), first)
    x = given()
    h = x if first else model.get_layer("conv")(x).numpy()
    expected = gradient(model, h)
    found = pg.instrument(model, PROBES)(x)
    np.testing.assert_allclose(found["gradient"], expected, rtol=1e-4, atol=1e-6)
    weighted = (expected.mean(axis=(1, 2), keepdims=True) * h).sum(axis=-1)
    np.testing.assert_allclose(found["map"], np.maximum(weighted, 0), rtol=1e-4, atol=1e-6)
    points = np.zeros_like(h)
    for k in range(4):
        moved = tf.Variable((k + 0.5) / 4 * h)
        with tf.GradientTape() as tape:
            score = rest(model, moved, h)
        points += tape.gradient(score, moved).numpy() / 4
    np.testing.assert_allclose(found["integrated"], points * h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["m.onnx", "saved"])
def test_engines_agree(tmp_path, name):
    model = passing(PASSING["dropout"]())
    pg.compile(model, PROBES, tmp_path / name)
    x = given(2)
    result = runtime.load(tmp_path / name).run(x)
    expected = gradient(model, model.get_layer("conv")(x).numpy())
    np.testing.assert_allclose(result["gradient"].array, expected, rtol=1e-4, atol=1e-6)


class Splits(layers.Layer):
    """Returns one tensor twice."""

    def call(self, x):
        return x, x


def twice():
    keras.utils.set_random_seed(4)
    x = keras.Input((5,), name="x")
    first, second = Splits(name="splits")(layers.Dense(4, name="dense")(x))
    return keras.Model(x, layers.Add(name="y")([2 * first, 3 * second]))


def test_two_outputs_of_a_layer():
    """The first output of the layer is the one that is probed: its weight is 2, not 5."""
    probed = pg.instrument(twice(), [pg.InputGradient(target=0, wrt="splits", name="g")])
    found = probed(np.ones((2, 5), "float32"))["g"]
    np.testing.assert_array_equal(found, np.tile([2.0, 0, 0, 0], (2, 1)))


def nested_twice():
    """A nested model whose output is what its layer returned, and used there again."""
    keras.utils.set_random_seed(5)
    inner_x = keras.Input((5,))
    h = layers.Dense(4, name="dense")(inner_x)
    inner = keras.Model(inner_x, [h, 3 * h], name="inner")
    x = keras.Input((5,), name="x")
    first, second = inner(x)
    return keras.Model(x, layers.Add(name="y")([first, second]))


def test_a_nested_model_and_its_last_layer():
    probes = [
        pg.InputGradient(target=0, wrt="inner", name="model"),
        pg.InputGradient(target=0, wrt="inner/dense", name="layer"),
    ]
    found = pg.instrument(nested_twice(), probes)(np.ones((2, 5), "float32"))
    np.testing.assert_array_equal(found["model"], np.tile([1.0, 0, 0, 0], (2, 1)))
    np.testing.assert_array_equal(found["layer"], np.tile([4.0, 0, 0, 0], (2, 1)))


@pytest.mark.parametrize("name", ["m.onnx", "saved"])
def test_outputs_of_the_model_that_are_one_tensor(tmp_path, name):
    """Two outputs are the same, one is the input, one a layer's own input."""
    keras.utils.set_random_seed(6)
    x = keras.Input((5,), name="x")
    y = layers.Dense(3, name="y")(x)
    same = layers.Identity(name="same")(y)
    back = layers.Dropout(0.5, name="back")(x)
    model = keras.Model(x, {"a": y, "b": same, "c": back})
    probes = [pg.InputGradient(target=1, output=i, name=f"g{i}") for i in range(3)]
    pg.compile(model, probes, tmp_path / name)
    given = np.random.default_rng(0).standard_normal((3, 5)).astype("float32")
    result = runtime.load(tmp_path / name).run(given)
    predictions = [v for k, v in result.items() if not k.startswith("g")]
    expected = model(given)
    for found, key in zip(predictions, "abc", strict=True):
        np.testing.assert_allclose(found.array, expected[key], rtol=1e-5, atol=1e-6)
    kernel = np.array(model.get_layer("y").kernel)
    for i, weights in enumerate([kernel[:, 1], kernel[:, 1], np.eye(5)[1]]):
        np.testing.assert_allclose(result[f"g{i}"].array, np.tile(weights, (3, 1)), rtol=1e-5)


def test_two_layers_that_do_the_same_to_one_tensor(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((6,), name="x")
    h = layers.Dense(5, activation="tanh", name="h")(x)
    same = (layers.Reshape((5,), name="a")(h), layers.Flatten(name="b")(h))
    parts = [
        ops.square(layers.Dense(3, name=f"behind_{name}")(part))
        for name, part in zip("ab", same, strict=True)
    ]
    model = keras.Model(x, layers.Dense(2, name="y")(layers.Concatenate()(parts)))
    pg.compile(model, pg.InputGradient(target=1, wrt=["a", "b"]), tmp_path / "m.onnx")
    data = np.random.default_rng(5).standard_normal((3, 6)).astype("float32")
    result = runtime.load(tmp_path / "m.onnx").run(data)
    for name in "ab":
        moved = tf.Variable(model.get_layer("h")(data))
        with tf.GradientTape() as tape:
            square = ops.square(model.get_layer(f"behind_{name}")(moved))
            none = ops.zeros_like(square)
            both = [square, none] if name == "a" else [none, square]
            score = model.get_layer("y")(ops.concatenate(both, axis=1))[:, 1]
        expected = tape.gradient(score, moved).numpy()
        np.testing.assert_allclose(result[f"input_gradient/{name}"].array, expected, rtol=1e-4)
