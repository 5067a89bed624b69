"""Models whose layers ask for bfloat16 or float16, computed in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen.errors import ExportError, SpecError
from probegen.sources.keras.precision import computing_in_float32


@pytest.fixture(autouse=True)
def _floats():
    """Puts back what Keras computes in."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


class Scaled(layers.Layer):
    """Keeps a rounded tensor, as Normalization does."""

    def build(self, shape: Any) -> None:
        del shape
        self.scale = ops.cast([0.30001, 1.1, -0.7], self.compute_dtype)

    def call(self, x: Any) -> Any:
        return x * self.scale


def built(policy: str) -> keras.Model:
    """Returns a model with what may hold an element type: layers, tensors, casts, constants."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(4)
    x = keras.Input((5, 3), name="x")
    h = Scaled()(x)
    inner = keras.Input((5, 3), dtype=h.dtype)
    h = keras.Model(inner, layers.Dense(4, activation="tanh")(inner))(h)
    h = h * ops.cast(1.75, h.dtype)
    h = layers.SimpleRNN(3, recurrent_initializer="glorot_uniform")(h)
    h = ops.cast(ops.cast(3 * h, "int32"), h.dtype) + h
    return keras.Model(x, layers.Dense(2, name="y", dtype="float32")(h))


def twin_of(model: keras.Model) -> keras.Model:
    """Returns the model as it is built in float32, with the same numbers as weights."""
    twin = built("float32")
    twin.set_weights([np.asarray(w).astype(np.float32) for w in model.get_weights()])
    scale = model.layers[1].scale
    twin.layers[1].scale = ops.cast(scale, "float32")
    return twin


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_it_computes_what_a_twin_in_float32_does_and_is_as_it_was_afterwards(policy):
    model = built(policy)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    before = np.array(model(x))
    with computing_in_float32(model) as meanwhile:
        assert meanwhile is model
        fine = np.array(model(x))
        right = np.array(twin_of(model)(x))
    np.testing.assert_allclose(fine, right, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.array(model(x)), before)
    assert abs(fine - before).max() > 1e-5
    assert model.layers[1].dtype_policy.name == policy


def test_the_artefact_is_compared_in_float32_and_says_how_far_the_model_itself_is(tmp_path):
    model = built("bfloat16")
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"precision='float32'.*--precision float32"):
        pg.compile(model, pg.Saliency(target=1), path)
    made = pg.compile(model, pg.Saliency(target=1), path, precision="float32")
    assert made.manifest.model["precision"] == "float32"
    assert {o.dtype for o in made.manifest.outputs} == {"float32"}
    assert made.report.outputs["y"].limit == 1e-4
    (note,) = made.report.notes
    assert "the model computes by bfloat16, and here in float32" in note
    # Who verifies it later need not say so again.
    assert pg.verify(path, model).notes == [note]


def test_what_casts_by_itself_is_named(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    x = keras.Input((3,))
    casts = layers.Lambda(lambda t: ops.cast(t, "bfloat16") * 2, name="rounds")
    model = keras.Model(x, layers.Dense(2)(casts(layers.Dense(3)(x))))
    with pytest.raises(ExportError, match=r"'.*rounds.*' casts to it by itself"):
        pg.compile(model, [], tmp_path / "m.onnx", precision="float32")


def test_what_it_is_not_for(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(SpecError, match="takes 'float32' or None, got 'float16'"):
        pg.compile(model, [], tmp_path / "m.onnx", precision="float16")
    with pytest.raises(SpecError, match=r"in a .keras file layers keep their policies"):
        pg.compile(model, [], tmp_path / "m.keras", precision="float32")
    with pytest.raises(SpecError, match=r"precision= is for Keras models.*leave precision out"):
        pg.compile(Path("other.onnx"), [], tmp_path / "m.onnx", precision="float32")
