"""A file whose weights are more than protobuf's 2 GB is compiled, verified and run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

import probegen as pg
from probegen import runtime
from probegen.graph.external_data import PROTOBUF_LIMIT

ROWS, UNITS = 9_000, 60_000
#: The only rows and columns of the large weight that are not zero, at its ends and between them.
FILLED_ROWS, FILLED_UNITS = (0, 1, 4_321, 8_999), (0, 777, 30_001, 59_999)

TEXT = f"""
<ir_version: 9, opset_import: ["" : 18]>
large (float[batch, {ROWS}] x) => (float[batch, 3] p)
{{
    h = MatMul (x, w)
    t = Tanh (h)
    s = MatMul (t, v)
    p = Softmax <axis = -1> (s)
}}
"""


def write(folder: Path, block: np.ndarray, last: np.ndarray) -> Path:
    """Writes a model with a weight of 2.16 GB; its file is sparse and takes little of the disk."""
    model = onnx.parser.parse_model(TEXT)
    size = ROWS * UNITS * 4
    assert size > PROTOBUF_LIMIT
    weight = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, dims=[ROWS, UNITS], data_location=1
    )
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    tail = np.zeros((UNITS, 3), np.float32)
    tail[list(FILLED_UNITS)] = last
    model.graph.initializer.append(onnx.numpy_helper.from_array(tail, "v"))
    with (folder / "w.bin").open("wb") as file:
        file.truncate(size)
    whole = np.memmap(folder / "w.bin", np.float32, "r+", shape=(ROWS, UNITS))
    whole[np.ix_(FILLED_ROWS, FILLED_UNITS)] = block
    whole.flush()
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    block = rng.normal(size=(4, 4)).astype(np.float32)
    last = rng.normal(size=(4, 3)).astype(np.float32)
    source = write(tmp_path, block, last)
    probes = [pg.InputGradient(target=1), pg.Activations("type:Softmax")]
    try:
        exported = pg.compile(source, probes, tmp_path / "explained.onnx")
        assert exported.report.passed
        assert exported.data is not None
        assert exported.data.stat().st_size > PROTOBUF_LIMIT
        source.with_name("w.bin").unlink()  # an artefact needs no file but its own
        x = rng.normal(size=(2, ROWS)).astype(np.float32)
        found = runtime.load(exported.path).run(x)
    finally:
        for file in tmp_path.iterdir():
            file.unlink()
    bent = np.tanh(x[:, FILLED_ROWS].astype(np.float64) @ block)
    exponentials = np.exp(bent @ last)
    np.testing.assert_allclose(
        found["p"].array, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-5
    )
    expected = np.zeros((2, ROWS))
    expected[:, FILLED_ROWS] = ((1 - bent**2) * last[:, 1]) @ block.T
    gradient = found["input_gradient/x"].array
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    assert math.isclose(np.abs(gradient).sum(), np.abs(expected).sum(), rel_tol=1e-4)
