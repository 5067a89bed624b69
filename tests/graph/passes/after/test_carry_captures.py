"""What bodies of Scans read from outside: the numbers stay, and OpenVINO reads the result."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.passes.after.carry_captures import carry_captures
from tests.engines import apart, in_onnxruntime, in_openvino
from tests.graph.passes.files import HEADER, body_of, checked, prepared, rng

#: A Scan that reads a stored weight, what is computed from it, and two values of the request.
SCAN = """
agraph (float[t, b, 3] x, float[b, 5] s0) => (float[b, 5] last, float[t, b, 5] all)
<int64[1] axes = {0}>
{
  mean = ReduceMean<keepdims=0>(x, axes)
  shift = MatMul(mean, w)
  turned = Transpose<perm=[1, 0]>(w)
  bent = Tanh(turned)
  last, all = Scan(s0, x) <num_scan_inputs = 1, scan_output_directions = [1],
    scan_input_directions = [1], body = step
    (float[b, 5] s, float[b, 3] now) => (float[b, 5] s_out, float[b, 5] each)
  {
    product = MatMul(now, w)
    sum = Add(product, s)
    shifted = Add(sum, shift)
    s_out = Tanh(shifted)
    again = MatMul(s_out, bent)
    all_of_it = Add(again, now)
    more = MatMul(all_of_it, w)
    each = Mul(more, s0)
  }>
}
"""
#: A Scan within a Loop within a branch: what it reads is of the Loop's body, the branch, the graph.
NESTED = """
agraph (float[t, b, 3] x, bool on) => (float[b, 3] y)
<int64 steps = {2}, bool go = {1}, int64[1] axes = {0}>
{
  mean = ReduceMean<keepdims=0>(x, axes)
  y = If (on) <
    then_branch = yes () => (float[b, 3] taken) {
      wide = Exp(mean)
      taken = Loop(steps, go, mean) <body = outer
        (int64 i, bool go_in, float[b, 3] s) => (bool go_out, float[b, 3] s_out)
      {
        go_out = Identity(go_in)
        half = Tanh(s)
        s_out = Scan(half, x) <num_scan_inputs = 1, body = inner
          (float[b, 3] r, float[b, 3] now) => (float[b, 3] r_out)
        {
          a = Mul(now, wide)
          c = Add(a, r)
          d = Mul(c, half)
          e = Sub(d, mean)
          f = MatMul(e, q)
          r_out = Tanh(f)
        }>
      }>
    },
    else_branch = no () => (float[b, 3] other) { other = Neg(mean) }
  >
}
"""


@pytest.mark.parametrize("batch", [1, 3])
def test_a_scan_carries_what_it_reads_from_outside(tmp_path, batch):
    model = prepared(SCAN, tmp_path / "before.onnx", w=rng(3, 5))
    carry_captures(model)
    body = body_of(model, "Scan")
    # `shift` and `s0` are carried, `bent` is computed inside, `w` is read from outside.
    assert len(body.inputs) == 2 + 2
    assert all(v.shape is not None for v in body.inputs)
    assert [n.op_type for n in body][:2] == ["Transpose", "Tanh"]
    assert [n.op_type for n in body][-2:] == ["Identity", "Identity"]
    after = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(4, batch, 3, seed=1), "s0": rng(batch, 5, seed=2)}
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    assert max(apart(in_onnxruntime(after, feeds), expected).values()) < 1e-6
    for from_memory in (False, True):
        found = in_openvino(after, feeds, from_memory=from_memory)
        assert max(apart(found, expected).values()) < 1e-6


@pytest.mark.parametrize("on", [True, False])
def test_scans_within_loops_and_branches(tmp_path, on):
    model = prepared(NESTED, tmp_path / "before.onnx", q=rng(3, 3))
    carry_captures(model)
    body = body_of(model, "Scan")
    assert len(body.inputs) == 2 + 3  # wide, half and mean
    after = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(4, 2, 3, seed=1), "on": np.array(on)}
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    assert max(apart(in_onnxruntime(after, feeds), expected).values()) < 1e-6
    for from_memory in (False, True):
        found = in_openvino(after, feeds, from_memory=from_memory)
        assert max(apart(found, expected).values()) < 1e-6


def test_a_deep_graph_before_a_scan_is_read_without_recursion():
    depth = 3000
    chain = " ".join(f"h{i + 1} = Tanh(h{i})" for i in range(depth))
    text = f"""agraph (float[t, b, 3] x, float[b, 3] h0) => (float[t, b, 3] all)
    {{ {chain} all = Scan(x) <num_scan_inputs = 1, body = step
        (float[b, 3] now) => (float[b, 3] out) {{ out = Add(now, h{depth}) }}> }}"""
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    carry_captures(model)
    assert [v.name for v in body_of(model, "Scan").inputs][1:] == ["now"]


def test_draws_from_stored_values_are_not_repeated_in_the_body():
    text = """agraph (float[t, b, 3] x) => (float[t, b, 3] all)
    <float[3] odds = {0.5, 0.2, 0.7}>
    { drawn = Bernoulli(odds) all = Scan(x) <num_scan_inputs = 1, body = step
        (float[b, 3] now) => (float[b, 3] out) { out = Add(now, drawn) }> }"""
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    carry_captures(model)
    body = body_of(model, "Scan")
    assert len(body.inputs) == 2
    assert "Bernoulli" not in [n.op_type for n in body]
