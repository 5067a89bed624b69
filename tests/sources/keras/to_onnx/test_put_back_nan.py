"""What a model makes NaN of finite numbers is NaN in the artefact, whatever operator it passes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.sources.keras.to_onnx.put_back_nan import put_back_nan
from tests import reference_recurrent as reference
from tests.graph.passes.harness import onnxruntime_of, parsed

TIME, FEATURES, UNITS = 6, 5, 4
LARGE = 5.0


def _quotient(x: Any) -> Any:
    """Returns what is NaN where x is above `LARGE`, -inf where it is below -`LARGE`, and else x."""
    below, above = (ops.cast(where, "float32") for where in (x < LARGE, x > -LARGE))
    return (x * below) / (below * above)


def _branches(q: Any) -> dict[str, Any]:
    """Returns what each operator makes of the same."""
    mask = ops.abs(q[:, :, 0]) < 1.0
    bounded = ops.where(ops.isinf(q), 0.0, q)
    states = [bounded[:, step, 1:] for step in (0, 1)]
    return {
        "lstm_backwards": layers.LSTM(UNITS, return_sequences=True, go_backwards=True)(q),
        "lstm_started": layers.LSTM(UNITS, return_sequences=True)(q, initial_state=states),
        "lstm_cell": layers.LSTM(UNITS, return_state=True)(q, mask=mask)[2],
        "gru": layers.GRU(UNITS, return_sequences=True)(q),
        "gru_before": layers.GRU(UNITS, reset_after=False, return_sequences=True)(q),
        "gru_masked": layers.GRU(UNITS)(q, mask=mask),
        "rnn": layers.SimpleRNN(UNITS, activation="relu")(bounded),
        "largest": layers.GlobalMaxPooling1D()(q),
        "least": ops.min(q, axis=(1, 2), keepdims=True),
        "pooled": layers.MaxPooling1D(2)(q),
    }


def _series(rows: int) -> np.ndarray:
    """Returns series of which some hold large numbers, two of them nothing else."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, TIME, FEATURES)).astype(np.float32)
    for row, series in enumerate(x):
        for _ in range(row % 4):
            series[rng.integers(TIME), rng.integers(FEATURES)] = rng.choice([2, -2]) * LARGE
    x[0], x[4] = 2 * LARGE, -2 * LARGE * np.sign(x[4])
    return x


#: Operator -> its gates, attributes in ONNX text, and its twin in numpy.
OPERATORS: Mapping[str, tuple[int, str, Callable[..., Any]]] = {
    "LSTM": (4, "", reference.lstm),
    "GRU": (3, "", reference.gru),
    "GRU, reset after": (
        3,
        ", linear_before_reset = 1",
        functools.partial(reference.gru, linear_before_reset=1),
    ),
    "RNN": (1, ', activations = ["Relu"]', functools.partial(reference.rnn, activations=["Relu"])),
}


def _operands(gates: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = gates * UNITS
    shapes = {"w": [1, rows, FEATURES], "r": [1, rows, UNITS], "b": [1, 2 * rows]}
    return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("name", OPERATORS)
@np.errstate(invalid="ignore", over="ignore")
def test_recurrent_operators_against_their_twins(name: str, direction: str) -> None:
    gates, attributes, twin = OPERATORS[name]
    operator, weights = name.partition(",")[0], _operands(gates)
    states, results = (["h0", "c0"], "y y_h y_c") if gates == 4 else (["h0"], "y y_h")
    given = ", ".join(f"float[1, batch, {UNITS}] {state}" for state in states)
    body = f"""
        q = Div(x, one)
        {results.replace(" ", ", ")} = {operator} <
            hidden_size = {UNITS}, direction = "{direction}"{attributes}
        > (q, w, r, b, , {", ".join(states)})
    """
    inputs = f"float[time, batch, {FEATURES}] x, float[] one, {given}"
    model = parsed(body, outputs=results, inputs=inputs, **weights)
    run_before = onnxruntime_of(model)
    put_back_nan(model)
    run = onnxruntime_of(model)
    for rows in (1, 23):
        x = np.swapaxes(_series(23)[-rows:], 0, 1).copy()
        x[np.abs(x) == 2 * LARGE] = np.nan
        initial = {k: np.zeros((1, rows, UNITS), np.float32) for k in states}
        if gates > 1:  # what a rectifier makes of infinities grows from step to step
            x[:, -1][np.isnan(x[:, -1])] = np.inf
        initial[states[-1]][0, 3 % rows, 1] = np.nan
        found = run({"x": x, "one": np.ones((), np.float32), **initial})
        expected = twin(x, **weights, **initial, direction=direction)
        for value, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)
        (y, *_) = run_before({"x": x, "one": np.ones((), np.float32), **initial})
        assert np.isnan(y).sum() < np.isnan(expected[0]).sum()  # it is still needed


@np.errstate(invalid="ignore")
def test_states_where_sequences_end() -> None:
    weights = _operands(4)
    body = f"""
        q = Div(x, one)
        none, y_h, y_c = LSTM <hidden_size = {UNITS}> (q, w, r, b, lengths)
    """
    inputs = f"float[time, batch, {FEATURES}] x, float[] one, int32[batch] lengths"
    model = parsed(body, outputs="y_h y_c", inputs=inputs, **weights)
    put_back_nan(model)
    x = np.swapaxes(_series(9), 0, 1).copy()
    lengths = np.array([3, 6, 1, 6, 4, 2, 2, 5, 2], np.int32)
    x[np.abs(x) == 2 * LARGE] = np.nan
    x[2:, 8] = np.nan  # beyond its end
    found = onnxruntime_of(model)({"x": x, "one": np.ones((), np.float32), "lengths": lengths})
    for row, length in enumerate(lengths):
        _, *expected = reference.lstm(x[:length, [row]], **weights)
        for value, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(value[:, [row]], right, rtol=1e-4, atol=1e-5)
    assert np.isnan(found[1]).any()
    assert np.isfinite(found[1][0, 8]).all()


def test_results_are_nan_where_those_of_keras_are(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input((TIME, FEATURES))
    model = keras.Model(x, _branches(_quotient(x)))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    pg.compile(model, [], tmp_path / "m.onnx", verify=False)
    artefact = runtime.load(tmp_path / "m.onnx")
    for rows in (1, 61):
        series = _series(61)[-rows:]
        found, expected = artefact.run(series), model(series)
        for name in expected:
            value = np.asarray(expected[name])
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
            none = np.isnan(value).any(axis=tuple(range(1, value.ndim)))
            assert rows == 1 or none.any() == (name != "pooled"), name
            assert not none.all(), name


def test_a_sample_of_zeros(tmp_path: Path) -> None:
    """Its shares are 0/0. The file was refused; where no sample told, it gave a number."""
    keras.utils.set_random_seed(1)
    x = keras.Input((TIME, 3))
    shares = x / ops.sum(ops.abs(x), axis=(1, 2), keepdims=True)
    model = keras.Model(x, layers.Dense(2)(layers.GRU(UNITS)(shares)))
    probes = [pg.Saliency(target=1), pg.DeepLIFT(target=1, baseline=0.1)]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert exported.report.outputs[model.output_names[0]].non_finite
    series = _series(9)[7:, :, :3] * np.array([0, 1], np.float32)[:, None, None]
    for value in map(np.asarray, runtime.load(tmp_path / "m.onnx").run(series).values()):
        assert np.isnan(value[0]).all()
        assert np.isfinite(value[1]).all()


@pytest.mark.parametrize(
    ("body", "is_changed"),
    [
        ("q = Div(x, z) y = ReduceMax(q, last)", True),
        ("q = Div(x, z) a = Relu(q) m = MatMul(a, w) y = ReduceMin(m, last)", True),
        ("q = Log(x) y = MaxPool<kernel_shape=[2, 2]>(q)", True),
        ("q = Add(x, endless) y = ReduceMax(q, last)", True),
        ("s = Mul(x, x) t = Sqrt(s) u = Reciprocal(t) v = Min(u, c) y = ReduceMax(v, last)", False),
        ("u = Reciprocal(x) v = Min(u, c) y = ReduceMax(v, last)", True),
        ("s = Mul(x, x) t = Add(s, c) u = Sqrt(t) q = Div(z, u) y = ReduceMax(q, last)", False),
        ("q = Div(x, z) m = ReduceMax(x, last) y = Add(q, m)", False),
        ("a = Softmax(x) y = MaxPool<kernel_shape=[2, 2]>(a)", False),
    ],
)
def test_only_what_may_be_nan_costs_anything(body: str, is_changed: bool) -> None:
    constants = {"c": np.float32(1e-3), "last": np.array([3]), "endless": np.float32(np.inf)}
    model = parsed(body, w=np.ones((5, 2), np.float32), **constants)
    before = [node.op_type for node in model.graph]
    put_back_nan(model)
    assert ([node.op_type for node in model.graph] != before) == is_changed


def test_in_a_body_all_is_under_suspicion() -> None:
    body = """
        yes = Less(one, c)
        q = If (yes) <
            then_branch = a () => (float[batch, 16, 6, 5] q1) { q1 = Div(x, z) },
            else_branch = b () => (float[batch, 16, 6, 5] q2) { q2 = Identity(x) }
        >
        y = ReduceMax(q, last)
    """
    constants = {"c": np.float32(2), "one": np.ones((), np.float32), "last": np.array([3])}
    model = parsed(body, **constants)
    put_back_nan(model)
    x = np.ones((2, 16, 6, 5), np.float32)
    z = np.array(x)
    x[0, 1, 2, 3] = z[0, 1, 2, 3] = 0
    (found,) = onnxruntime_of(model)({"x": x, "z": z})
    assert np.isnan(found[0, 1, 2]).all()
    assert np.isnan(found).sum() == 1
