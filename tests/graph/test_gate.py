"""The gate: what only explanations need runs only when it is asked for."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

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


def gated(**form):
    model = ir.from_onnx_text(TEXT)
    graph = model.graph
    y, e, h = graph.outputs
    # `e` comes out twice: a branch has to make each of its outputs itself.
    graph.outputs.extend(add_gate(graph, 18, [y], [e, h, e], **form))
    for value, name in zip(graph.outputs, ["y", "e_out", "h_out", "e_again"], strict=True):
        value.name = name
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return model, ort.InferenceSession(proto.SerializeToString())


def test_each_branch_holds_exactly_its_computation():
    model, _ = gated()
    assert [n.op_type for n in model.graph] == ["If"]
    explain = model.graph[0].attributes["then_branch"].as_graph()
    assert [n.op_type for n in explain] == [
        "Relu",
        "MatMul",
        "Transpose",
        "MatMul",
        "Mul",
        "Identity",
    ]
    plain = model.graph[0].attributes["else_branch"].as_graph()
    assert [n.op_type for n in plain] == ["Relu", "MatMul", *["ConstantOfShape"] * 3]
    assert not explain.initializers
    assert not plain.initializers


def test_weights_of_convolutions_are_folded_into_the_branches():
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    agraph (float[b, 1, 4, 5] x) => (float[b, 1, 4, 5] y, float[b, 1, 4, 5] e)
    <float[1, 1, 1, 1] w = {3.0}, float[1] c = {0.5}>
    {
        y = Conv(x, w, c)
        e = Conv(y, w)
    }
    """
    model = ir.from_onnx_text(text)
    y, e = model.graph.outputs
    model.graph.outputs.extend(add_gate(model.graph, 18, [y], [e]))
    for value, name in zip(model.graph.outputs, ["y_out", "e_out"], strict=True):
        value.name = name
    explain = model.graph[0].attributes["then_branch"].as_graph()
    assert [n.op_type for n in explain] == ["Reshape", "Reshape", "Conv", "Conv"]
    assert set(model.graph.initializers) >= {"w", "c"}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    got = session.run(None, {"x": x, "explain": np.array(True)})
    np.testing.assert_allclose(got[0], 3 * x + 0.5)
    np.testing.assert_allclose(got[1], 3 * (3 * x + 0.5))
    off = session.run(None, {"x": x, "explain": np.array(False)})
    np.testing.assert_allclose(off[0], 3 * x + 0.5)


@pytest.mark.parametrize("form", ["required", "optional"])
def test_on_and_off(form):
    _, session = gated(gate=form)
    x = np.array([[1, -2, 3], [0.5, 0.25, -1]], dtype=np.float32)
    w = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    h = np.maximum(x, 0)
    y = h @ w
    e = (y @ w.T) * h
    on = session.run(None, {"x": x, "explain": np.array(True)})
    for got, expected in zip(on, (y, e, h, e), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    off = session.run(None, {"x": x, "explain": np.array(False)})
    np.testing.assert_allclose(off[0], y, rtol=1e-6)
    assert [o.shape for o in off[1:]] == [(0, 3)] * 3
    if form == "optional":
        assert [i.name for i in session.get_overridable_initializers()] == ["explain"]
        unasked = session.run(None, {"x": x})
        np.testing.assert_array_equal(unasked[0], off[0])
        assert [o.shape for o in unasked[1:]] == [(0, 3)] * 3
    else:
        assert [i.name for i in session.get_inputs()] == ["x", "explain"]
        with pytest.raises(ValueError, match=r"explain.* are missing from input feed"):
            session.run(None, {"x": x})
