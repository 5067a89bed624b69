"""Relevance and multipliers through loops of any length, against each step by numpy."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import UnsupportedOpsError
from tests import models

#: `s <- relu(x[t] w + s r)` from the mean of x on, and the sum over all steps.
TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  net (float[n, time, 3] x) => (float[n, 2] y) {
    steps = Transpose <perm = [1, 0, 2]> (x)
    mean = ReduceMean <axes = [1], keepdims = 0> (x)
    start = MatMul (mean, v)
    last, all = Scan <num_scan_inputs = 1, body = step (float[n, 2] s, float[n, 3] t)
      => (float[n, 2] u, float[n, 2] h) {
        a = MatMul (t, w)
        b = MatMul (s, r)
        z = Add (a, b)
        u = Relu (z)
        h = Identity (u)
      }> (start, steps)
    y = ReduceSum <keepdims = 0> (all, axis)
  }"""
BRANCH = """top = ReduceMax <keepdims = 0> (z)
        low = Constant <value = float {0.0}> ()
        on = Greater (top, low)
        u = If (on) <
          then_branch = one () => (float[n, 2] p) { p = Relu (z) },
          else_branch = other () => (float[n, 2] q) { q = Identity (z) }
        >"""
EPSILON = 1e-3
rng = np.random.default_rng(4)
WEIGHTS = {n: rng.normal(size=(k, 2)) for n, k in (("v", 3), ("w", 3), ("r", 2))}


def parsed(text):
    model = onnx.parser.parse_model(text)
    for name, array in (WEIGHTS | {"axis": np.array([0])}).items():
        kind = np.int64 if name == "axis" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    return model


def away(z):
    return z + np.where(z >= 0, EPSILON, -EPSILON)


def linear(x, w, relevance, *, flat=False):
    """The relevance of x before a product, by shares of x w, or the same of each input."""
    if flat:
        return (
            np.ones_like(x) * (relevance / away(np.full(relevance.shape, len(w)))).sum(-1)[:, None]
        )
    return x * (relevance / away(x @ w) @ w.T)


def forward(x):
    """The states, and of each step what is added."""
    v, w, r = (WEIGHTS[n] for n in "vwr")
    states, sums = [x.mean(1) @ v], []
    for t in range(x.shape[1]):
        sums.append((x[:, t] @ w, states[-1] @ r))
        states.append(np.maximum(sum(sums[-1]), 0))
    return states, sums


def multiplied(x, baseline):
    """Class 1 from a baseline: multipliers by the rescale rule, times differences."""
    count, (v, w, r) = x.shape[1], (WEIGHTS[n] for n in "vwr")
    (states, sums), (states_there, sums_there) = forward(x), forward(np.full_like(x, baseline))
    found, later = np.zeros_like(x), 0.0
    for t in reversed(range(count)):
        change = states[t + 1] - states_there[t + 1]
        m = (later + np.array([0, 1])) * change / (sum(sums[t]) - sum(sums_there[t]))
        found[:, t], later = m @ w.T, m @ r.T
    return (found + (later @ v.T / count)[:, None]) * (x - baseline)


def by_steps(x, *, flat):
    """The relevance of class 1."""
    count, (v, w, r) = x.shape[1], (WEIGHTS[n] for n in "vwr")
    states, sums = forward(x)
    y = sum(states[1:]) * np.array([0, 1])
    found, later = np.zeros_like(x), 0.0
    for t in reversed(range(count)):
        arrived = later + states[t + 1] * y / away(sum(states[1:]))
        ratio = arrived / away(sum(sums[t]))
        found[:, t] = linear(x[:, t], w, sums[t][0] * ratio, flat=flat)
        later = linear(states[t], r, sums[t][1] * ratio)
    mean = linear(x.mean(1), v, later, flat=flat)
    return found + x / count * (mean / away(x.mean(1)))[:, None]


@pytest.mark.parametrize("flat", [False, True])
def test_each_step_by_its_rules(tmp_path, flat):
    """The products with x are the first layers, that with the state is not."""
    model, path = parsed(TEXT), tmp_path / "m.onnx"
    probe = pg.LRP(target=1, epsilon=EPSILON, composite="epsilon_plus_flat" if flat else None)
    exported = pg.compile(model, [probe, pg.DeepLIFT(0.3, target=1, completeness=True)], path)
    for name in ("lrp/x", "deep_lift/x"):
        assert "numpy on the forward graph" in exported.report[name].witness
    for shape in ((1, 4, 3), (3, 7, 3)):
        x = np.random.default_rng(shape[0]).normal(size=shape).astype(np.float32)
        wide, found = x.astype(np.float64), runtime.load(path).run(x)
        for name, expected in (
            ("lrp", by_steps(wide, flat=flat)),
            ("deep_lift", multiplied(wide, 0.3)),
        ):
            near = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(found[f"{name}/x"].array, expected, rtol=1e-3, atol=near)
        assert np.abs(found["completeness/deep_lift/x"].array).max() < 1e-4


def test_an_open_length_is_as_steps_one_by_one(tmp_path):
    """In this cell no bias is added to the state before a product, which would count in step 0."""
    found, x = [], models.images((4, 2), count=3)
    x[0, -1] = x[1, 1] = x[2] = 0
    for steps in (4, None):
        keras.utils.set_random_seed(8)
        series, path = keras.Input((steps, 2), name="series"), tmp_path / f"{steps}.onnx"
        cell = layers.GRU(3, activation="swish", bias_initializer="normal", reset_after=False)
        y = layers.Dense(2, name="scores")(cell(layers.Masking()(series)))
        pg.compile(keras.Model(series, y), [pg.LRP(target=1), pg.DeepLIFT(0.0, target=1)], path)
        found.append(runtime.load(path).run(x))
    for name in ("lrp/series", "deep_lift/series"):
        fixed, anyhow = (one[name].array for one in found)
        np.testing.assert_allclose(anyhow, fixed, rtol=1e-4, atol=1e-6)
        assert np.abs(fixed[:2]).max() > 1e-3
        assert np.all(fixed[2] == 0)


def test_a_convolutional_cell_whatever_else_is_asked_for(tmp_path):
    """Its gates share a kernel, which each step took apart: there was no rule for what came out."""
    found, x = [], models.images((3, 4, 2), count=2)
    for steps, more in ((3, []), (None, [pg.States()])):
        keras.utils.set_random_seed(8)
        series, path = keras.Input((steps, 4, 2), name="series"), tmp_path / f"{steps}.onnx"
        cell = layers.ConvLSTM1D(2, 2, bias_initializer="normal")
        y = layers.Dense(2, name="scores")(layers.Flatten()(cell(series)))
        pg.compile(keras.Model(series, y), [pg.LRP(target=1), *more], path, verify=bool(more))
        found.append(runtime.load(path).run(x)["lrp/series"].array)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert np.abs(found[0]).max() > 1e-3


@pytest.mark.parametrize("probe", [pg.DeepLIFT(target=1), pg.LRP(target=1)])
def test_branches_are_refused(tmp_path, probe):
    text = TEXT.replace("u = Relu (z)", BRANCH).replace("h = Identity (u)", "h = Neg (u)")
    with pytest.raises(UnsupportedOpsError, match="  If: "):
        pg.compile(parsed(text), probe, tmp_path / "m.onnx")
