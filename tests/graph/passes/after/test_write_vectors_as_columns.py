"""Products with vectors, which onnxruntime gets wrong where a Transpose stands before them."""

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.passes.after.write_vectors_as_columns import write_vectors_as_columns
from tests.graph.passes.harness import (
    changed,
    feeds_of,
    hard,
    onnxruntime_of,
    operators,
    parsed,
    without_marks,
)

RNG = np.random.default_rng(3)
VECTOR = RNG.normal(size=5).astype(np.float32)
#: Inputs, and what computes y; the same of numpy.
CASES = {
    "transposed": (
        "float[5, batch] x",
        "t = Transpose<perm = [1, 0]>(x) y = MatMul(t, v)",
        lambda x: x.T @ VECTOR,
    ),
    "a stack": (
        "float[batch, 5, time] x",
        "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(t, v)",
        lambda x: x.swapaxes(1, 2) @ VECTOR,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_right_in_onnxruntime(case: str) -> None:
    inputs, body, right = CASES[case]
    for sizes in ({"batch": 3, "time": 7}, {"batch": 8, "time": 2}):
        model = parsed(body, inputs=inputs, v=VECTOR)
        feed = feeds_of(model, sizes, lambda shape: np.abs(hard(shape)))
        wanted = right(np.asarray(feed["x"], np.float64))
        assert not np.allclose(onnxruntime_of(model)(feed)[0], wanted, rtol=1e-5, atol=1e-5)
        write_vectors_as_columns(model)
        onnx.checker.check_model(without_marks(model), full_check=True)
        (found,) = onnxruntime_of(model)(feed)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert operators(model)[-3:] == ["Unsqueeze", "MatMul", "Squeeze"]


def test_what_is_left_alone() -> None:
    body = "a = MatMul(v, v) b = MatMul(v, x) y = Mul(a, b)"
    assert changed(
        parsed(body, inputs="float[5, batch] x", v=VECTOR), write_vectors_as_columns
    ) == ["MatMul", "MatMul", "Mul"]


def test_in_a_loop() -> None:
    """Where a body holds the product, the sizes of whose operands are said outside."""
    body = """
      y = Scan<num_scan_inputs = 1, body = each (float[5, n] s) => (float[n] w) {
        t = Transpose<perm = [1, 0]>(s) w = MatMul(t, v) }>(x)"""
    model = parsed(body, inputs="float[2, 5, batch] x", v=VECTOR)
    feed = feeds_of(model, {"batch": 3}, hard)
    write_vectors_as_columns(model)
    (found,) = onnxruntime_of(model)(feed)
    np.testing.assert_allclose(found, feed["x"].swapaxes(1, 2) @ VECTOR, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_file_that_onnxruntime_gets_wrong(as_file: bool, tmp_path) -> None:
    """Its artefact predicts what the file says, and so does what it is verified against."""
    numbers = ", ".join(map(str, VECTOR.tolist()))
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]>
      g (float[n, 3, 5] x) => (float[n, 3] y) <float[5] v = {{{numbers}}}> {{
        t = Transpose<perm = [0, 2, 1]>(x) q = Mul(t, t) u = Transpose<perm = [0, 2, 1]>(q)
        y = MatMul(u, v) }}""")
    if as_file:
        onnx.save(model, tmp_path / "s.onnx")
    pg.compile(
        tmp_path / "s.onnx" if as_file else model, pg.InputGradient(target=1), tmp_path / "m.onnx"
    )
    x = RNG.normal(size=(4, 3, 5)).astype(np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    np.testing.assert_allclose(result["y"].array, (x * x) @ VECTOR, rtol=1e-4, atol=1e-5)
    right = np.where(np.arange(3)[:, None] == 1, 2 * x * VECTOR, 0)
    np.testing.assert_allclose(result["input_gradient/x"].array, right, rtol=1e-4, atol=1e-5)
