"""Integrated gradients hold the masks of the input itself, in both engines.

The twin runs the layers behind the mask eagerly at each point of the path, with the mask given.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.plan.making import make_plan
from probegen.sources import open_source

STEPS = 6


class Runs(layers.Layer):
    """A layer that runs a function."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def present(x, value=0.0):
    return ops.any(ops.not_equal(x, value), axis=-1)


def masked_mean(x):
    """A mean over the steps that are there; their number is held with the mask."""
    mask = ops.cast(ops.any(x != 0, axis=-1), x.dtype)[..., None]
    return ops.sum(x * mask, axis=1) / (1.0 + ops.sum(mask, axis=1))


def by_length(x):
    """The sum of the first steps, as many as are there."""
    length = ops.sum(ops.cast(ops.sum(ops.abs(x), axis=-1) != 0, "int32"), axis=1)
    steps = ops.arange(ops.shape(x)[1])
    kept = ops.cast(steps[None, :] < length[:, None], x.dtype)
    return ops.sum(ops.tanh(x) * kept[..., None], axis=1)


def masking():
    x = keras.Input((5, 3), name="x")
    y = layers.LSTM(4, name="lstm")(layers.Masking(-1.0)(x))
    return keras.Model(x, layers.Dense(2, name="y")(y))


def behind():
    """The mask is that of what a layer makes of the input."""
    x = keras.Input((5, 3), name="x")
    y = layers.Dense(4, use_bias=False, activation="relu", name="dense")(x)
    y = layers.GRU(3, name="gru")(layers.Masking(0.0)(y))
    return keras.Model(x, layers.Dense(2, name="y")(y))


def passed():
    """The mask is no comparison for equality, but handed to a layer as its mask."""

    class Passes(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.gru = layers.GRU(3, name="gru")

        def call(self, x):
            return self.gru(x, mask=ops.max(x, axis=-1) > -0.9)

    x = keras.Input((5, 3), name="x")
    return keras.Model(x, layers.Dense(2, name="y")(Passes(name="passes")(x)))


def runs(function):
    def make():
        x = keras.Input((5, 3), name="x")
        return keras.Model(x, layers.Dense(2, name="y")(Runs(function, name="f")(x)))

    return make


def rest_of_masking(model, x, point):
    return model.get_layer("lstm")(tf.where(present(x, -1.0)[..., None], point, 0.0),
                                   mask=present(x, -1.0))  # fmt: skip


def rest_behind(model, x, point):
    mask = present(model.get_layer("dense")(x))
    y = tf.where(mask[..., None], model.get_layer("dense")(point), 0.0)
    return model.get_layer("gru")(y, mask=mask)


def rest_of_passed(model, x, point):
    return model.get_layer("passes").gru(point, mask=ops.max(x, axis=-1) > -0.9)


def rest_of_mean(_, x, point):
    mask = np.any(x != 0, axis=-1)[..., None].astype("float32")
    return ops.sum(point * mask, axis=1) / (1.0 + mask.sum(axis=1))


def rest_of_length(_, x, point):
    length = (np.abs(x).sum(axis=-1) != 0).sum(axis=1)
    kept = (np.arange(5)[None] < length[:, None])[..., None].astype("float32")
    return ops.sum(ops.tanh(point) * kept, axis=1)


CASES = {
    "masking": (masking, rest_of_masking, -1.0),
    "behind a layer": (behind, rest_behind, 0.0),
    "passed": (passed, rest_of_passed, -1.0),
    "mean": (runs(masked_mean), rest_of_mean, 0.0),
    "length": (runs(by_length), rest_of_length, 0.0),
}


def given(padding):
    """Noise, padded to several lengths; one row is all padding."""
    x = np.random.default_rng(7).standard_normal((4, 5, 3)).astype("float32")
    for row, length in enumerate((5, 3, 1, 0)):
        x[row, length:] = padding
    return x


def expected(model, rest, x, baseline):
    """The midpoint rule, written out; the class is that of the input."""
    classes = np.argmax(model(x), axis=-1)
    total = np.zeros_like(x)
    for k in range(STEPS):
        point = tf.Variable(baseline + (k + 0.5) / STEPS * (x - baseline))
        with tf.GradientTape() as tape:
            scores = model.get_layer("y")(rest(model, x, point))
            score = tf.gather(scores, classes, batch_dims=1)
        gradient = tape.gradient(score, point)
        total += 0 if gradient is None else gradient.numpy() / STEPS
    return (x - baseline) * total


@pytest.mark.parametrize("kind", CASES)
def test_masks_are_those_of_the_input(kind):
    baseline = 0.5
    make, rest, padding = CASES[kind]
    keras.utils.set_random_seed(11)
    model, x = make(), given(padding)
    probed = pg.instrument(model, [pg.IntegratedGradients(steps=STEPS, baseline=baseline)])
    found = probed(x)
    wanted = expected(model, rest, x, baseline)
    np.testing.assert_allclose(found["integrated_gradients/x"], wanted, rtol=1e-4, atol=1e-6)
    assert np.abs(wanted[0]).max() > 1e-3


@pytest.mark.parametrize("kind", CASES)
def test_in_onnx(kind, tmp_path):
    make, rest, padding = CASES[kind]
    keras.utils.set_random_seed(11)
    model, x = make(), given(padding)
    pg.compile(model, [pg.IntegratedGradients(steps=STEPS)], tmp_path / "m.onnx")
    result = runtime.load(tmp_path / "m.onnx").run(x)
    found = result["integrated_gradients/x"].array
    wanted = expected(model, rest, x, 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    if kind == "masking":  # the steps that the model ignores
        assert not found[x == -1.0].any()


@pytest.mark.parametrize("kind", ["masking", "length"])
def test_differences_of_scores_hold_them_too(kind):
    """What moves the tensors of the model itself, for the verification of such methods."""
    make, rest, padding = CASES[kind]
    model, x = make(), given(padding)
    source = open_source(model)
    plan = make_plan(source.view, [pg.IntegratedGradients(steps=STEPS, target=1)], None)
    moved, shift = source.moved_scores(plan), np.full(x.shape, 0.3)
    scores, tensors = moved.holding_masks({"x": x}, {plan.refs[0]: shift})
    right = model.get_layer("y")(rest(model, x, tf.constant(x + np.float32(0.3))))
    np.testing.assert_allclose(scores[0], right, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tensors[plan.refs[0]], x)
    computed_anew = moved.at({"x": x}, {plan.refs[0]: shift})[0][0]
    assert np.abs(computed_anew - right).max() > 1e-3


def test_a_mask_that_is_fed(tmp_path):
    keras.utils.set_random_seed(3)
    x, valid = keras.Input((5, 3), name="x"), keras.Input((5,), dtype="bool", name="valid")
    y = layers.GRU(4, name="gru")(x, mask=valid)
    model = keras.Model([x, valid], layers.Dense(2, name="y")(y))
    data = {"x": given(0.3), "valid": np.random.default_rng(2).random((4, 5)) < 0.6}
    probe = pg.IntegratedGradients(target=1, steps=STEPS)
    total = np.zeros_like(data["x"])
    for k in range(STEPS):
        point = tf.Variable((k + 0.5) / STEPS * data["x"])
        with tf.GradientTape() as tape:
            score = model.get_layer("y")(model.get_layer("gru")(point, mask=data["valid"]))[:, 1]
        total += tape.gradient(score, point).numpy() / STEPS
    for name in ("m.onnx", "folder"):
        pg.compile(model, probe, tmp_path / name)
        got = runtime.load(tmp_path / name).run(data)["integrated_gradients/x"].array
        np.testing.assert_allclose(got, total * data["x"], rtol=1e-3, atol=1e-6)


def test_gates_of_the_model_move():
    """Where `x > 0` chooses what is computed, a point of the path chooses for itself."""
    model = runs(lambda x: ops.sum(ops.where(x > 0.4, 3 * x, x), axis=1))()
    x = np.abs(given(0.0)) + 1
    probe = pg.IntegratedGradients(steps=STEPS, target=0)
    found = pg.instrument(model, [probe])(x)["integrated_gradients/x"]
    weights = np.array(model.get_layer("y").kernel)[:, 0]
    slopes = [np.where((k + 0.5) / STEPS * x > 0.4, 3, 1) for k in range(STEPS)]
    np.testing.assert_allclose(found, x * np.mean(slopes, axis=0) * weights, rtol=1e-4)
