"""Shapes that onnx's own inference does not find."""

import numpy as np
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.core.values import shape_of
from probegen.graph.shape_inference import infer_shapes
from tests.sources.onnx.support import add_weights, parse

SPECTRUM = """g (float[batch, time%s] x) => (float[batch] y) {
  s = STFT(x, every, window)  p = Mul(s, s)  y = ReduceSum <keepdims = 0> (p, axes) }"""


def spectral(last=""):
    """The energy of the frames of a signal of any length, as PyTorch writes spectrograms."""
    window = np.array([0.5, 1.0, 1.5, 0.25], np.float32)
    constants = {"every": np.array(3), "axes": np.array([1, 2, 3]), "window": window}
    return add_weights(parse(SPECTRUM % last), **constants)


@pytest.mark.parametrize("last", ["", ", 1"])
def test_the_spectrum_of_a_signal_of_open_length(last):
    model = ir.from_proto(spectral(last))
    infer_shapes(model)
    shapes = {v.name: shape_of(v) for node in model.graph for v in node.outputs}
    assert shapes["s"] == ("batch", None, 3, 2)
    assert len(shapes["p"]) == 4


def test_its_gradient_at_two_lengths(tmp_path):
    pg.compile(spectral(), pg.InputGradient(), tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    window = np.array([0.5, 1.0, 1.5, 0.25])
    for length in (4, 11):
        x = np.random.default_rng(length).normal(size=(2, length))

        def energy(x):
            frames = [x[:, i : i + 4] * window for i in range(0, x.shape[1] - 3, 3)]
            return sum((np.abs(np.fft.rfft(f)) ** 2).sum(1) for f in frames)

        steps = 1e-4 * np.eye(length)
        slopes = [(energy(x + step) - energy(x - step)) / 2e-4 for step in steps]
        found = artefact.run(x.astype(np.float32))["input_gradient/x"].array
        np.testing.assert_allclose(found, np.stack(slopes, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["GroupNormalization <num_groups = 3>", "MeanVariance"])
def test_normalisations_that_are_functions_keep_sizes_of_an_open_batch(operator):
    """What follows them is known too."""
    made = f"{operator} (x, s, s)" if "Group" in operator else f"{operator}Normalization (x)"
    text = f"""net (double[batch, 3, 5, 4] x) => (double[batch, n] y)
      <double[3] s = {{1, 2, 0.5}}> {{
        a = {made}  c = Concat <axis = 3> (a, x)  y = Flatten (c) }}"""
    model = ir.from_proto(parse(text, 21))
    infer_shapes(model)
    shapes = {v.name: (v.dtype, shape_of(v)) for node in model.graph for v in node.outputs}
    assert shapes["a"] == (ir.DataType.DOUBLE, ("batch", 3, 5, 4))
    assert shapes["y"][1] == ("batch", 120)


def test_normalisations_that_are_functions_one_behind_the_other():
    """As of a network by PyTorch's exporter: each stands behind another."""
    text = """net (float[batch, 3, 5, 4] x) => (float[batch, n] y) <float[3] s = {1, 2, 0.5}> {
        a = GroupNormalization <num_groups = 3> (x, s, s)  b = Relu (a)
        c = GroupNormalization <num_groups = 1> (b, s, s)  d = MeanVarianceNormalization (c)
        y = Flatten (d) }"""
    model = ir.from_proto(parse(text, 21))
    infer_shapes(model)
    shapes = [shape_of(node.outputs[0]) for node in model.graph]
    assert shapes == [("batch", 3, 5, 4)] * 4 + [("batch", 60)]
    kinds = [node.op_type for node in model.graph]
    assert kinds[::2] == ["GroupNormalization", "GroupNormalization", "Flatten"]


def test_normalisations_that_are_functions_behind_a_loop():
    """What a loop gives has a shape once its states have one."""
    text = """net (float[batch, 3, 5] x) => (float[batch, n] y)
      <float[3] s = {1, 2, 0.5}, int64 count = {3}, bool true = {1}> {
        a = Loop (count, true, x) <body = body (int64 i, bool go, float[batch, 3, 5] before)
            => (bool more, float[batch, 3, 5] after) {
              after = Tanh (before)  more = Identity (go) }>
        b = GroupNormalization <num_groups = 3> (a, s, s)  y = Flatten (b) }"""
    model = ir.from_proto(parse(text, 21))
    infer_shapes(model)
    assert shape_of(model.graph.outputs[0]) == ("batch", 15)
