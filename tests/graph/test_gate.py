"""The gate: what only explanations need runs only when it is asked for."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from probegen.graph.gate import add_gate

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[batch, 3] x) => (float[batch, 2] y, float[batch, 3] e, float[batch, 3] h)
<float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{
    h = Relu(x)
    y = MatMul(h, w)
    wt = Transpose<perm=[1, 0]>(w)
    g = MatMul(y, wt)
    e = Mul(g, h)
}
"""


def gated():
    model = ir.from_onnx_text(TEXT)
    graph = model.graph
    y, e, h = graph.outputs
    graph.outputs[:] = [y]
    # `h` comes out twice: once from outside the branch, once more as its own output.
    explained = add_gate(graph, [e, h, e])
    graph.outputs.extend(explained)
    for value, name in zip(graph.outputs, ["y", "e_out", "h_out", "e_again"], strict=True):
        value.name = name
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return model, ort.InferenceSession(proto.SerializeToString())


def test_the_branch_holds_exactly_what_explanations_need():
    model, _ = gated()
    assert [n.op_type for n in model.graph] == ["Relu", "MatMul", "Transpose", "If"]
    branch = model.graph[-1].attributes["then_branch"].as_graph()
    assert [n.op_type for n in branch] == ["MatMul", "Mul", "Identity", "Identity"]
    assert not list(branch.initializers)


def test_on_by_default_and_off_on_request():
    _, session = gated()
    x = np.array([[1, -2, 3], [0.5, 0.25, -1]], dtype=np.float32)
    w = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    h = np.maximum(x, 0)
    y = h @ w
    e = (y @ w.T) * h
    on = session.run(None, {"x": x})
    for got, expected in zip(on, (y, e, h, e), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    off = session.run(None, {"x": x, "explain": np.array(False)})
    np.testing.assert_allclose(off[0], y, rtol=1e-6)
    assert [o.shape for o in off[1:]] == [(0, 3)] * 3
    assert [i.name for i in session.get_overridable_initializers()] == ["explain"]
