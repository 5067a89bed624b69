"""Clean-ups: the structure they leave, and that the numbers stay."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from probegen.graph.passes import clean


def ops(model):
    return [n.op_type for n in model.graph.all_nodes()]


def run(model, **feed):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feed)


CASES = {
    "inverse transposes vanish": (
        """
        a = Transpose<perm=[0, 2, 1]>(x)
        m = probegen.Mark(a)
        b = Transpose<perm=[0, 2, 1]>(m)
        y = Relu(b)
        """,
        ["Relu"],
    ),
    "the first transpose stays for its other reader": (
        """
        a = Transpose<perm=[0, 2, 1]>(x)
        b = Transpose<perm=[0, 2, 1]>(a)
        c = Shape(a)
        r = Relu(b)
        y = Add(r, r)
        s = Cast<to=1>(c)
        k = ReduceSum<keepdims=0>(s)
        y2 = Mul(y, k)
        """,
        ["Transpose", "Shape", "Relu", "Add", "Cast", "ReduceSum", "Mul"],
    ),
    "three transposes become one": (
        """
        a = Transpose<perm=[1, 2, 0]>(x)
        b = Transpose<perm=[1, 2, 0]>(a)
        y = Transpose<perm=[1, 0, 2]>(b)
        """,
        ["Transpose"],
    ),
    "repeated computations are done once": (
        """
        a = Exp(x)
        b = Exp(x)
        y = Add(a, b)
        """,
        ["Exp", "Add"],
    ),
    "what nothing needs goes": (
        """
        a = Exp(x)
        y = Relu(x)
        """,
        ["Relu"],
    ),
    "a stopped gradient leaves no trace": (
        """
        a = probegen.StopGradient(x)
        y = Relu(a)
        """,
        ["Relu"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_structure_and_numbers(name):
    body, expected = CASES[name]
    last = body.strip().splitlines()[-1].split("=")[0].strip()
    header = '<ir_version: 9, opset_import: ["" : 18, "probegen" : 1]>'
    text = f"{header}\nagraph (float[2, 3, 5] x) => ({last})\n{{{body}}}"
    text = text.replace(f"=> ({last})", f"=> (float[a, b, c] {last})")
    model = ir.from_onnx_text(text)
    plain = ir.from_onnx_text(
        text.replace("probegen.Mark", "Identity").replace("probegen.StopGradient", "Identity")
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
    clean(model)
    assert ops(model) == expected
    np.testing.assert_array_equal(run(model, x=x)[0], run(plain, x=x)[0])
    assert "probegen" not in model.graph.opset_imports
