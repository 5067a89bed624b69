"""Forecasts beside the past: the right numbers at the right dates, and what came of them."""

import dataclasses

import numpy as np
import pytest
from matplotlib.dates import date2num

from probegen.artefact.features import Feature
from probegen.artefact.manifest import TargetSpec
from probegen.errors import InputError
from probegen.runtime.result import Result
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
        ({"y": [8, 9]}, [8, 9]),  # behind steps that are counted from 0
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


def test_the_past_keeps_its_dates_where_the_forecast_is_as_long():
    later = DAYS + 40
    result = forecast_of(np.ones((2, 6)), ("step",))
    for record in ("y", "it"):
        figure = result[record].plot(forecast="wind", time={"x": DAYS, "y": later})
        lines = lines_of(figure, "wind [m/s]")
        np.testing.assert_allclose(lines["past"].get_xdata(), date2num(DAYS))
        np.testing.assert_allclose(lines["forecast"].get_xdata(), date2num(later))


def test_dates_of_the_run_and_of_the_plot_go_together():
    """What the run was told of the past is not forgotten where the plot says the rest."""
    result = forecast_of(np.ones((2, 2)), ("step",))
    later = np.array(["2024-04-01", "2024-05-09"], "M8[D]")
    for given in (DAYS, {"x": DAYS}):
        told = result_with_time(result, given)
        lines = lines_of(told["y"].plot(forecast="wind", time={"y": later}), "wind [m/s]")
        np.testing.assert_allclose(lines["past"].get_xdata(), date2num(DAYS))
        np.testing.assert_allclose(lines["forecast"].get_xdata(), date2num(later))


def result_with_time(result, time):
    return Result(
        dataclasses.replace(result.run, time=time), {n: r.array for n, r in result.items()}
    )


def test_texts_of_the_past_and_of_the_forecast_stand_on_one_axis():
    result = forecast_of(np.ones((2, 2)), ("step",))
    for record in ("y", "it"):
        figure = result[record].plot(
            forecast="wind", time={"x": list("abcdef"), "y": ["later", "last"]}
        )
        shown = [t.get_text() for ax in figure.axes for t in ax.get_xticklabels()]
        assert {"a", "f", "later", "last"} <= set(shown)


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
        ({"time": {"x": np.ones((1, 6))}}, "time of 'x' has rows for 1 sample of a batch of 2"),
        ({"time": {"x": range(5)}}, "time of 'x' has 5 entries.*there are inputs of 6"),
        (
            {"forecast": "load", "time": {"y": range(3)}},
            "time of 'y' has 3 entries, and the forecast has 4 steps",
        ),
        (
            {"forecast": "load", "time": {"y": DAYS[:4]}},
            "time of 'y' holds dates, and of the past of 'x' it holds nothing",
        ),
        (
            {"forecast": "load", "time": {"x": DAYS, "y": range(4)}},
            "time of 'y' holds numbers, and of the past of 'x' it holds dates",
        ),
        (
            {"forecast": "load", "time": {"x": range(6), "y": list("abcd")}},
            "time of 'y' holds text, and of the past of 'x' it holds numbers",
        ),
        ({"time": {"y": range(3)}}, "time of 'y' has 3 entries, and it has 4 steps"),
        (
            {"forecast": "load", "truth": np.ones((3, 4))},
            r"truth has 3 samples, and the batch 2; .* \(2, 4\), or that of the sample drawn",
        ),
        ({"truth": np.ones((1, 4))}, "truth has 1 sample, and the batch 2"),
        ({"truth": {"y": np.ones((3, 4, 1))}}, "truth has 3 samples, and the batch 2"),
        (
            {"truth": np.ones(4), "sample": [0, 1]},
            r"truth is that of one sample, and 2 samples are drawn; .* \(2, 4\)",
        ),
        ({"time": [[1, 2], [3]]}, "time holds lists of several lengths"),
    ],
)
def test_what_is_refused(options, says_):
    with pytest.raises(InputError, match=says_):
        forecast_of(np.ones((2, 4)), ("step",))["y"].plot(**options)


def test_a_report_of_several_samples_takes_no_truth_of_one(tmp_path):
    result = forecast_of(np.ones((2, 4)), ("step",))
    with pytest.raises(InputError, match="truth is that of one sample, and 2 samples are drawn"):
        result.to_html(tmp_path / "r.html", forecast="load", truth=np.ones(4))
    assert not (tmp_path / "r.html").exists()
    result.to_html(tmp_path / "r.html", samples=1, forecast="load", truth=np.ones(4))


def test_a_map_says_that_it_draws_no_truth():
    y = np.ones((2, 4, 9))
    figure = forecast_of(y, ("step", "unit"))["y"].plot(truth=y)
    assert says(figure, "truth= is drawn beside lines, and not beside a map")


def test_a_forecast_of_what_is_no_series():
    x = np.ones((1, 3))
    outputs = {"y": (x, "prediction", ("batch", "class"), {})}
    with pytest.raises(InputError, match="forecast= is for a series"):
        result_of({"x": (x, ("batch", "feature"), {})}, outputs)["y"].plot(forecast=True)
