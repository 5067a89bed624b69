"""Casts to a wider type and back go, in bodies too; those that round stay."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from probegen.graph.passes.after.drop_casts_back import drop_casts_back

#: A loop that reads from outside what was cast back, as a product of turned matrices.
LOOP = """
<ir_version: 8, opset_import: ["" : 18]>
g (float16[N, 2, 3] x, float16[N, 2, 2] start) => (float16[2, N, 3, 2] y, float16[N, 2, 3] kept)
<int64 steps = {2}, bool go = {1}>
{
    wide = Cast<to=1>(x)
    back = Cast<to=10>(wide)
    kept = Add(back, back)
    s, y = Loop(steps, go, start) <body = step (int64 i, bool on, float16[N, 2, 2] s)
        => (bool on_out, float16[N, 2, 2] s_out, float16[N, 3, 2] out)
        { on_out = Identity(on)
          turned = Transpose<perm=[0, 2, 1]>(back)
          out = MatMul(turned, s)
          s_out = Add(s, s) }>
}
"""
#: What inference tells of it.
TYPES = {"wide": "FLOAT", "back": "FLOAT16"}


def casts(model):
    return [n.outputs[0].name for n in model.graph.all_nodes() if n.op_type == "Cast"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_body_reads_what_was_cast(rows):
    model = ir.from_proto(onnx.parser.parse_model(LOOP))
    for value in (v for n in model.graph for v in n.outputs if v.name in ("wide", "back")):
        value.type = ir.TensorType(getattr(ir.DataType, TYPES[value.name]))
    drop_casts_back(model)
    assert casts(model) == ["wide"]  # which nothing reads, and goes with the unused nodes
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    rng = np.random.default_rng(0)
    x, start = (rng.normal(size=(rows, 2, n)).astype("float16") for n in (3, 2))
    y, kept = session.run(None, {"x": x, "start": start})
    np.testing.assert_array_equal(kept, 2 * x)
    right = np.swapaxes(x.astype("float64"), 1, 2) @ start
    np.testing.assert_allclose(y, [right, 2 * right], rtol=5e-3, atol=5e-3)


def test_what_rounds_and_what_is_an_output_stays():
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[N, 3] x, float16[N, 3] h) => (float[N, 3] y, float16[N, 3] same)
    { narrow = Cast<to=10>(x)
      y = Cast<to=1>(narrow)
      z = Cast<to=1>(narrow)
      other = Abs(z)
      wide = Cast<to=11>(h)
      same = Cast<to=10>(wide) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    for value in (v for n in model.graph for v in n.outputs if v.type is None):
        kind = {"narrow": ir.DataType.FLOAT16, "wide": ir.DataType.DOUBLE}
        value.type = ir.TensorType(kind.get(value.name, ir.DataType.FLOAT))
    drop_casts_back(model)
    assert casts(model) == ["narrow", "y", "z", "wide", "same"]
