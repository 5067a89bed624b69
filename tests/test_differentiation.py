"""`pg.differentiate`: vector-Jacobian products as graphs, against numpy and finite differences."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from keras import layers

import probegen as pg
from probegen import cli
from probegen.errors import (
    ExportError,
    InstrumentError,
    OutputExistsError,
    SelectionError,
    SourceError,
    VerificationError,
)
from probegen.graph import vjp
from tests import models

TWO_OUTPUTS = """
<ir_version: 8, opset_import: ["" : 17]>
towers (float[N, 5, 3] x, float[N, 4] y, int64[N] k) => (float[N, 2] probs, float[N, 4] scaled)
<float[3, 2] w = {0.5, -1.0, 2.0, 0.25, -0.75, 1.5}, float[2] b = {0.1, -0.2},
 int64[1] middle = {1}, float[4] s = {1.0, -2.0, 0.5, 3.0}>
{
    pooled = ReduceMean <axes = [1], keepdims = 0> (x)
    hidden = MatMul (pooled, w)
    scores = Add (hidden, b)
    bent = Tanh (scores)
    probs = Softmax <axis = 1> (bent)
    scaled = Mul (y, s)
}
"""


@pytest.fixture
def towers(tmp_path):
    path = tmp_path / "towers.onnx"
    onnx.save(onnx.parser.parse_model(TWO_OUTPUTS), path)
    return path


def feeds(rows):
    rng = np.random.default_rng(rows)
    return {
        "x": rng.standard_normal((rows, 5, 3)).astype(np.float32),
        "y": rng.standard_normal((rows, 4)).astype(np.float32),
        "k": np.arange(rows, dtype=np.int64),
    }


def ran(path, feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    known = {i.name for i in session.get_inputs()}
    return dict(
        zip(names, session.run(None, {k: v for k, v in feed.items() if k in known}), strict=True)
    )


W = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]])
B = np.array([0.1, -0.2])


def softmax_products(x, cotangent):
    """The vector-Jacobian products of `probs` by numpy: at x, w and b."""
    pooled = x.astype(np.float64).mean(axis=1)
    bent = np.tanh(pooled @ W + B)
    probs = np.exp(bent) / np.exp(bent).sum(1, keepdims=True)
    back = probs * (cotangent - (probs * cotangent).sum(1, keepdims=True))
    back *= 1 - bent**2
    at_x = np.repeat((back @ W.T)[:, None] / 5, 5, axis=1)
    return at_x, pooled.T @ back, back.sum(0)


@pytest.mark.parametrize("rows", [1, 3])
def test_inputs_weights_and_inner_tensors(towers, tmp_path, rows):
    path = tmp_path / "g.onnx"
    done = pg.differentiate(towers, path, of="probs", wrt=["x", "w", "b", "hidden"])
    assert done.cotangents == {"cotangent/probs": ("N", 2)}
    gradients = [f"gradient/{name}" for name in ("x", "w", "b", "hidden")]
    assert done.verified == dict.fromkeys(gradients, "confirmed")
    assert done.gradients["gradient/w"] == (3, 2)
    feed = feeds(rows)
    cotangent = np.random.default_rng(9).standard_normal((rows, 2)).astype(np.float32)
    got = ran(path, {**feed, "cotangent/probs": cotangent})
    assert list(got) == ["probs", "scaled", *gradients]
    plain = ran(towers, feed)
    for name in ("probs", "scaled"):
        np.testing.assert_array_equal(got[name], plain[name])
    at_x, at_w, at_b = softmax_products(feed["x"], cotangent)
    np.testing.assert_allclose(got["gradient/x"], at_x, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["gradient/w"], at_w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["gradient/b"], at_b, rtol=1e-4, atol=1e-6)
    assert got["gradient/hidden"].shape == (rows, 2)


def test_several_outputs_are_summed(towers, tmp_path):
    path = tmp_path / "g.onnx"
    pg.differentiate(towers, path, of=["probs", "scaled"], wrt=["x", "y"])
    feed = feeds(2)
    one, two = np.eye(2, dtype=np.float32), np.full((2, 4), 2.0, np.float32)
    got = ran(path, {**feed, "cotangent/probs": one, "cotangent/scaled": two})
    np.testing.assert_allclose(got["gradient/x"], softmax_products(feed["x"], one)[0], atol=1e-6)
    np.testing.assert_allclose(got["gradient/y"], np.tile([2.0, -4.0, 1.0, 6.0], (2, 1)))


def test_logits_of_a_keras_model(tmp_path):
    model = models.cnn()
    path = tmp_path / "g.onnx"
    done = pg.differentiate(model, path, wrt=["image", "conv1"])
    assert list(done.cotangents) == ["cotangent/logits"]
    x = models.images((11, 8, 2), count=2)
    (batch, classes) = 2, model.output_shape[-1]
    row = np.eye(batch, classes, k=1, dtype=np.float32)
    got = ran(path, {"image": x, "cotangent/logits": row})
    probed = pg.instrument(model, [pg.InputGradient(target="input")])
    expected = probed({"image": x, "target": np.array([1, 2], np.int32)})
    np.testing.assert_allclose(
        got["gradient/image"], expected["input_gradient/image"], rtol=1e-4, atol=1e-6
    )
    assert got["gradient/conv1"].shape[0] == batch


def test_the_whole_jacobian_row_by_row(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(3, name="y")(x))
    path = tmp_path / "g.onnx"
    pg.differentiate(model, path, of="y", wrt="x")
    feed = np.zeros((3, 4), np.float32)
    got = ran(path, {"x": feed, "cotangent/y": np.eye(3, dtype=np.float32)})
    np.testing.assert_allclose(got["gradient/x"], model.layers[-1].kernel.numpy().T, rtol=1e-6)


def test_a_wrong_rule_is_refuted(towers, tmp_path, monkeypatch):
    right = vjp.RULES["Tanh"]

    def wrong(walk, node, dy):
        for value, gradient in right(walk, node, dy):
            yield value, walk.builder.mul(gradient, 1.5)

    monkeypatch.setitem(vjp.RULES, "Tanh", wrong)
    with pytest.raises(VerificationError, match="refute the gradient by 'x'"):
        pg.differentiate(towers, tmp_path / "g.onnx", of="probs", wrt="x")
    assert not (tmp_path / "g.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"of": "prob"}, InstrumentError, r"no output 'prob'.*Did you mean 'probs'"),
        ({}, InstrumentError, r"several outputs \['probs', 'scaled'\]"),
        ({"of": "probs", "wrt": "k"}, InstrumentError, "'k' is int64"),
        ({"of": "probs", "wrt": "hiden"}, SelectionError, "no layer matches 'hiden'"),
        ({"of": "scaled", "wrt": "x"}, InstrumentError, "no gradient flows"),
    ],
)
def test_what_cannot_be(towers, tmp_path, arguments, error, says):
    with pytest.raises(error, match=says):
        pg.differentiate(towers, tmp_path / "g.onnx", **arguments)
    assert not (tmp_path / "g.onnx").exists()


def test_what_is_no_model_or_no_place(tmp_path, towers):
    with pytest.raises(SourceError, match="there is no model file"):
        pg.differentiate(tmp_path / "none.onnx", tmp_path / "g.onnx")
    with pytest.raises(ExportError, match=r"does not end in \.onnx"):
        pg.differentiate(towers, tmp_path / "g.pb", of="probs")


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(["differentiate", *arguments])
    assert not left.value.code


def test_the_command(towers, capsys, monkeypatch):
    monkeypatch.chdir(towers.parent)
    command("towers.onnx", "-o", "g.onnx", "--of", "probs", "--wrt", "x")
    told = capsys.readouterr().out
    assert "cotangent/probs" in told
    assert "confirmed" in told
    command("towers.onnx", "-o", "g.onnx", "--of", "probs", "--wrt", "w", "--json")
    assert json.loads(capsys.readouterr().out)["verified"] == {"gradient/w": "confirmed"}


BLOCKED = """
import sys
for name in ("tensorflow", "keras", "tf2onnx"):
    sys.modules[name] = None
from probegen.cli import main
for line in (
    "inspect towers.onnx",
    "compile towers.onnx -o t.onnx --saliency --integrated-gradients --model-output probs",
    "verify t.onnx --against towers.onnx",
    "differentiate towers.onnx -o g.onnx --of probs --wrt x",
):
    try:
        main(line.split())
    except SystemExit as left:
        if left.code:
            raise
"""


def test_onnx_models_need_neither_tensorflow_nor_keras(towers):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=towers.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "integrated_gradients/x" in done.stdout
    assert (towers.parent / "g.onnx").exists()


def test_the_model_itself_is_not_replaced(towers):
    before = towers.read_bytes()
    with pytest.raises(OutputExistsError, match="the model itself"):
        pg.differentiate(str(towers), str(towers), of="scores", wrt="x", overwrite=True)
    assert towers.read_bytes() == before
