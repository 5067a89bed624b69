"""Convolutions in bodies: the numbers stay, and onnxruntime runs them in its blocked layout."""

import onnx
import onnxruntime
import pytest

from probegen.graph.passes.after.own_weights_in_loops import own_weights_in_loops
from tests.engines import apart, in_onnxruntime, in_openvino
from tests.graph.passes.files import body_of, checked, prepared, rng

#: Two convolutions a step, which share a bias; the second's kernel is read by a Mul as well.
SCAN = """
agraph (float[t, b, 16, 7, 5] x, float[b, 16, 7, 5] s0) => (float[b, 16, 7, 5] last)
{
  last = Scan(s0, x) <num_scan_inputs = 1, body = step
    (float[b, 16, 7, 5] s, float[b, 16, 7, 5] now) => (float[b, 16, 7, 5] s_out)
  {
    one = Conv <pads = [1, 1, 1, 1]> (now, k1, bias)
    kept = Relu(one)
    two = Conv <pads = [1, 1, 1, 1]> (kept, k2, bias)
    small = Mul(k2, tenth)
    three = Conv <pads = [1, 1, 1, 1]> (two, small)
    s_out = Add(three, s)
  }>
}
"""
WEIGHTS = {
    "k1": rng(16, 16, 3, 3) / 5,
    "k2": rng(16, 16, 3, 3, seed=1) / 5,
    "bias": rng(16, seed=2),
    "tenth": rng(1, seed=3),
}


@pytest.mark.parametrize("batch", [1, 3])
def test_stored_weights_are_read_through_a_reshape(tmp_path, batch):
    model = prepared(SCAN, tmp_path / "before.onnx", **WEIGHTS)
    own_weights_in_loops(model)
    body = body_of(model, "Scan")
    assert [n.op_type for n in body].count("Reshape") == 3  # k1, bias, k2; once each
    assert len({v for n in body if n.op_type == "Reshape" for v in n.inputs[:1]}) == 3
    after = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(4, batch, 16, 7, 5, seed=4), "s0": rng(batch, 16, 7, 5, seed=5)}
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    assert max(apart(in_onnxruntime(after, feeds), expected).values()) < 1e-5
    assert max(apart(in_openvino(after, feeds), expected).values()) < 1e-5


def test_a_session_then_prepares_them(tmp_path):
    model = prepared(SCAN, tmp_path / "before.onnx", **WEIGHTS)
    own_weights_in_loops(model)
    checked(model, tmp_path / "after.onnx")

    def blocked(name):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(tmp_path / f"optimised_{name}")
        onnxruntime.InferenceSession(
            str(tmp_path / name), options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load(tmp_path / f"optimised_{name}").graph
        scan = next(n for n in graph.node if n.op_type == "Scan")
        body = next(a.g for a in scan.attribute if a.name == "body")
        return sum(n.domain == "com.microsoft.nchwc" and n.op_type == "Conv" for n in body.node)

    assert blocked("after.onnx") >= 2
    assert blocked("before.onnx") == 1  # the one whose weight is made in the body


def test_what_is_no_convolution_of_a_loop_stays(tmp_path):
    text = """agraph (float[b, 4, 7] x) => (float[b, 5, 5] y) { y = Conv(x, k) }"""
    model = prepared(text, tmp_path / "m.onnx", k=rng(5, 4, 3))
    own_weights_in_loops(model)
    assert [n.op_type for n in model.graph] == ["Conv"]
