"""An artefact needs no file but its own, wherever the weights of its source lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

import probegen as pg
from probegen import runtime

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
scored (float[N, 40] x) => (float[N, 30] y)
<float[40, 30] w, float[30] small>
{
    held = Constant <value = float[30] {HELD}> ()
    product = MatMul (x, w)
    moved = Add (product, small)
    y = Mul (moved, held)
}
"""


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A model whose weights, a small one and one that a node holds among them, lie beside it."""
    rng = np.random.default_rng(0)
    held = ", ".join(f"{v:.3f}" for v in rng.uniform(1, 2, 30))
    proto = onnx.parser.parse_model(TEXT.replace("{HELD}", "{" + held + "}"))
    del proto.graph.initializer[:]
    for name, shape in (("w", (40, 30)), ("small", (30,))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "model.onnx"
    onnx.save_model(
        proto,
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert path.with_name("model.onnx.data").stat().st_size > 40 * 30 * 4
    return path


@pytest.mark.parametrize("external", [None, True])
@pytest.mark.parametrize("folder", ["source", "elsewhere"])
def test_weights_beside_the_source_come_along(
    apart: Path, tmp_path: Path, folder: str, external: bool | None
) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / folder / "explained.onnx"
    x = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(onnx.load(apart)).run(None, {"x": x})[0]
    pg.compile(apart, [pg.InputGradient(target=2)], place, external_data=external)
    (tmp_path / "moved").mkdir()
    for file in place.parent.glob("explained.onnx*"):
        shutil.move(file, tmp_path / "moved")
    shutil.rmtree(apart.parent)
    found = runtime.load(tmp_path / "moved" / "explained.onnx").run(x)
    np.testing.assert_allclose(found["y"].array, expected, rtol=1e-5, atol=1e-5)
    gradient = found["input_gradient/x"].array
    assert gradient.shape == (3, 40)
    np.testing.assert_allclose(gradient, np.broadcast_to(gradient[0], (3, 40)))


def test_a_gradient_of_a_model_with_weights_beside_it(apart: Path, tmp_path: Path) -> None:
    place = tmp_path / "gradient.onnx"
    pg.differentiate(apart, place, of="y", wrt=["x", "w"])
    shutil.rmtree(apart.parent)
    onnx.checker.check_model(place, full_check=True)
    assert all(
        not t.external_data for t in onnx.load(place, load_external_data=False).graph.initializer
    )
