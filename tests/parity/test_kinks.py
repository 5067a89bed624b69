"""Gradients at kinks: behind a maximum of equal values, rounding says which one comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen.errors import VerificationError


@pytest.fixture(scope="module")
def saturated() -> tuple[keras.Model, np.ndarray]:
    """A classifier by the maximum of tanh, and images at which many are 1 up to rounding."""
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 7, 3), name="image")
    h = layers.Conv2D(5, 3, name="conv")(image)
    h = layers.Activation("tanh", name="tanh")(h)
    model = keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(h)))
    return model, 30 * np.random.default_rng(0).normal(size=(6, 9, 7, 3)).astype(np.float32)


def compiled(model: Any, place: Path, monkeypatch: Any, planted: Any = None) -> Path:
    """Compiles without a look at it, of a gradient that an error was planted in."""
    with monkeypatch.context() as changed:
        if planted is not None:
            right = pg.InputGradient.combine
            wrong = lambda self, ops, g, v, a: right(self, ops, planted(ops, g), v, a)  # noqa: E731
            changed.setattr(pg.InputGradient, "combine", wrong)
        pg.compile(
            model,
            [pg.HiResCAM("tanh"), pg.InputGradient(wrt="tanh")],
            place / "m.onnx",
            verify=False,
        )
    return place / "m.onnx"


def test_equal_maxima_are_no_disagreement(
    saturated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = saturated
    values = keras.Model(model.inputs, model.get_layer("tanh").output).predict(x, verbose=0)
    near = (values > 1 - 1e-6).reshape(len(x), -1, 5).sum(1)
    assert (near > 1).any(axis=1).all()  # else there is nothing to try here
    assert pg.verify(compiled(model, tmp_path, monkeypatch), model, x).passed


@pytest.mark.parametrize(
    "planted",
    [
        lambda ops, g: ops.mul(g, 1.2),
        lambda ops, g: ops.sub(0.0, g),
        lambda ops, g: ops.add(g, 0.02),
    ],
    ids=["larger", "turned", "everywhere"],
)
def test_wrong_gradients_at_kinks_are_found(
    saturated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Any
) -> None:
    model, x = saturated
    with pytest.raises(VerificationError, match="input_gradient/tanh"):
        pg.verify(compiled(model, tmp_path, monkeypatch, planted), model, x)
