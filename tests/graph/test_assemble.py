"""What becomes of a model's outputs: an input may be one of them, by its own name or another."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests.sources.onnx.support import add_weights, hard, parse


def _check(path, x: np.ndarray, gradient: np.ndarray, engine: str = "onnxruntime") -> None:
    art = runtime.load(path, engine=engine)
    for asked in (True, False):
        result = art.run(x, explain=asked)
        np.testing.assert_array_equal(result["x"].array, x)
        assert ("input_gradient/x" in result) is asked
    np.testing.assert_allclose(art.run(x)["input_gradient/x"].array, gradient, rtol=1e-6)


@pytest.mark.parametrize("gate", [False, True, "optional", "split"])
def test_an_input_that_onnx_gives_out(tmp_path, gate) -> None:
    model = add_weights(
        parse("g (float[N,5] x) => (float[N,3] y, float[N,5] x) { y = MatMul(x, w) }"),
        w=hard(5, 3, seed=1),
    )
    out = tmp_path / "out.onnx"
    pg.compile(model, [pg.InputGradient(output="y", target=1)], out, gate=gate)
    x = hard(3, 5, seed=2)
    gradient = np.broadcast_to(hard(5, 3, seed=1)[:, 1], x.shape)
    _check(out, x, gradient)
    _check(out, x, gradient, "openvino")


def test_an_input_that_keras_gives_out(tmp_path) -> None:
    keras.utils.set_random_seed(3)
    given = keras.Input((5,), name="x")
    model = keras.Model(given, [keras.layers.Dense(3, name="y")(given), given])
    pg.compile(model, [pg.InputGradient(output="y", target=1)], tmp_path / "out.onnx")
    x = hard(2, 5, seed=2)
    _check(tmp_path / "out.onnx", x, np.broadcast_to(model.get_weights()[0][:, 1], x.shape))
