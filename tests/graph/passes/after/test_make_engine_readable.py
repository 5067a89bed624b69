"""Nodes that an engine reads wrong, in a form that all read right."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.passes.after.make_engine_readable import make_engine_readable
from tests.engines import apart, in_onnxruntime, in_openvino, in_the_reference, save

#: Name -> the model, and what is wrong with it as it is: an engine, and the output where it is
#: apart, or None where the engine fails.
CASES = {
    "a step at 0": "z = HardSigmoid<alpha=1e37, beta=0.0>(x)",
    "a ramp from 0": "z = HardSigmoid<alpha=0.5, beta=0.0>(x)",
    "over the first axis": "z = Softmax<axis=0>(x)",
    "a known depth": "best = ArgMax<axis=2, keepdims=0>(x) z = OneHot<axis=2>(best, five, ends)",
    "a depth of the request": """
        best = ArgMax<axis=2, keepdims=0>(x)
        depth = Shape<start=2, end=3>(x)
        z = OneHot<axis=2>(best, depth, ends)
    """,
}
HARD = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3.0, -2.0, 0.25, np.inf, -np.inf, 1e30]


@pytest.mark.parametrize("name", CASES)
def test_the_same_in_every_engine(tmp_path, name):
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    agraph (float[a, 2, 5] x) => (float[a, 2, 5] z)
    <int64[1] five = {{5}}, float[2] ends = {{0, 1}}> {{ {CASES[name]} kept = Identity(five)
      other = Identity(ends) }}"""
    before = save(text, tmp_path / "before.onnx")
    model = ir.load(before)
    make_engine_readable(model)
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    x = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    x[1] = 0
    if "HardSigmoid" in CASES[name]:
        x.reshape(-1)[: len(HARD)] = HARD
    expected = in_onnxruntime(before, {"x": x})
    after = in_onnxruntime(tmp_path / "after.onnx", {"x": x})
    np.testing.assert_allclose(after["z"], expected["z"], rtol=0, atol=3e-45)
    with np.errstate(over="ignore"):
        found = in_the_reference(tmp_path / "after.onnx", {"x": x})
    assert apart(found, expected)["z"] < 1e-6
    for from_memory in (False, True):
        found = in_openvino(tmp_path / "after.onnx", {"x": x}, from_memory=from_memory)
        assert apart(found, expected)["z"] < 1e-6


#: How a tensor of shape [2, 3, 5] is turned -> the sizes of the matrix behind.
TURNED = {(1, 0, 2): (5, 4), (1, 2, 0): (2, 4)}
_LOAD = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1]); print('loaded')"


@pytest.mark.parametrize("order", TURNED)
def test_half_products_of_turned_tensors(tmp_path, order):
    """As it is the file ends the process that loads it, in onnxruntime 1.32: it has its own."""
    rows, columns = TURNED[order]
    graph = onnx.parser.parse_graph(
        f"""agraph (float16[2, 3, 5] x) => (float16[?, ?, {columns}] z) {{
          t = Transpose<perm=[{", ".join(map(str, order))}]>(x)
          z = MatMul(t, w) }}"""
    )
    weights = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float16)
    graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    opset = [onnx.helper.make_opsetid("", 18)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9))
    make_engine_readable(model)
    ir.save(model, tmp_path / "after.onnx")
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD, tmp_path / "after.onnx"], capture_output=True, check=False
    )
    assert loaded.stdout == b"loaded\n"
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float16)
    found = in_onnxruntime(tmp_path / "after.onnx", {"x": x})["z"]
    expected = x.transpose(order).astype(np.float32) @ weights.astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_halves_that_onnxruntime_makes_infinite(tmp_path):
    """At opset 18 it writes them as the logarithm of an exponential, with float16 alone."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
    agraph (float16[a, 5] x) => (float16[a, 5] y, float16[a] z) <int64[1] last = {-1}> {
      y = Softplus(x) z = ReduceLogSumExp<keepdims=0>(x, last) }"""
    before = save(text, tmp_path / "before.onnx")
    model = ir.load(before)
    make_engine_readable(model)
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    x = np.array([[-300, -2, 0, 12, 300], [1, 2, 20000, -1, 3]], np.float16)
    found = in_onnxruntime(tmp_path / "after.onnx", {"x": x})
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found["y"], np.logaddexp(wide, 0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found["z"], np.logaddexp.reduce(wide, 1), rtol=1e-3)


@pytest.mark.parametrize(("opset", "kinds"), [(13, ["Cast", "CumSum", "Cast"]), (14, ["CumSum"])])
def test_running_sums_of_halves_in_older_operator_sets(tmp_path, opset, kinds):
    text = f"""<ir_version: 9, opset_import: ["" : {opset}]>
    agraph (float16[a, 5] x) => (float16[a, 5] y) <int64 last = {{1}}> {{
      y = CumSum<reverse=1>(x, last) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    make_engine_readable(model)
    assert [node.op_type for node in model.graph] == kinds
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    x = np.arange(10, dtype=np.float16).reshape(2, 5)
    found = in_onnxruntime(tmp_path / "after.onnx", {"x": x})["y"]
    np.testing.assert_array_equal(found, np.cumsum(x[:, ::-1], 1)[:, ::-1])


@pytest.mark.parametrize("kind", ["float", "double"])
def test_products_of_a_tensor_scaled_once_and_twice(tmp_path, kind):
    """onnxruntime takes the scales into its products, and then cannot open the file."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    agraph ({kind}[a, 2] x) => ({kind}[a, 2] z, {kind}[a, 2] half)
    <{kind} two = {{2}}, {kind}[1] tenth = {{0.1}}, {kind}[2, 2] m = {{1, 2, 3, 5}}> {{
      half = Div(x, two) p = MatMul(half, m) more = Mul(tenth, half) q = MatMul(more, m)
      much = Mul(more, two) r = MatMul(much, m) s = Sub(p, q) z = Add(s, r) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    make_engine_readable(model)
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    x = np.arange(6, dtype="f4" if kind == "float" else "f8").reshape(3, 2)
    found = in_onnxruntime(tmp_path / "after.onnx", {"x": x})
    matrix = np.array([[1, 2], [3, 5]])
    np.testing.assert_allclose(found["z"], 0.55 * x @ matrix, rtol=1e-6)
    np.testing.assert_array_equal(found["half"], x / 2)
