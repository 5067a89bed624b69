"""Attributions by scores as a graph: where points are made, and what reads them."""

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from tests import models
from tests.methods.scoring import scans_in

#: `scores = relu(x turned) K + (x summed, by a branch that reads x as well) V`.
TEXT = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[n, 4, 3] x) => (float[n, 2] scores)
  <float[12, 2] k = {%s}, float[3, 2] v = {%s}, int64[2] flat = {0, -1}, int64[1] one = {1},
   bool yes = {1}>
  {
    turned = Transpose <perm = [0, 2, 1]> (x)
    kept = Relu(turned)
    row = Reshape(kept, flat)
    first = MatMul(row, k)
    %s
    scores = Add(first, more)
  }"""
BRANCH = """more = If (yes) <
      then_branch = a () => (float[n, 2] taken) { s = ReduceSum <keepdims = 0> (x, one)
        taken = MatMul(s, v) },
      else_branch = b () => (float[n, 2] other) { t = ReduceMax <keepdims = 0> (x, one)
        other = MatMul(t, v) }
    >"""
NONE = "part = Slice(k, zero, two) more = ReduceSum <keepdims = 1> (part, zero)"
K = ((np.arange(24).reshape(12, 2) * 5 % 7 - 3) / 3).astype(np.float32)
V = ((np.arange(6).reshape(3, 2) * 5 % 7 - 3) / 2).astype(np.float32)


def scores_of(x, branch):
    x = np.asarray(x, np.float64)
    found = np.maximum(x.transpose(0, 2, 1), 0).reshape(len(x), -1) @ K
    return found + (x.sum(1) @ V if branch else K[:2].sum(0))


@pytest.mark.parametrize("target", [0, "all"])
@pytest.mark.parametrize("branch", [False, True])
def test_a_tensor_that_is_turned_and_one_that_is_read_elsewhere_too(tmp_path, branch, target):
    text = TEXT % (
        ", ".join(map(str, K.reshape(-1))),
        ", ".join(map(str, V.reshape(-1))),
        BRANCH if branch else NONE,
    )
    if not branch:
        text = text.replace("bool yes = {1}", "int64[1] zero = {0}, int64[1] two = {2}")
    model = onnx.parser.parse_model(text)
    pg.compile(model, pg.FeatureAblation(target=target), tmp_path / "m.onnx", gate=False)
    x = models.images((4, 3), count=3)
    found = runtime.load(tmp_path / "m.onnx").run(x)["feature_ablation/x"].array
    hidden = [np.where(np.arange(4)[:, None] == i, 0, x) for i in range(4)]
    taken = np.stack([scores_of(x, branch) - scores_of(h, branch) for h in hidden], -1)
    expected = taken if target == "all" else taken[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if not branch:  # points are made as the model reads them, and not turned one by one
        assert "Transpose" not in scans_in(tmp_path / "m.onnx")


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 3, 2, 1), (0, 2, 1, 3), (1, 0, 2, 3)])
def test_axes_that_the_model_turns_first(tmp_path, order):
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 4, 3, 2] x) => (float[n, 2] scores)
      <float[24, 2] k = {%s}, int64[2] flat = {0, -1}>
      { turned = Transpose <perm = %s> (x) bent = Tanh(turned) %s
        row = Reshape(back, flat) scores = MatMul(row, k) }"""
    back = "back = Identity(bent)"
    if order[0]:
        back = "back = Transpose <perm = [1, 0, 2, 3]> (bent)"
    weights = ((np.arange(48).reshape(24, 2) * 5 % 11 - 5) / 4).astype(np.float32)
    model = onnx.parser.parse_model(
        text % (", ".join(map(str, weights.reshape(-1))), list(order), back)
    )
    background = models.images((4, 3, 2), seed=5, count=2)
    probes = [
        pg.Occlusion((2, 1), target=1),
        pg.KernelSHAP(np.arange(12).reshape(4, 3) // 5, background, target=1),
        pg.RISE(15, (3, 2), target=1),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    x = models.images((4, 3, 2), count=3)
    found = runtime.load(tmp_path / "m.onnx").run(x)

    def score(v):
        turned = np.tanh(v.astype(np.float64).transpose(order))
        return (turned.transpose(1, 0, 2, 3) if order[0] else turned).reshape(3, -1) @ weights[:, 1]

    expected = np.zeros((3, 4, 3))
    for i in (0, 2):
        for j in range(3):
            hidden = x.copy()
            hidden[:, i : i + 2, j] = 0
            expected[:, i : i + 2, j] = (score(x) - score(hidden))[:, None]
    np.testing.assert_allclose(found["occlusion/x"].array, expected, rtol=1e-4, atol=1e-5)
    shapley = found["kernel_shap/x"].array
    firsts = shapley[:, [0, 1, 3], [0, 2, 1]].sum(1)
    empty = np.mean([score(np.broadcast_to(b, x.shape)) for b in background], 0)
    np.testing.assert_allclose(firsts, score(x) - empty, rtol=1e-4, atol=1e-4)
    pg.compile(model, probes, tmp_path / "verified.onnx")
