"""A time series: a convolutional recurrent network forecasts next year's sunspots.

    python examples/demo_sunspots.py

The data are the yearly sunspot numbers from 1700 to 2008 that statsmodels ships. The network
sees 33 years, some three cycles of the sun, and forecasts the next one. The artefact answers
with the forecast, with what convolution and LSTM make of the window, and with the gradient of
the forecast: which past years drove it, and in which direction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
import statsmodels.api as sm
from keras import layers
from matplotlib.figure import Figure

import probegen as pg
from probegen import runtime

NAME = "sunspots"
EPOCHS = 60
BATCH = 32
WINDOW = 33
CYCLE = 11
FIRST_TEST_YEAR = 1950

PROBES = [
    pg.Activations(["conv", "lstm"]),
    pg.InputGradient(target=0),
    pg.Saliency(target=0),
]


class Data(NamedTuple):
    """Windows float32 `[n, 33, 1]`, the numbers that follow `[n]`, and the years of these `[n]`.

    Sunspot numbers are given in hundreds. Test years begin where training years end.
    """

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any
    test_years: Any


def load_data() -> Data:
    """Returns the windows whose forecast is for 1733 to 1949, and for 1950 to 2008."""
    table = sm.datasets.sunspots.load_pandas().data
    numbers = table["SUNACTIVITY"].to_numpy("float32") / 100
    years = table["YEAR"].to_numpy("int64")[WINDOW:]
    windows = np.lib.stride_tricks.sliding_window_view(numbers, WINDOW)[:-1, :, np.newaxis]
    test = years >= FIRST_TEST_YEAR
    following = numbers[WINDOW:]
    return Data(windows[~test], following[~test], windows[test], following[test], years[test])


def build_model() -> keras.Model:
    """Returns the untrained network: window `[33, 1]` to one number."""
    return keras.Sequential(
        [
            keras.Input((WINDOW, 1), name="window"),
            layers.Conv1D(16, 3, padding="causal", activation="relu", name="conv"),
            layers.LSTM(16, name="lstm"),
            layers.Dense(1, name="forecast"),
        ],
        name=NAME,
    )


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place; about six seconds on two cores."""
    rate = _common.falling(3e-3, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "mse")
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(NAME, "Sunspots", "Which past years drove this forecast?", out)
    data = load_data()
    model = build_model()
    with _common.training("train Conv1D and LSTM", epochs) as bar:
        train(model, data, epochs, [bar])
    judge(model.predict_on_batch(data.x_test)[:, 0], data)

    model.save(folder / "model.keras")
    with _common.step("instrument"):
        probed = pg.instrument(model, PROBES)
    samples = data.x_test[:64]
    with _common.step("export to ONNX and verify"):
        onnx = pg.export(probed, folder / "sunspots.onnx", samples=samples)
    with _common.step("export to SavedModel and verify"):
        saved = pg.export(probed, folder / "sunspots_saved", samples=samples)
    with _common.step("run and draw"):
        draw(runtime.load(onnx.path), data, folder)
    _common.closing_table(folder, ONNX=onnx, SavedModel=saved)
    return folder


def judge(forecasts: Any, data: Data) -> None:
    """Prints the mean absolute error of the forecasts beside that of two naive ones."""
    errors = {
        "the model": forecasts,
        "as the year before": data.x_test[:, -1, 0],
        f"as {CYCLE} years before": data.x_test[:, -CYCLE, 0],
    }
    said = (f"{who}: {100 * np.abs(y - data.y_test).mean():.1f}" for who, y in errors.items())
    first, last = data.test_years[[0, -1]]
    _common.fact(f"mean error {first} to {last}, in sunspots: " + "; ".join(said))


def draw(artefact: runtime.Artefact, data: Data, folder: Path) -> None:
    """Draws the forecasts, and what drove that for the year with the most sunspots."""
    result = artefact.run(data.x_test)
    forecasts = result["forecast"].array[:, 0]
    chosen = int(data.y_test.argmax())
    year = data.test_years[chosen]
    past = np.arange(year - WINDOW, year)
    figure = draw_forecasts(forecasts, data, chosen, result["input_gradient/window"].array)
    figure.savefig(folder / "forecasts.png", dpi=150)

    for name in ("activation/conv", "activation/lstm", "saliency/window", "input_gradient/window"):
        picture = folder / f"{name.replace('/', '_')}_{year}.png"
        result[name].plot(chosen, time=past).savefig(picture)
    result.plot(folder / "overview.png", sample=chosen, time=past)
    report = artefact.run(data.x_test[[chosen]])
    report.to_html(folder / "report.html", title=f"The forecast for {year}", time=past)


def draw_forecasts(forecasts: Any, data: Data, chosen: int, gradients: Any) -> Figure:
    """Draws all forecasts against the truth, and below what drove the chosen one.

    Args:
        forecasts: `[n]`, in hundreds of sunspots.
        data: what was forecast.
        chosen: the row to explain.
        gradients: d forecast / d window, `[n, 33, 1]`.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 2))
    years, year = data.test_years, data.test_years[chosen]
    past = np.arange(year - WINDOW, year)

    above.plot(years, 100 * data.y_test, color="black", label="observed")
    above.plot(years, 100 * forecasts, color="#0072b2", label="forecast")
    last = 100 * data.x_test[:, -1, 0]
    above.plot(years, last, color="0.6", ls=":", label="naive: as the year before")
    above.plot(year, 100 * forecasts[chosen], "o", color="#d55e00", label=f"forecast for {year}")
    above.set(title="Sunspots of a year, forecast from the 33 before", ylabel="sunspot number")
    above.set_ylim(top=1.25 * above.get_ylim()[1])
    above.legend(frameon=False, ncols=4, loc="upper center")

    effect = gradients[chosen, :, 0]
    below.bar(past, effect, color=np.where(effect > 0, "#b2182b", "#2166ac"))
    below.axhline(0, color="0.3", lw=0.8)
    below.set(
        title=f"What drove the forecast for {year}",
        xlabel="year",
        ylabel="change of the forecast\nfor one sunspot more (bars)",
    )
    seen = below.twinx()
    seen.plot(past, 100 * data.x_test[chosen, :, 0], color="0.4", lw=1)
    seen.set_ylabel("sunspot number (line)")
    return figure


if __name__ == "__main__":
    main()
