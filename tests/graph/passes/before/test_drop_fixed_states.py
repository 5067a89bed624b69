"""States that no step of a Loop changes: the numbers stay, and OpenVINO reads the result."""

import numpy as np
import onnx
import pytest

from probegen.graph.passes.before.drop_fixed_states import drop_fixed_states
from tests.engines import apart, in_onnxruntime, in_openvino
from tests.graph.passes.files import body_of, checked, prepared, rng

#: A Loop as tf2onnx writes them: two states that no step changes, one of them by way of a copy.
LOOP = """
agraph (float[t, b, 3] x) => (float[b, 5] last, float[n, b, 5] all, float[3, 5] kept)
<int64 steps = {4}, bool go = {1}, int64[1] one = {1}, int64[1] zero_axis = {0}, float zero = {0}>
{
  first = Gather<axis=0>(x, zero_index)
  y0 = MatMul(first, w)
  s0 = Mul(y0, zero)
  k0 = ReduceMean<keepdims=0>(y0)
  last, same, k, all = Loop(steps, go, s0, w, k0) <body = step
    (int64 i, bool on, float[b, 5] s, float[3, 5] inside, float kept)
    => (bool on_out, float[b, 5] s_out, float[3, 5] inside, float kept_out, float[b, 5] each)
  {
    on_out = Identity(on)
    kept_out = Identity(kept)
    now = Gather<axis=0>(x, i)
    product = MatMul(now, inside)
    sum = Add(product, s)
    shifted = Add(sum, kept)
    s_out = Tanh(shifted)
    each = Neg(s_out)
  }>
  kept = Neg(same)
}
"""


def test_a_loop_reads_what_no_step_changes_from_outside(tmp_path):
    weights = {"w": rng(3, 5), "zero_index": np.array(0)}
    model = prepared(LOOP, tmp_path / "before.onnx", **weights)
    drop_fixed_states(model)
    assert [v.name for v in body_of(model, "Loop").inputs] == ["i", "on", "s"]
    after = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(4, 2, 3, seed=1)}
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    assert apart(in_onnxruntime(after, feeds), expected) == dict.fromkeys(expected, 0.0)
    for from_memory in (False, True):
        found = in_openvino(after, feeds, from_memory=from_memory)
        assert max(apart(found, expected).values()) < 1e-6


#: Where fixed states end up: outputs of the graph, of a branch, and of a body around.
ENDS = {
    "outputs of the graph, one of them twice": """
    agraph (float[b, 3] x, int64 n) => (float[b, 3] y, float[b, 3] z, float[b, 3] x2)
    <bool go = {1}>
    { y, x2 = Loop(n, go, x, x) <body = step
        (int64 i, bool on, float[b, 3] s, float[b, 3] w)
        => (bool on2, float[b, 3] s2, float[b, 3] w2)
      { on2 = Identity(on) s2 = Add(s, w) w2 = Identity(w) }>
      z = Neg(x2) }
    """,
    "nothing changes at all": """
    agraph (float[b, 3] x, int64 n) => (float[b, 3] y)
    <bool go = {1}>
    { same = Loop(n, go, x) <body = step (int64 i, bool on, float[b, 3] w)
        => (bool on2, float[b, 3] w2) { on2 = Identity(on) w2 = Identity(w) }>
      y = Neg(same) }
    """,
    "an output of a branch": """
    agraph (float[b, 3] x, int64 n) => (float[b, 3] y)
    <bool go = {1}>
    { one = Constant<value_int = 1>()
      many = Less(one, n)
      y = If (many) <
        then_branch = yes () => (float[b, 3] kept) {
          last, kept = Loop(n, go, x, x) <body = step
            (int64 i, bool on, float[b, 3] s, float[b, 3] w)
            => (bool on2, float[b, 3] s2, float[b, 3] w2)
          { on2 = Identity(on) s2 = Add(s, w) w2 = Identity(w) }> },
        else_branch = no () => (float[b, 3] e) { e = Neg(x) } > }
    """,
}


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("name", ENDS)
def test_what_fixed_states_end_as(tmp_path, name, count):
    model = prepared(ENDS[name], tmp_path / "before.onnx")
    drop_fixed_states(model)
    after = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(2, 3), "n": np.array(count)}
    names = [o.name for o in onnx.load(tmp_path / "before.onnx").graph.output]
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    found = in_onnxruntime(after, feeds)
    for old, new in zip(names, found, strict=True):
        np.testing.assert_array_equal(found[new], expected[old])
    loops = [n for n in model.graph.all_nodes() if n.op_type == "Loop"]
    assert all(len(n.inputs) == 3 for n in loops)


def test_states_that_change_stay(tmp_path):
    text = """agraph (float[b, 3] x, float[b, 3] z, int64 n) => (float[b, 3] y, float[b, 3] w)
    <bool go = {1}>
    { y, w = Loop(n, go, x, z) <body = step (int64 i, bool on, float[b, 3] s, float[b, 3] t)
        => (bool on2, float[b, 3] s2, float[b, 3] t2)
      { on2 = Identity(on) s2 = Identity(t) t2 = Identity(s) }> }"""
    model = prepared(text, tmp_path / "before.onnx")
    drop_fixed_states(model)
    assert [v.name for v in body_of(model, "Loop").inputs] == ["i", "on", "s", "t"]
