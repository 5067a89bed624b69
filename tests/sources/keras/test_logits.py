"""Probes of logits, beside one that explains what comes out of the softmax or sigmoid itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from tests import models


@keras.saving.register_keras_serializable(package="probegen_tests")
class OwnSoftmax(layers.Layer):
    """Calls TensorFlow, on whose tensors Keras keeps no logits."""

    def call(self, x):
        return tf.nn.softmax(x)


@pytest.mark.parametrize(
    ("end", "path"),
    [
        (lambda: layers.Activation("sigmoid", name="end"), "m.onnx"),
        (lambda: layers.Activation("sigmoid", name="end"), "saved"),
        (lambda: OwnSoftmax(name="end"), "m.onnx"),
    ],
    ids=["sigmoid", "sigmoid in a SavedModel", "softmax of one's own"],
)
def test_logits_stay_logits_where_another_probe_explains_the_probabilities(tmp_path, end, path):
    keras.utils.set_random_seed(6)
    x = keras.Input((5,), name="x")
    scores = layers.Dense(3, name="scores")
    model = keras.Model(x, end()(scores(x)))
    probes = [
        pg.InputGradient(target=1),
        pg.FeatureAblation(target=1, wrt="end", logits=False),
    ]
    pg.compile(model, probes, tmp_path / path)
    data = models.images((5,), count=3)
    found = runtime.load(tmp_path / path).run(data)
    slopes = np.tile(keras.ops.convert_to_numpy(scores.kernel)[:, 1], (3, 1))
    np.testing.assert_allclose(found["input_gradient/x"].array, slopes, rtol=1e-5)
    expected = np.zeros((3, 3)) + model.predict_on_batch(data) * [0, 1, 0]
    np.testing.assert_allclose(found["feature_ablation/end"].array, expected, atol=1e-6)
