"""The reference in float64: what rounding makes of a model that no noise on its inputs shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.plan.making import make_plan
from probegen.sources import open_source

BETA = 0.2079


def reference(model: Any, *probes: Any) -> Any:
    source = open_source(model)
    return source.reference(make_plan(source.view, probes))


@pytest.fixture(scope="module")
def alone() -> keras.Model:
    """Normalises one element: x less its mean, 0, which the model takes as x * s - x * s + beta."""
    x = keras.Input((3, 1), name="x")
    norm = layers.LayerNormalization(name="norm")
    model = keras.Model(x, norm(x))
    norm.beta.assign([BETA])
    return model


def test_all_outputs_are_those_of_a_model_of_twice_the_length(alone: keras.Model) -> None:
    x = np.float32([[[142.1], [-7.3], [26.1]], [[0.1], [-0.2], [64.9]]])
    told = reference(alone, pg.InputGradient(target=(1, 0)))
    rounded = told.explanations({"x": x}, None)
    exact = told.without_rounding({"x": x}, None)
    assert set(rounded) <= set(exact)
    assert np.abs(rounded["norm"] - np.float32(BETA)).max() > 1e-5  # else there is nothing to try
    np.testing.assert_allclose(exact["norm"], np.float32(BETA), atol=1e-10)
    np.testing.assert_allclose(exact["input_gradient/x"], 0, atol=1e-12)


def test_loops_variables_and_scores_of_hidden_parts_are_in_double_too() -> None:
    """A float64 twin with the same weights says what comes out."""
    x = keras.Input((5, 2), name="x")
    h = layers.LSTM(3, return_sequences=True)(x)
    model = keras.Model(x, layers.Dense(2, name="y")(layers.SimpleRNN(3)(h)))
    probes = [pg.InputGradient(target=1), pg.Occlusion(window=2, target=0)]
    with keras.device("cpu"):
        keras.config.set_floatx("float64")
        try:
            config = {**model.get_config()}
            twin = keras.Model.from_config(_doubled(config))
            twin.set_weights([w.astype(np.float64) for w in model.get_weights()])
            fed = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
            right = reference(twin, *probes).explanations({"x": fed.astype(np.float64)}, None)
        finally:
            keras.config.set_floatx("float32")
    exact = reference(model, *probes).without_rounding({"x": fed}, None)
    for name in ("y", "input_gradient/x", "occlusion/x"):
        np.testing.assert_allclose(exact[name], right[name], rtol=1e-6, atol=1e-9, err_msg=name)
    assert exact["y"].dtype == np.float64
    np.testing.assert_allclose(exact["y"], right["y"], rtol=1e-12)


def _doubled(config: Any) -> Any:
    """Returns a configuration with float64 in the place of float32."""
    if isinstance(config, dict):
        return {key: _doubled(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_doubled(value) for value in config)
    return "float64" if config == "float32" else config


def test_nothing_is_said_where_there_is_no_form_in_double() -> None:
    """Of a blend that takes its scale in float32 alone."""
    x = keras.Input((4, 3, 2), name="x")
    model = keras.Model(x, layers.UpSampling2D(2, interpolation="lanczos3")(x))
    assert reference(model).without_rounding({"x": np.ones((2, 4, 3, 2), np.float32)}, None) == {}


def test_what_blends_in_float32_goes_on_in_double() -> None:
    x = keras.Input((4, 3, 1), name="x")
    blended = layers.UpSampling2D((2, 1), interpolation="bilinear")(x)
    model = keras.Model(x, keras.ops.tanh(layers.Flatten()(blended)))
    told = reference(model, pg.InputGradient(target=5))
    fed = {"x": np.random.default_rng(0).normal(size=(2, 4, 3, 1)).astype(np.float32)}
    exact, rounded = told.without_rounding(fed, None), told.explanations(fed, None)
    (name,) = (n for n in exact if n not in ("input_gradient/x",) and exact[n].shape == (2, 24))
    assert exact[name].dtype == np.float64
    for each in (name, "input_gradient/x"):
        np.testing.assert_allclose(exact[each], rounded[each], rtol=1e-5, atol=1e-7)


def test_what_a_model_rounds_to_16_bits_is_rounded_so_in_double() -> None:
    """Inputs and weights are those of 16 bits, what is calculated with them is not rounded."""
    x = keras.Input((5,), name="x")
    model = keras.Model(x, layers.Dense(3, activation="tanh", dtype="mixed_float16", name="y")(x))
    told = reference(model, pg.InputGradient(target=1), pg.Occlusion(window=1, target=1))
    fed = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    exact = told.without_rounding({"x": fed}, None)
    kernel, bias = (w.astype(np.float16).astype(np.float64) for w in model.get_weights())
    before = fed.astype(np.float16).astype(np.float64) @ kernel + bias
    np.testing.assert_allclose(exact["y"], np.tanh(before), rtol=1e-12)
    slope = 1 / np.cosh(before[:, 1:2]) ** 2
    # The gradient is cast to the type of the input, as the model casts the input: to 16 bits.
    np.testing.assert_allclose(exact["input_gradient/x"], slope * kernel[:, 1], rtol=1e-3)
    assert exact["occlusion/x"].shape == (4, 5)


def test_what_is_rounding_alone_in_float64_may_be_nothing() -> None:
    """A matrix and its inverse leave of a vector less itself what they round."""
    keras.config.set_dtype_policy("float64")
    try:
        x = keras.Input((7,), name="x", dtype="float64")
        there, back = (layers.Dense(7, use_bias=False) for _ in range(2))
        rest = layers.Subtract(name="rest")([back(there(x)), x])
        model = keras.Model(x, [rest, layers.Dense(2, name="y")(x)])
    finally:
        keras.config.set_dtype_policy("float32")
    matrix = np.random.default_rng(1).normal(size=(7, 7))
    there.set_weights([matrix])
    back.set_weights([np.linalg.inv(matrix)])
    told = reference(model, pg.InputGradient(output=0, target=2), pg.Saliency(output=1, target=0))
    fed = {"x": np.random.default_rng(0).normal(size=(4, 7))}
    least, known = told.without_rounding(fed, None), told.explanations(fed, None)
    for name in ("rest", "input_gradient/x"):
        assert 0 < np.abs(known[name]).max() < 1e-13
        # How much is left hangs on the order in which a processor adds.
        assert (np.abs(least[name]) <= np.abs(known[name])).all()
        assert np.median(np.abs(least[name])) == 0
    for name in ("y", "saliency/x"):
        np.testing.assert_allclose(least[name], known[name], rtol=1e-12)


def test_what_is_nearer_to_the_truth_than_the_model_is_certified(
    alone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says beta, the model itself something beside it: by more where inputs are large.

    What is as far off as was refused before still is, and errors of gradients are.
    """
    x = np.random.default_rng(0).normal(size=(6, 3, 1)).astype(np.float32)
    probes = [pg.InputGradient(target=(1, 0)), pg.Activations("norm")]
    place = pg.compile(alone, probes, tmp_path / "m.onnx").path
    assert pg.verify(place, alone).passed
    told = reference(alone, *probes)
    for error in (3e-4, -3e-4):
        kind = type(told)
        predict = kind.predictions
        moved = lambda *a, _e=error, _p=predict, **k: [  # noqa: E731
            {n: v + _e for n, v in one.items()} for one in _p(*a, **k)
        ]
        with monkeypatch.context() as planted:
            planted.setattr(kind, "predictions", moved)
            with pytest.raises(VerificationError, match="'norm'"):
                pg.verify(place, alone, x)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Units that large samples open, in pairs whose weights cancel to a part in 100,000.

    TensorFlow rounds the gradient there by some thousandths, and alike at all inputs.
    """
    x = keras.Input((7,), name="x")
    open_units = layers.Dense(8, activation="relu")(x)
    model = keras.Model(x, layers.Dense(3, name="y")(layers.Concatenate()([x, open_units])))
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(4, 3))
    cancelling = np.stack([1e5 * pairs, rng.normal(size=(4, 3)) - 1e5 * pairs], 1).reshape(8, 3)
    into = np.repeat(rng.normal(size=(7, 4)), 2, axis=1)
    out = np.concatenate([rng.normal(size=(7, 3)), cancelling])
    model.set_weights([into, np.full(8, -30.0), out, np.zeros(3)])
    path = tmp_path_factory.mktemp("gated") / "m.onnx"
    probes = [pg.InputGradient(target=1), pg.GradientXInput(target=1)]
    assert pg.compile(model, probes, path).report is not None
    return model, path


@pytest.mark.parametrize(
    ("rows", "factor", "limits"),
    [
        ("large values", 1.03, (3.1e-3, 0.02)),
        ("zeros", 0.99, (3e-3, 3.1e-3)),
        ("ordinary", 1.01, (3e-3, 3.1e-3)),
    ],
)
def test_small_errors_are_refused_beside_what_rounding_allows_in_hard_samples(
    gated: Any,
    rows: str,
    factor: float,
    limits: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large samples may be off by thrice what TensorFlow rounds there; the others as ever."""
    model, path = gated
    kind = type(runtime.load(path))
    run = kind.run

    def wrong(self: Any, fed: Any, *more: Any, **options: Any) -> Any:
        found = run(self, fed, *more, **options)
        (x,) = fed.values()
        largest = np.abs(x).max(axis=1)
        kinds = {"large values": largest > 90, "zeros": largest == 0}
        at = kinds.get(rows, (largest > 0) & (largest < 90))
        for name in found:
            found[name].array[at] *= factor if name == "input_gradient/x" else 1
        return found

    monkeypatch.setattr(kind, "run", wrong)
    with pytest.raises(VerificationError, match=rf"input_gradient/x' \(in sample .*{rows}") as told:
        pg.verify(path, model)
    report = told.value.report
    assert report is not None
    assert limits[0] < report["input_gradient/x"].worst_limit < limits[1]
    assert report["gradient_x_input/x"].passed


def beside_zero(factor: float) -> keras.Model:
    """Tells what is a little below 0 from 0; beside that, sigmoids in the body of a loop."""
    x = keras.Input((6, 2), name="x")
    gated = layers.GRU(3, return_sequences=True)(x)
    swish = layers.Lambda(lambda v: v * keras.ops.sigmoid(v * factor))(x)
    told = layers.Lambda(lambda v: v - keras.ops.floor(v), name="told")(swish)
    joined = layers.Flatten()(layers.Concatenate()([gated, told]))
    return keras.Model(x, layers.Dense(2, name="scores")(joined))


def test_sigmoids_that_are_exact_to_a_rounding_of_1(alone: keras.Model) -> None:
    model = beside_zero(1.0)
    x = np.full((2, 6, 2), 0.7, np.float32)
    x[1, 2, 0] = -40.0
    told = reference(model, pg.Activations("told"), pg.InputGradient(target=0))
    fine, coarse = (f({"x": x}, None) for f in (told.explanations, told.with_coarse_sigmoids))
    assert set(coarse) == set(fine)
    assert (fine["activation/told"][1, 2, 0], coarse["activation/told"][1, 2, 0]) == (1, 0)
    for name in fine:
        np.testing.assert_allclose(coarse[name][0], fine[name][0], rtol=1e-5, atol=1e-6)
    assert np.abs(coarse["scores"][1] - fine["scores"][1]).max() > 0.01
    assert reference(alone).with_coarse_sigmoids({"x": np.ones((2, 3, 1), np.float32)}, None) == {}


def test_hard_samples_that_hang_on_digits_of_a_sigmoid_refuse_nothing(tmp_path: Path) -> None:
    """onnxruntime's is 0 where TensorFlow's is 1e-19, and `t - floor(t)` 0 where it was 1."""
    keras.utils.set_random_seed(3)
    model = beside_zero(0.5)
    pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx")
    ordinary = {"x": np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32) * 80}
    with pytest.raises(VerificationError, match="scores"):
        pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx", samples=ordinary)
