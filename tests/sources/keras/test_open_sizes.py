"""Layers and functions of Keras that differ where sizes are open: as the model, eagerly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime


def images_through(layer):
    keras.utils.set_random_seed(4)
    x = keras.Input((None, None, 3), name="x")
    y = layers.Conv2D(3, 3, activation="relu")(layer(x))
    return keras.Model(x, layers.Dense(2, name="y")(layers.GlobalAveragePooling2D()(y)))


def given(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    "layer",
    [
        layers.RandomCrop(4, 5),
        layers.UpSampling2D((2, 3), interpolation="bicubic"),
        layers.UpSampling2D(2, interpolation="bilinear"),
    ],
    ids=["crop", "bicubic", "bilinear"],
)
def test_predictions_are_those_of_the_untouched_model(layer):
    model = images_through(layer)
    probed = pg.instrument(model, [pg.Activations(-1)])
    for shape in ((2, 5, 7, 3), (3, 9, 6, 3)):
        x = given(*shape)
        expected = model(x, training=False)  # RandomCrop trains where it is not told
        np.testing.assert_allclose(probed(x)["y"], expected, rtol=1e-5, atol=1e-6)


def test_center_crop_resizes_images_that_are_too_small(tmp_path):
    """Keras chooses between cropping and resizing when it traces, and then always crops."""
    model = images_through(layers.CenterCrop(6, 7))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for shape in ((2, 4, 5, 3), (3, 9, 8, 3), (1, 4, 12, 3), (2, 6, 7, 3)):
        x = given(*shape)
        result = artefact.run(x)
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            scores = model(variable)
            score = scores[:, 1]
        expected = tape.gradient(score, variable)
        np.testing.assert_allclose(result["y"].array, scores, rtol=1e-5, atol=1e-6)
        found = result["input_gradient/x"].array
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_parts_of_an_open_size_are_as_long_as_those_of_a_known_one(tmp_path):
    """Keras makes one part of it all when it traces."""

    def weighed(x):
        first, second, last = keras.ops.array_split(x, 3, axis=-2)
        half = keras.ops.array_split(x, 2, axis=2)[0]
        return sum(
            k * keras.ops.mean(part**2, (1, 2)) for k, part in enumerate((first, second, last), 2)
        ) + keras.ops.sum(half, (1, 2))

    x = keras.Input((None, None, 3), name="x")
    model = keras.Model(x, layers.Lambda(weighed, output_shape=(3,), name="y")(x))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for shape in ((2, 2, 5, 3), (3, 1, 7, 3)):
        variable = tf.Variable(given(*shape))
        with tf.GradientTape() as tape:
            scores = model(variable)
            score = scores[:, 1]
        result = artefact.run(variable.numpy())
        np.testing.assert_allclose(result["y"].array, scores, rtol=1e-5, atol=1e-6)
        expected = tape.gradient(score, variable)
        np.testing.assert_allclose(result["input_gradient/x"].array, expected, rtol=1e-5, atol=1e-6)
