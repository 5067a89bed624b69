"""What a Scan stacks is a copy where a convolution reads it as well, and nowhere else."""

import onnx_ir as ir
import onnxruntime

from probegen.graph.passes.after.copy_stacked_images import copy_stacked_images
from tests.engines import apart, in_onnxruntime
from tests.graph.passes.files import body_of, checked, prepared, rng

#: `seen` is read by a convolution and stacked; `s_out` is read by nothing; `s` is a state.
SCAN = """
agraph (float[t, b, 2, 7, 5] x, float[b, 3, 7, 5] s0)
  => (float[b, 3, 7, 5] last, float[t, b, 2, 7, 5] all, float[t, b, 3, 7, 5] sums)
{
  last, all, sums = Scan(s0, x) <num_scan_inputs = 1, body = step
    (float[b, 3, 7, 5] s, float[b, 2, 7, 5] now)
      => (float[b, 3, 7, 5] s_out, float[b, 2, 7, 5] seen, float[b, 3, 7, 5] sum)
  {
    seen = Relu(now)
    made = Conv <pads = [1, 1, 1, 1]> (seen, k)
    s_out = Add(made, s)
    sum = Tanh(s_out)
  }>
}
"""


def test_what_a_convolution_reads_is_stacked_through_a_copy(tmp_path):
    model = prepared(SCAN, tmp_path / "before.onnx", k=rng(3, 2, 3, 3))
    copy_stacked_images(model)
    body = body_of(model, "Scan")
    made_by = [output.producer() for output in body.outputs]
    assert [node.op_type for node in made_by] == ["Add", "Identity", "Tanh"]
    assert made_by[1].inputs[0].name == "seen"
    path = checked(model, tmp_path / "after.onnx")
    feeds = {"x": rng(4, 3, 2, 7, 5), "s0": rng(3, 3, 7, 5, seed=1)}
    expected = in_onnxruntime(tmp_path / "before.onnx", feeds)
    assert apart(in_onnxruntime(path, feeds), expected) == {"last": 0, "all": 0, "sums": 0}


def test_onnxruntime_keeps_the_copy(tmp_path):
    model = prepared(SCAN, tmp_path / "before.onnx", k=rng(3, 2, 3, 3))
    copy_stacked_images(model)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    path = checked(model, tmp_path / "after.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    optimised = ir.load(tmp_path / "optimised.onnx")
    made_by = [output.producer().op_type for output in body_of(optimised, "Scan").outputs]
    assert made_by == ["Add", "Identity", "Tanh"]
