"""`--axes`: what the axes of an ONNX model are, where sizes do not tell."""

import numpy as np
import onnx
import onnx.parser
import pytest

import probegen as pg
from probegen import cli, runtime

TIME_FIRST = """
<ir_version: 8, opset_import: ["" : 17]>
reader (float[A, B, 3] x) => (float[B, 2] y)
<float[3, 2] w = {0.5, -1.0, 2.0, 0.25, -0.75, 1.5}>
{
    h = MatMul (x, w)
    bent = Tanh (h)
    y = ReduceMean <axes = [0], keepdims = 0> (bent)
}
"""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(TIME_FIRST), "reader.onnx")


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    return left.value.code or 0


@pytest.mark.usefixtures("reader")
def test_compile_and_verify_again(capsys):
    axes = ["--axes", "x=time,batch,feature", "--axes", "y=batch,class"]
    assert command("compile", "reader.onnx", "-o", "r.onnx", "--input-gradient", *axes) == 0
    assert command("verify", "r.onnx", "--against", "reader.onnx") == 0
    pg.verify("r.onnx", "reader.onnx")
    art = runtime.load("r.onnx")
    assert art.inputs[0].axes == ("time", "batch", "feature")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    result = art.run(x)
    gradient = result["input_gradient/x"]
    assert gradient.axes == ("time", "batch", "feature")
    w = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]])
    best = np.asarray(result["y"].array).argmax(1)
    slope = (1 - np.tanh(x @ w) ** 2) / 5
    expected = np.stack([slope[:, b, [k]] * w[:, k] for b, k in enumerate(best)], axis=1)
    np.testing.assert_allclose(gradient.array, expected, rtol=1e-4, atol=1e-6)
    capsys.readouterr()


@pytest.mark.usefixtures("reader")
def test_malformed_axes_and_models_that_say_them_themselves(capsys):
    assert command("inspect", "reader.onnx", "--axes", "time,batch") == 1
    assert "--axes takes for instance" in capsys.readouterr().err
    assert command("inspect", "model.keras", "--axes", "x=batch,time") == 1
    assert "--axes is for ONNX files" in capsys.readouterr().err
    assert command("inspect", "reader.onnx", "--axes", "z=batch") == 1
    assert "no input or output 'z'" in capsys.readouterr().err
