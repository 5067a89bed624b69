"""Copies go where nothing needs them, and stay where an output of a subgraph is made twice."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from probegen.graph.passes.after.drop_identities import drop_identities

#: Cumulative sums over time: the carried sum is also what is collected.
SUMS = """
<ir_version: 8, opset_import: ["" : 18]>
sums (float[N, 3] start, float[5, N, 3] x) => (float[N, 3] last, float[5, N, 3] all)
{
    copied = Identity(x)
    last, all = Scan<num_scan_inputs=1, body=step (float[N, 3] sum, float[N, 3] now)
        => (float[N, 3] next, float[N, 3] kept)
        { next = Add(sum, now)
          kept = Identity(next) }>(start, copied)
}
"""


def identities(model):
    return [n.outputs[0].name for n in model.graph.all_nodes() if n.op_type == "Identity"]


def test_a_subgraph_keeps_the_copy_that_makes_its_second_output():
    model = ir.from_proto(onnx.parser.parse_model(SUMS))
    assert identities(model) == ["copied", "kept"]
    drop_identities(model)
    assert identities(model) == ["kept"]

    rng = np.random.default_rng(0)
    start, x = rng.normal(size=(2, 3)), rng.normal(size=(5, 2, 3))
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    last, collected = session.run(
        None, {"start": start.astype("float32"), "x": x.astype("float32")}
    )
    expected = start + x.cumsum(axis=0)
    np.testing.assert_allclose(collected, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, expected[-1], rtol=1e-5, atol=1e-6)


def test_an_output_that_is_only_a_copy_keeps_its_name():
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[N, 3] x) => (float[N, 3] y, float[N, 3] same)
    { a = Relu(x)
      y = Identity(a)
      same = Identity(x) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    drop_identities(model)
    assert [o.name for o in model.graph.outputs] == ["y", "same"]
    assert identities(model) == ["same"]
