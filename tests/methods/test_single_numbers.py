"""Inputs that are one number a sample, `[batch]`, as `keras.Input(())` makes them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError


def test_methods_by_scores_hide_the_number(tmp_path: Path) -> None:
    a, b = keras.Input((), name="a"), keras.Input((), name="b")
    score = keras.layers.Identity(name="score")(ops.expand_dims(2 * a + a * b, -1))
    probes = [
        pg.Occlusion(window=3, fill=1.0),
        pg.FeatureAblation(),
        pg.KernelSHAP(),
        pg.LIME(samples=40, kernel_width=1.0, ridge=1e-6),
    ]
    pg.compile(keras.Model([a, b], score), probes, tmp_path / "m.onnx")
    x, y = np.array([1.0, -3.0, 0.0], np.float32), np.array([0.5, 4.0, 2.0], np.float32)
    result = runtime.load(tmp_path / "m.onnx").run({"a": x, "b": y})
    for kind in ("feature_ablation", "kernel_shap", "lime"):
        np.testing.assert_allclose(result[f"{kind}/a"].array, 2 * x + x * y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result[f"{kind}/b"].array, x * y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["occlusion/a"].array, (x - 1) * (2 + y), rtol=1e-5)
    np.testing.assert_allclose(result["occlusion/b"].array, x * (y - 1), rtol=1e-5)


def test_a_score_of_the_whole_batch_explains_no_sample(tmp_path: Path) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Identity(name="loss")(ops.mean(keras.layers.Dense(2)(x))))
    with pytest.raises(InstrumentError, match="'loss' is one number for the whole batch"):
        pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx")
