"""What loops collect and nobody reads is taken out, and the rest is computed as before."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from probegen.graph.loops.unread_outputs import drop_unread_outputs
from tests.sources.onnx.support import run

SCAN = """<ir_version: 8, opset_import: ["" : 18]> s (float[N, T, 3] x, float[N, 3] h)
  => (float[N, 3] last, float[N, T, 3] third) {
  last, first, second, third = Scan <num_scan_inputs = 1, scan_input_axes = [1],
    scan_output_axes = [0, 0, 1], scan_output_directions = [0, 1, 1], body = step (float[N, 3] a,
    float[N, 3] e) => (float[N, 3] b, float[N, 3] c, float[N, 3] d, float[N, 3] f) {
    b = Add (a, e)
    c = Exp (b)
    d = Neg (c)
    f = Tanh (b) }> (h, x) }"""
LOOP = """<ir_version: 8, opset_import: ["" : 18]> l (float[N, 3] h, int64 times)
  => (float[N, 3] last) {
  go = Constant <value = bool {1}> ()
  last, first = Loop (times, go, h) <body = step (int64 i, bool on, float[N, 3] a)
    => (bool on_next, float[N, 3] b, float[N, 3] c) {
    on_next = Identity (on)
    b = Tanh (a)
    c = Exp (b) }> }"""


@pytest.mark.parametrize(("text", "left"), [(SCAN, ["Add", "Tanh"]), (LOOP, ["Identity", "Tanh"])])
def test_unread_scan_outputs_go_with_what_computes_them(text, left):
    model = ir.from_proto(onnx.parser.parse_model(text))
    rng = np.random.default_rng(0)
    feed = {"h": rng.normal(size=(2, 3)).astype("float32"), "times": np.array(3)}
    feed["x"] = rng.normal(size=(2, 4, 3)).astype("float32")
    before = run(model, feed)
    drop_unread_outputs(model.graph)
    (loop,) = (n for n in model.graph if n.op_type in ("Scan", "Loop"))
    assert [n.op_type for n in loop.attributes["body"].as_graph()] == left
    assert len(loop.outputs) == len(model.graph.outputs)
    for name, array in run(model, feed).items():
        np.testing.assert_array_equal(array, before[name])
