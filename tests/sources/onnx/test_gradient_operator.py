"""ONNX's operator for gradients: its published cases, and what its text says."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnx.parser
import onnxruntime
import pytest

import probegen as pg
from probegen.errors import SourceError

CASES = Path(onnx.backend.test.__file__).parent / "data" / "simple"
PUBLISHED = sorted(p.name for p in CASES.iterdir() if p.name.startswith("test_gradient"))


def compiled(model, tmp_path):
    path = tmp_path / "m.onnx"
    written = pg.compile(model, [], path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), written


def parsed(text):
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.preview.training" : 1]>\n' + text
    )


def arrays(folder, kind):
    found = []
    for path in sorted(folder.glob(f"{kind}_*.pb")):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        found.append(onnx.numpy_helper.to_array(tensor))
    return found


def test_there_are_published_cases():
    assert PUBLISHED == ["test_gradient_of_add", "test_gradient_of_add_and_mul"]


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_cases(case, tmp_path):
    session, _ = compiled(CASES / case / "model.onnx", tmp_path)
    names = [i.name for i in session.get_inputs()]
    for folder in sorted((CASES / case).glob("test_data_set_*")):
        got = session.run(None, dict(zip(names, arrays(folder, "input"), strict=True)))
        for ours, theirs in zip(got, arrays(folder, "output"), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_several_variables_and_shapes(tmp_path):
    """y is no scalar: its gradient is that of the sum of its elements."""
    session, written = compiled(
        parsed(
            """g (float[N, 3] x, float[3, 2] w) => (float[N, 2] y, float[N, 3] dx, float[3, 2] dw)
            {
                h = MatMul (x, w)
                y = Sigmoid (h)
                dx, dw = ai.onnx.preview.training.Gradient <xs = ["x", "w"], y = "y"> (x, w)
            }"""
        ),
        tmp_path,
    )
    assert "written out" in written.manifest.model["notes"]
    rng = np.random.default_rng(0)
    for rows in (1, 4):
        x, w = rng.standard_normal((rows, 3)), rng.standard_normal((3, 2))
        y = 1 / (1 + np.exp(-x @ w))
        back = y * (1 - y)
        feed = {"x": x.astype(np.float32), "w": w.astype(np.float32)}
        got = session.run(None, feed)
        for ours, theirs in zip(got, (y, back @ w.T, x.T @ back), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_at_other_values_than_the_graph_has(tmp_path):
    session, _ = compiled(
        parsed(
            """g (float[N] x, float[N] there) => (float[N] y, float[N] dx)
            {
                y = Mul (x, x)
                dx = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (there)
            }"""
        ),
        tmp_path,
    )
    x, there = np.array([1, 2, 3], np.float32), np.array([5, -1, 0], np.float32)
    y, dx = session.run(None, {"x": x, "there": there})
    np.testing.assert_array_equal(y, x * x)
    np.testing.assert_array_equal(dx, 2 * there)


def test_an_inner_tensor_is_independent(tmp_path):
    session, _ = compiled(
        parsed(
            """g (float[N] x) => (float[N] y, float[N] dh)
            {
                h = Exp (x)
                y = Mul (h, x)
                dh = ai.onnx.preview.training.Gradient <xs = ["h"], zs = ["x"], y = "y"> (h, x)
            }"""
        ),
        tmp_path,
    )
    x = np.array([0.5, -2.0], np.float32)
    np.testing.assert_allclose(session.run(["dh"], {"x": x})[0], x)


def test_the_second_order(tmp_path):
    session, _ = compiled(
        parsed(
            """g (float[N] x) => (float[N] once, float[N] twice)
            {
                y = Sin (x)
                once = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (x)
                twice = ai.onnx.preview.training.Gradient <xs = ["x"], y = "once"> (x)
            }"""
        ),
        tmp_path,
    )
    x = np.array([0.3, -1.2, 2.0], np.float32)
    once, twice = session.run(None, {"x": x})
    np.testing.assert_allclose(once, np.cos(x), rtol=1e-5)
    np.testing.assert_allclose(twice, -np.sin(x), rtol=1e-5)


def test_no_way_is_zero(tmp_path):
    session, _ = compiled(
        parsed(
            """g (float[N] x, float[N] z) => (float[N] y, float[N] dz)
            {
                y = Neg (x)
                dz = ai.onnx.preview.training.Gradient <xs = ["z"], zs = ["x"], y = "y"> (z, x)
            }"""
        ),
        tmp_path,
    )
    x = np.array([1.0, 2.0], np.float32)
    np.testing.assert_array_equal(session.run(["dz"], {"x": x, "z": x})[0], [0, 0])


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ('Gradient <xs = ["nothing"], y = "y"> (x)', "names 'nothing'"),
        ('Gradient <xs = ["x"], y = "y"> (x, x)', "other inputs than it has"),
    ],
)
def test_what_it_names_has_to_be_there(node, says, tmp_path):
    model = parsed(
        f"""g (float[N] x) => (float[N] y, float[N] d)
        {{
            y = Neg (x)
            d = ai.onnx.preview.training.{node}
        }}"""
    )
    with pytest.raises(SourceError, match=says):
        pg.compile(model, [], tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []
