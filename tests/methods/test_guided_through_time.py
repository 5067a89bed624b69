"""Guided backpropagation and deconvolution through cells, loops and branches, against numpy."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.graph.tables import rectifiers
from tests import models

METHODS = [pg.GuidedBackprop(target=1), pg.Deconvnet(target=1)]


def back(slope, g, *, guided):
    return np.maximum(slope, 0) * np.maximum(g, 0) if guided else np.maximum(g, 0)


# -- what ONNX runs ----------------------------------------------------------------------------

#: Steps `s <- f(x[t] - s)` that begin with the smallest entry, and the sum of all; f is a
#: rectifier, in the second loop in every other step alone, and a half in the others.
LOOPS = {
    "Scan": """<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4, 3] x) => (float[n, 3] y) {
        steps = Transpose <perm = [1, 0, 2]> (x)
        start = ReduceMin <axes = [1], keepdims = 0> (x)
        last, all = Scan <num_scan_inputs = 1, scan_output_axes = [1], body = step
          (float[n, 3] s, float[n, 3] t) => (float[n, 3] u, float[n, 3] v) {
            a = Sub (t, s)
            u = Relu (a)
            v = Identity (u)
          }> (start, steps)
        y = ReduceSum <keepdims = 0> (all, axis)
      }""",
    "Loop": """<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4, 3] x) => (float[n, 3] y) {
        start = ReduceMin <axes = [1], keepdims = 0> (x)
        last, all = Loop <body = step (int64 i, bool go, float[n, 3] s)
          => (bool on, float[n, 3] u, float[n, 3] v) {
            on = Identity (go)
            t = Gather <axis = 1> (x, i)
            a = Sub (t, s)
            two = Constant <value = int64 {2}> ()
            r = Mod (i, two)
            odd = Cast <to = 9> (r)
            u = If (odd) <
              then_branch = one () => (float[n, 3] p) { p = Relu (a) },
              else_branch = other () => (float[n, 3] q) {
                half = Constant <value = float {0.5}> ()
                q = Mul (a, half)
              }>
            v = Identity (u)
          }> (four, yes, start)
        y = ReduceSum <keepdims = 0> (all, axis)
      }""",
}


def loop(operator):
    model = onnx.parser.parse_model(LOOPS[operator])
    along = np.array([1 if operator == "Scan" else 0])
    for name, array in (("axis", along), ("four", np.array(4)), ("yes", np.array(True))):
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def attribution(operator, x, *, guided):
    """Returns what arrives at x, step by step."""
    bent = [operator == "Scan" or k % 2 == 1 for k in range(4)]
    first, states, sums = x.argmin(1), [x.min(1)], []
    for k in range(4):
        sums.append(x[:, k] - states[-1])
        states.append(np.maximum(sums[k], 0) if bent[k] else sums[k] / 2)
    found, later = np.zeros_like(x), np.zeros_like(states[0])
    for k in reversed(range(4)):
        g = later + np.eye(3)[1]
        found[:, k] = back(sums[k] > 0, g, guided=guided) if bent[k] else g / 2
        later = -found[:, k]
    np.put_along_axis(
        found,
        first[:, None],
        np.take_along_axis(found, first[:, None], 1) + later[:, None],
        1,
    )
    return found


@pytest.mark.parametrize("operator", LOOPS)
def test_the_rules_go_into_loops_and_branches(tmp_path, operator):
    model, path = loop(operator), tmp_path / "m.onnx"
    exported = pg.compile(model, METHODS, path)
    assert "numpy on the forward graph" in exported.report["deconvnet/x"].witness
    for count in (1, 5):
        x = models.images((4, 3), seed=count, count=count)
        found = runtime.load(path).run(x)
        for kind in ("guided_backprop", "deconvnet"):
            expected = attribution(operator, x.astype(float), guided=kind == "guided_backprop")
            np.testing.assert_allclose(found[f"{kind}/x"].array, expected, rtol=1e-4, atol=1e-5)


def test_the_verification_finds_a_rule_that_is_forgotten_in_a_loop(tmp_path, monkeypatch):
    model, path = loop("Scan"), tmp_path / "m.onnx"
    with monkeypatch.context() as changed:
        changed.setattr(rectifiers, "rectifier_at", lambda _: None)
        pg.compile(model, METHODS[1], path, verify=False)
    with pytest.raises(VerificationError, match="deconvnet/x"):
        pg.verify(path, model)


def test_cells_with_rectifiers_inside_go_step_by_step(tmp_path):
    """Backwards, with lengths of their own; beyond the end of a sequence nothing arrives."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[4, n, 3] x, int32[n] lengths) => (float[1, n, 2] last) {
        all, last = RNN<hidden_size=2, direction="reverse", activations=["Relu"]>
          (x, w, r, , lengths) }"""
    model, path = onnx.parser.parse_model(text), tmp_path / "m.onnx"
    random = np.random.default_rng(2)
    w, r = (random.normal(size=(1, 2, n)).astype(np.float32) for n in (3, 2))
    for name, array in (("w", w), ("r", r)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    axes = {"x": "time,batch,feature", "last": "direction,batch,unit"}
    x, lengths = random.normal(size=(4, 3, 3)).astype(np.float32), np.int32([4, 2, 3])
    probes = [pg.GuidedBackprop(target=(0, 1)), pg.Deconvnet(target=(0, 1))]
    feed = {"x": x, "lengths": lengths}
    pg.compile(model, probes, path, inputs=axes, samples=feed)
    found = runtime.load(path).run(feed)
    for kind in ("guided_backprop", "deconvnet"):
        expected = np.zeros(x.shape)
        for i, length in enumerate(lengths):
            states = {length: np.zeros(2)}
            for t in reversed(range(length)):
                states[t] = np.maximum(w[0] @ x[t, i] + r[0] @ states[t + 1], 0)
            g = np.array([0.0, 1.0])
            for t in range(length):
                g = back(states[t] > 0, g, guided=kind == "guided_backprop")
                expected[t, i], g = g @ w[0], g @ r[0]
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found[f"{kind}/x"].array, expected, rtol=1e-4, atol=1e-5)


# -- what Keras runs ---------------------------------------------------------------------------


def bent(function, *, guided):
    """Returns an activation whose gradient is that of a method."""

    @tf.custom_gradient
    def called(v):
        with tf.GradientTape() as tape:
            tape.watch(v)
            y = function(v)
        slope = tape.gradient(y, v)
        return y, lambda g: tf.nn.relu(g) * (tf.nn.relu(slope) if guided else 1.0)

    return called


def cell_of(layer):
    return getattr(layer, "cell", layer)


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_layers_of_keras_are_as_their_own_cells_with_other_gradients(tmp_path, kind, steps):
    """Masked steps, one row all masked; loops and operators, both directions."""
    keras.utils.set_random_seed(8)
    more = {"bias_initializer": "normal"}
    rectified = {
        "gru": [layers.GRU(3, activation="swish", return_sequences=True, **more)],
        "lstm": [layers.LSTM(4, activation="elu", **more)],
        "rnn": [
            layers.SimpleRNN(n, activation="relu", go_backwards=n == 3, **more) for n in (2, 3)
        ],
    }[kind]
    series = keras.Input((steps, 2), name="series")
    masked = layers.Masking()(series)
    h = [layer(masked) for layer in rectified]
    y = layers.Concatenate()(h) if len(h) > 1 else h[0]
    y = layers.LSTM(3, **more)(y) if kind == "gru" else y  # keeps its gradient
    model, path = keras.Model(series, layers.Dense(3)(y)), tmp_path / "m.onnx"
    exported = pg.compile(model, METHODS, path)
    assert "numpy on the forward graph" in exported.report["deconvnet/series"].witness
    x = models.images((5, 2), count=3)
    x[0, 3:] = x[1] = 0
    found = runtime.load(path).run(x)
    activations = [cell_of(layer).activation for layer in rectified]
    for name in ("guided_backprop", "deconvnet"):
        for layer, own in zip(rectified, activations, strict=True):
            cell_of(layer).activation = bent(own, guided=name == "guided_backprop")
        watched = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            score = model(watched)[:, 1]
        expected = tape.gradient(score, watched).numpy()
        for layer, own in zip(rectified, activations, strict=True):
            cell_of(layer).activation = own
        assert np.abs(expected).max() > 1e-3
        assert np.all(expected[1] == 0)
        np.testing.assert_allclose(found[f"{name}/series"].array, expected, rtol=1e-4, atol=1e-6)
