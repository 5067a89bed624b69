"""Forecasts beside the past: the right numbers at the right dates, and what came of them."""

import numpy as np
import pytest
from matplotlib.dates import date2num

from probegen.artefact.features import Feature
from probegen.artefact.manifest import TargetSpec
from probegen.errors import InputError
from tests.runtime.figures import axes_of, says, texts_of
from tests.runtime.support import result_of

RNG = np.random.default_rng(23)
SERIES = ("batch", "time", "feature")
FEATURES = (Feature("wind", "m/s"), Feature("load", "MW"), Feature("price"))
X = RNG.normal(size=(2, 6, 3))
DAYS = np.arange("2024-02-26", "2024-03-03", dtype="datetime64[D]")


def forecast_of(prediction, axes, features=FEATURES):
    more = {"input": "x", "target": TargetSpec("index", (0,), "y"), "sign": "signed", "draw": "map"}
    return result_of(
        {"x": (X[..., : len(features)], SERIES, {"features": features})},
        {
            "y": (prediction, "prediction", ("batch", *axes), {}),
            "it": (np.ones((2, 6, len(features))), "it", SERIES, more),
        },
    )


def lines_of(figure, name):
    """The lines of the panel that is called so, by their label."""
    (ax,) = [ax for ax in axes_of(figure) if ax.get_ylabel() == name]
    return {line.get_label(): line for line in ax.lines}


@pytest.mark.parametrize("record", ["y", "it"])
@pytest.mark.parametrize(
    ("shape", "axes", "forecast", "rows"),
    [
        ((2, 4, 1), ("step", "unit"), "load", {"load [MW]": lambda y: y[:, 0]}),
        ((2, 4), ("class",), 1, {"load [MW]": lambda y: y}),
        ((2, 4), ("step",), "load [MW]", {"load [MW]": lambda y: y}),
        (
            (2, 4, 2), ("step", "unit"), ["price", "wind"],
            {"price": lambda y: y[:, 0], "wind [m/s]": lambda y: y[:, 1]},
        ),
        ((2, 3), ("unit",), True, {"load [MW]": lambda y: y[1:2], "price": lambda y: y[2:]}),
    ],
)  # fmt: skip
def test_forecast_and_truth_behind_the_past(record, shape, axes, forecast, rows):
    y, truth = RNG.normal(size=shape), RNG.normal(size=shape)
    figure = forecast_of(y, axes)[record].plot(sample=1, forecast=forecast, truth=truth, time=DAYS)
    names = [feature.label for feature in FEATURES]
    for name, row in rows.items():
        lines = lines_of(figure, name)
        np.testing.assert_allclose(lines["past"].get_ydata(), X[1, :, names.index(name)])
        np.testing.assert_allclose(lines["forecast"].get_ydata(), row(y[1]), rtol=1e-6)
        np.testing.assert_allclose(lines["true"].get_ydata(), row(truth[1]))
        days = DAYS[-1] + np.arange(1, len(row(y[1])) + 1)
        np.testing.assert_allclose(lines["forecast"].get_xdata(), date2num(days))
    if record == "y":
        assert says(figure, f"mean absolute error {np.abs(y[1] - truth[1]).mean():.3g}")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (np.arange("2023-08", "2024-02", dtype="datetime64[M]"), ["2024-02-01", "2024-03-01"]),
        (
            np.arange("2023-08", "2024-02", dtype="datetime64[M]").astype("datetime64[D]") + 14,
            ["2024-02-15", "2024-03-15"],
        ),
        (
            np.arange("2024-03-01T20", "2024-03-02T02", dtype="datetime64[h]"),
            ["2024-03-02T02", "2024-03-02T03"],
        ),
        (
            {"x": DAYS, "y": np.array(["2024-04-01", "2024-05-09"], "M8[D]")},
            ["2024-04-01", "2024-05-09"],
        ),
        (np.arange(1990, 1996), [1996, 1997]),
        ({"x": list("abcdef"), "y": ["g", "h"]}, [6, 7]),
        ({"x": np.arange(6), "y": [[6, 8], [7, 9]]}, [6, 8]),
        (None, [6, 7]),
    ],
)  # fmt: skip
def test_where_the_steps_of_a_forecast_lie(time, expected):
    figure = forecast_of(np.ones((2, 2)), ("step",))["y"].plot(forecast="wind", time=time)
    where = lines_of(figure, "wind [m/s]")["forecast"].get_xdata()
    if isinstance(expected[0], str):
        expected = date2num(np.array(expected, "M8[m]"))
    np.testing.assert_allclose(where, expected)


def test_predicted_against_true_without_a_past():
    y, truth = RNG.normal(size=(2, 5, 2)), RNG.normal(size=(2, 5, 2))
    figure = forecast_of(y, ("step", "unit"))["y"].plot(sample=1, truth={"y": truth})
    (ax,) = axes_of(figure)
    drawn = [line.get_ydata() for line in ax.lines]
    np.testing.assert_allclose(drawn, [*y[1].T, *truth[1].T], rtol=1e-6)
    assert "true" in texts_of(figure)


def test_units_of_the_artefact_and_of_the_caller():
    result = forecast_of(np.ones((2, 2)), ("step",))
    assert {"wind [m/s]", "load [MW]", "price"} <= set(texts_of(result["it"].plot()))
    figure = result["it"].plot(feature_names=["a", ("b", "kg"), "c [%]"])
    assert {"a", "b [kg]", "c [%]"} <= set(texts_of(figure))


@pytest.mark.parametrize(
    ("options", "says_"),
    [
        ({"forecast": "lod"}, r"'lod' is no feature of 'x', which has 3\. Did you mean 'load'"),
        ({"forecast": [1, "load"]}, r"\[1, 'load'\] names a feature twice"),
        ({"forecast": True}, "forecast= names 3 features, and the prediction 'y' holds 1"),
        ({"forecast": "load", "truth": np.ones((2, 3))}, r"truth has the shape \(2, 3\)"),
        ({"truth": {"z": 1}}, "truth has the key 'z', which is no prediction"),
        ({"time": np.ones((3, 6))}, "time has rows for 3 samples of a batch of 2"),
        ({"time": {"x": np.ones((1, 6))}}, "time of 'x' has rows for 1 samples of a batch of 2"),
        ({"time": {"x": range(5)}}, "time of 'x' has 5 entries.*there are inputs of 6"),
        (
            {"forecast": "load", "time": {"y": range(3)}},
            "time of 'y' has 3 entries, and the forecast has 4 steps",
        ),
        ({"time": [[1, 2], [3]]}, "time holds lists of several lengths"),
    ],
)
def test_what_is_refused(options, says_):
    with pytest.raises(InputError, match=says_):
        forecast_of(np.ones((2, 4)), ("step",))["y"].plot(**options)


def test_a_forecast_of_what_is_no_series():
    x = np.ones((1, 3))
    outputs = {"y": (x, "prediction", ("batch", "class"), {})}
    with pytest.raises(InputError, match="forecast= is for a series"):
        result_of({"x": (x, ("batch", "feature"), {})}, outputs)["y"].plot(forecast=True)
