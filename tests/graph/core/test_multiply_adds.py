"""Multiplications that nodes sum up, also where sizes are open or not known."""

import onnx
import onnx_ir as ir

from probegen.graph.core.multiply_adds import multiply_adds

TEXT = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[n, 6, 9, 7] x, float[n, 5] rows, float[t, n, 3] series, float[5] unknown)
    => (float[n, 4, h, w] image, float[n, 2] scores, float[t, 1, n, 4] states, float[n, 2] other)
  <float[4, 3, 3, 2] k, float[5, 2] m, float[1, 16, 3] w1, float[1, 16, 4] r1> {
    image = Conv <group = 2> (x, k)
    scores = MatMul(rows, m)
    states = LSTM <hidden_size = 4> (series, w1, r1)
    bent = Relu(unknown) other = MatMul(bent, m)
  }"""


def test_open_sizes_count_as_one_and_unknown_ranks_as_nothing():
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT))
    nodes = {node.outputs[0].name: node for node in ir.from_proto(proto).graph}
    nodes["other"].inputs[0].shape = None
    assert multiply_adds(nodes["image"]) == (4 * 7 * 6) * (3 * 3 * 2)
    assert multiply_adds(nodes["scores"]) == 2 * 5
    assert multiply_adds(nodes["states"]) == 16 * 3 + 16 * 4
    assert multiply_adds(nodes["bent"]) == 0
    assert multiply_adds(nodes["other"]) == 0
