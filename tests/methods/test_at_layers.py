"""Gradient times input, and gradients at layers: against tapes, for every call of a layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from tests import models
from tests.methods.test_cams import data_of, differences, file_of, model_of, taped
from tests.sources.keras.support import logits, plain_gradient


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradient_times_input_is_that_of_a_tape(tmp_path, rank):
    model, probe = model_of(rank, "tanh"), pg.GradientXInput(target=1)
    exported = pg.compile(model, probe, tmp_path / "m.onnx")
    assert exported.report.passed
    art, probed = runtime.load(tmp_path / "m.onnx"), pg.instrument(model, probe)
    for count in (2, 3):
        x = data_of(rank, count)
        expected = x * plain_gradient(logits(model), x, lambda y: y[:, 1])
        scale = np.abs(expected).max()
        for got in (art.run(x)["gradient_x_input/x"].array, probed(x)["gradient_x_input/x"]):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * scale)
        assert (expected[:-1] < 0).any()
        assert not expected[-1].any()  # the row of zeros


def test_it_sums_to_a_linear_score_without_its_bias(tmp_path):
    x = keras.Input((5,), name="x")
    model = keras.Model(x, layers.Dense(3, bias_initializer="ones", name="scores")(x))
    pg.compile(model, pg.GradientXInput(target=2), tmp_path / "m.onnx")
    data = models.images((5,), count=4)
    found = runtime.load(tmp_path / "m.onnx").run(data)["gradient_x_input/x"].array
    np.testing.assert_allclose(
        found.sum(1), np.asarray(model(data))[:, 2] - 1, rtol=1e-4, atol=1e-6
    )


def test_a_files_layer_by_differences(tmp_path):
    whole, behind = file_of(1, "Tanh")
    probe = pg.GradientXInput(wrt="a", target=0)
    assert pg.compile(whole, [probe, pg.Activations("a")], tmp_path / "m.onnx").report.passed
    result = runtime.load(tmp_path / "m.onnx").run(np.moveaxis(data_of(1, 3), -1, 1))
    maps = result["activation/a"].array
    expected = maps * differences(behind, maps, 0)
    np.testing.assert_allclose(
        result["gradient_x_input/a"].array, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
    )


def test_a_class_that_does_not_see_the_input_has_zeros(tmp_path):
    pg.compile(model_of(2, "relu"), pg.GradientXInput(target=2), tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(data_of(2, 2))["gradient_x_input/x"].array
    np.testing.assert_array_equal(found, 0)


def test_randomised_weights_change_it():
    model, probe = model_of(2, "relu"), pg.GradientXInput(target=1)
    x = data_of(2, 3)[:2]
    before = np.asarray(pg.instrument(model, probe)(x)["gradient_x_input/x"])
    rng = np.random.default_rng(5)
    for name in ("scores", "hidden", "maps"):
        layer = model.get_layer(name)
        layer.set_weights([rng.standard_normal(w.shape) * w.std() for w in layer.get_weights()])
    after = np.asarray(pg.instrument(model, probe)(x)["gradient_x_input/x"])
    for one, other in zip(before, after, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9


def test_at_a_layer(tmp_path):
    model, x = model_of(2, "tanh"), data_of(2, 3)
    probes = [m(wrt="maps", target=1) for m in (pg.InputGradient, pg.Saliency, pg.GradientXInput)]
    assert pg.compile(model, probes, tmp_path / "m.onnx").report.passed
    result = runtime.load(tmp_path / "m.onnx").run(x)
    gradient, maps = taped(model, x, 1)
    for kind, expected in (
        ("input_gradient", gradient),
        ("saliency", np.abs(gradient).max(-1)),
        ("gradient_x_input", gradient * maps),
    ):
        scale = np.abs(expected).max()
        found = result[f"{kind}/maps"].array
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * scale, err_msg=kind)


def test_every_call_of_a_shared_layer(tmp_path):
    """Integrated gradients of a call move that call's output alone."""
    model = models.siamese()
    methods = (pg.InputGradient, pg.Saliency, pg.GradientXInput)
    probes = [*(m(wrt="tower", target=0) for m in methods), pg.IntegratedGradients(8, wrt="tower")]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    kinds = [*(m.kind for m in methods), "integrated_gradients"]
    names = [f"{kind}/tower#{i}" for kind in kinds for i in range(2)]
    assert [o.name for o in exported.manifest.explanations] == names
    data = [models.images((7,), seed=i) for i in range(2)]
    result = runtime.load(tmp_path / "m.onnx").run({"left": data[0], "right": data[1]})
    tower, last = model.get_layer("tower"), model.get_layer("same")
    score = lambda parts: (tf.concat(parts, 1) @ last.kernel + last.bias)[:, 0]  # noqa: E731
    values = [tf.constant(tower(d)) for d in data]
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(score(values))
    for i, gradient in enumerate(tape.gradient(total, values)):
        value = values[i].numpy()
        found = {kind: result[f"{kind}/tower#{i}"].array for kind in kinds}
        np.testing.assert_allclose(found["input_gradient"], gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["saliency"], np.abs(gradient), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            found["gradient_x_input"], gradient * value, rtol=1e-4, atol=1e-6
        )
        # From zero, the other call as it is: the score is linear here.
        alone = [tf.zeros_like(v) if j == i else v for j, v in enumerate(values)]
        gone = (score(values) - score(alone)).numpy()
        np.testing.assert_allclose(found["integrated_gradients"].sum(1), gone, rtol=1e-3, atol=1e-5)
