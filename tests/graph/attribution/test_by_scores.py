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
