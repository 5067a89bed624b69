"""TensorFlow's engine against gradients written out plainly, and against equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from tests import models
from tests.sources.keras.support import logits, plain_gradient


@pytest.mark.parametrize(
    ("target", "score"),
    [
        ("argmax", lambda y: tf.reduce_max(y, -1)),
        (2, lambda y: y[:, 2]),
        ((1,), lambda y: y[:, 1]),
        ((-1,), lambda y: y[:, 3]),
        ((None,), lambda y: tf.reduce_sum(y, -1)),
        (lambda y: y[:, 0] - 2 * y[:, 3], lambda y: y[:, 0] - 2 * y[:, 3]),
    ],
)
def test_targets_are_of_logits(target, score):
    model, x = models.cnn(), models.images((11, 8, 2))
    got = pg.instrument(model, pg.InputGradient(target=target))(x)["input_gradient/image"]
    np.testing.assert_allclose(got, plain_gradient(logits(model), x, score), rtol=1e-4, atol=1e-6)


def test_without_logits_the_prediction_itself_is_differentiated():
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(model, pg.InputGradient(target=1, logits=False))
    expected = plain_gradient(model, x, lambda y: y[:, 1])
    np.testing.assert_allclose(probed(x)["input_gradient/image"], expected, rtol=1e-4, atol=1e-7)
    assert probed.manifest.output("input_gradient/image").target.logits is False


def test_saliency_is_the_largest_absolute_gradient_over_channels():
    model, x = models.cnn(), models.images((11, 8, 2))
    outputs = pg.instrument(model, [pg.Saliency(), pg.InputGradient()])(x)
    expected = np.abs(outputs["input_gradient/image"]).max(-1)
    np.testing.assert_array_equal(outputs["saliency/image"], expected)


def test_grad_cam_by_its_equations():
    model, x = models.cnn(), models.images((11, 8, 2))
    outputs = pg.instrument(
        model, [pg.GradCAM(), pg.Activations("conv2"), pg.InputGradient(wrt="conv2")]
    )(x)
    maps = np.asarray(outputs["activation/conv2"])
    weights = np.asarray(outputs["input_gradient/conv2"]).mean((1, 2), keepdims=True)
    expected = np.maximum((weights * maps).sum(-1), 0)
    np.testing.assert_allclose(outputs["grad_cam/conv2"], expected, rtol=1e-5, atol=1e-7)
    # conv2 -> mean over 3x3 positions -> dense: its gradient is the dense kernel over 9.
    kernel = np.asarray(model.get_layer("scores").kernel)
    best = np.asarray(outputs["scores"]).argmax(-1)
    np.testing.assert_allclose(weights[:, 0, 0], kernel[:, best].T / 9, rtol=1e-5)


def test_integrated_gradients_are_complete():
    model, x = models.cnn(), models.images((11, 8, 2))
    baseline = 0.25
    probed = pg.instrument(model, pg.IntegratedGradients(steps=400, baseline=baseline, target=2))
    total = np.asarray(probed(x)["integrated_gradients/image"]).sum((1, 2, 3))
    f = logits(model)
    expected = f(x)[:, 2] - f(np.full_like(x, baseline))[:, 2]
    np.testing.assert_allclose(total, expected, atol=2e-3 * np.abs(expected).max())


def test_integrated_gradients_at_an_embedding():
    model, x = models.transformer(), models.tokens()
    outputs = pg.instrument(model, pg.IntegratedGradients(steps=300, target=0))(x)
    attribution = np.asarray(outputs["integrated_gradients/tokens"])
    assert attribution.shape == (3, 9, 6)
    f = logits(model)
    vectors = np.asarray(model.get_layer("embedding").embeddings)
    model.get_layer("embedding").embeddings.assign(np.zeros_like(vectors))
    f.set_weights(model.get_weights())
    at_zero = np.asarray(f(x))[:, 0]
    model.get_layer("embedding").embeddings.assign(vectors)
    f.set_weights(model.get_weights())
    expected = np.asarray(f(x))[:, 0] - at_zero
    np.testing.assert_allclose(attribution.sum((1, 2)), expected, atol=5e-3)


def test_gradients_are_independent_of_the_rest_of_the_batch():
    model, x = models.cnn(), models.images((11, 8, 2), count=8)
    probed = pg.instrument(model, [pg.Saliency(), pg.GradCAM()])
    whole, single = probed(x), probed(x[5:6])
    for name in whole:
        np.testing.assert_allclose(whole[name][5:6], single[name], rtol=1e-5, atol=1e-7)


def test_recurrent_forecaster():
    model, x = models.forecaster(), models.images((17, 2))
    outputs = pg.instrument(model, [pg.InputGradient(), pg.Activations("lstm")])(x)
    expected = plain_gradient(model, x, lambda y: y[:, 0])
    np.testing.assert_allclose(outputs["input_gradient/window"], expected, rtol=1e-4, atol=1e-7)


def test_segmentation_and_sequence_outputs():
    x = keras.Input((6, 5, 2), name="x")
    maps = keras.layers.Conv2D(3, 3, padding="same", activation="softmax", name="maps")(x)
    model, data = keras.Model(x, maps), models.images((6, 5, 2))
    one = pg.instrument(model, pg.InputGradient(target=1))(data)["input_gradient/x"]
    expected = plain_gradient(logits(model), data, lambda y: tf.reduce_sum(y[..., 1], (1, 2)))
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)
    pixel = pg.instrument(model, pg.InputGradient(target=(4, 2, 0)))(data)["input_gradient/x"]
    expected = plain_gradient(logits(model), data, lambda y: y[:, 4, 2, 0])
    np.testing.assert_allclose(pixel, expected, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_at_layers_behind_each_other():
    model, x = models.cnn(), models.images((11, 8, 2))
    several = pg.instrument(model, pg.IntegratedGradients(3, target=1, wrt=["image", "conv*"]))(x)
    for place in ("image", "conv1", "conv2"):
        alone = pg.instrument(model, pg.IntegratedGradients(3, target=1, wrt=place))(x)
        name = f"integrated_gradients/{place}"
        np.testing.assert_allclose(several[name], alone[name], rtol=1e-5, atol=1e-7)
