"""A multivariate forecast: unemployment of the year ahead, and what it was made of.

    python examples/example_forecast.py

The data are the quarterly figures of the economy of the United States, 1959 to 2009, that
statsmodels ships. The network sees three years of five of them and forecasts how far unemployment
will have moved one, two, three and four quarters later. The artefact answers with the four numbers
and with a map for each of them: which figure of which quarter drove it, and in which direction.

Nothing here predicts a crisis. The last years, from 1994 on, were not trained with, and the error
is printed beside that of saying "as it is now".
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

NAME = "forecast"
EPOCHS = 30
BATCH = 16
PAST, AHEAD = 12, 4
#: The first quarter that is forecast from and was not trained with.
FIRST_TEST = np.datetime64("1994-01")

FEATURES = (
    "unemployment, %",
    "GDP growth, %",
    "investment growth, %",
    "inflation, %",
    "3-month interest, %",
)


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Windows and what followed them.

    Attributes:
        x_train, x_test: the figures of 12 quarters, float32 `[n, 12, 5]`, growth in percent a year.
        y_train, y_test: unemployment 1 to 4 quarters later less that of the last quarter in the
            window, in percentage points, float32 `[n, 4, 1]`.
        quarters: the quarters of the whole table, dates `[quarter]`.
        table: its figures, float32 `[quarter, 5]`.
        last: for each test window the place of its last quarter in the table, `[n]`.
    """

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any
    quarters: Any
    table: Any
    last: Any


def load_data() -> Data:
    """Returns the windows whose last quarter lies before 1994, and those from then on.

    No quarter that a training window is to forecast lies in the test years.
    """
    raw = sm.datasets.macrodata.load_pandas().data
    quarters = np.array(
        [f"{int(y)}-{3 * int(q) - 2:02}" for y, q in zip(raw.year, raw.quarter, strict=True)],
        "datetime64[M]",
    )

    def growth(name: str) -> Any:
        return 400 * np.diff(np.log(raw[name].to_numpy()), prepend=np.nan)

    columns = (raw.unemp, growth("realgdp"), growth("realinv"), raw.infl, raw.tbilrate)
    table = np.stack([np.asarray(c, "float32") for c in columns], -1)[1:]
    quarters = quarters[1:]
    last = np.arange(PAST - 1, len(table) - AHEAD)
    x = np.stack([table[i - PAST + 1 : i + 1] for i in last])
    y = np.stack([table[i + 1 : i + 1 + AHEAD, :1] - table[i, 0] for i in last])
    test = quarters[last] >= FIRST_TEST
    train = quarters[last + AHEAD] < FIRST_TEST
    return Data(x[train], y[train], x[test], y[test], quarters, table, last[test])


# -- model -------------------------------------------------------------------------------------


def build_model(x: Any, width: int = 16) -> keras.Model:
    """Returns the untrained network: `[time, 5]`, any length, to `[4, 1]`.

    A GRU reads the past; a second one writes the four quarters, starting from what was read.

    Args:
        x: what the figures are scaled by.
        width: units of both.
    """
    figures = keras.Input((None, len(FEATURES)), name="figures")
    scale = layers.Normalization(mean=x.mean((0, 1)), variance=x.var((0, 1)), name="scale")
    state = layers.GRU(width, name="reader")(scale(figures))
    state = layers.Dropout(0.2, name="dropout")(state)
    quarters = layers.RepeatVector(AHEAD, name="ahead")(state)
    quarters = layers.GRU(width, return_sequences=True, name="writer")(quarters)
    return keras.Model(figures, layers.Dense(1, name="change")(quarters), name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place."""
    rate = _common.falling(5e-3, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-2), "huber")
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------


def probes(data: Data) -> list[Any]:
    """Returns what is asked for; ("steps", 0): a map for each quarter ahead, by itself."""
    usual = data.x_train.mean((0, 1), keepdims=True)[0]
    return [
        pg.IntegratedGradients(target=("steps", 0), baseline=usual, steps=16),
        pg.States("reader"),
    ]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Forecast", "Which figures of which quarter made this forecast?", out
    )
    data = load_data()
    model = build_model(data.x_train)
    with _common.training("train two GRUs", epochs) as bar:
        train(model, data, epochs, [bar])
    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(model, probes(data), folder / "forecast.onnx", samples=data.x_test[::4])
    artefact = runtime.load(onnx.path)
    judge(artefact, data)
    with _common.step("draw"):
        draw(artefact, data, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def judge(artefact: runtime.Artefact, data: Data) -> None:
    """Prints the mean absolute error beside that of a forecast that nothing will change."""
    forecasts = artefact.run(data.x_test, explain=False)["change"].array
    errors = np.abs(forecasts - data.y_test).mean((0, 2))
    naive = np.abs(data.y_test).mean((0, 2))
    for ahead, (error, other) in enumerate(zip(errors, naive, strict=True), 1):
        _common.fact(
            f"{ahead} quarters ahead, mean error from 1994 on: {error:.2f} points, "
            f"{other:.2f} for no change"
        )


def draw(artefact: runtime.Artefact, data: Data, folder: Path) -> None:
    """Draws the forecasts made in mid 2008 and what they were made of."""
    chosen = int(np.searchsorted(data.quarters[data.last], np.datetime64("2008-07")))
    window = data.x_test[[chosen]]
    last = data.last[chosen]
    past = data.quarters[last - PAST + 1 : last + 1]
    result = artefact.run(window)
    labels: Any = {"feature_names": FEATURES, "time": past}

    figure = draw_forecasts(artefact.run(data.x_test, explain=False)["change"].array, data, chosen)
    figure.savefig(folder / "forecasts.png", dpi=150)
    record = result["integrated_gradients/figures"]
    for ahead in (1, AHEAD):
        figure = record.of_step(ahead - 1).plot(**labels)
        figure.savefig(folder / f"made_of_{ahead}_ahead.png", dpi=150)
    shares = zip(FEATURES, record.array[0, -1].sum(0), strict=True)
    said = ", ".join(f"{name.partition(',')[0]} {share:+.2f}" for name, share in shares)
    change = result["change"].array[0, -1, 0]
    _common.fact(f"the year after {past[-1]}: {change:+.2f} points; more than usual by {said}")
    result["states/reader"].plot(time=past).savefig(folder / "states.png", dpi=150)
    title = f"Unemployment after {past[-1]}"
    result.to_html(folder / "report.html", title=title, **labels)


def draw_forecasts(changes: Any, data: Data, chosen: int) -> Figure:
    """Draws what was, and the forecasts made in some quarters, the chosen one in colour.

    Args:
        changes: what is forecast, `[n, 4, 1]`.
        data: what was.
        chosen: a row of the test windows.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    start = data.last[0] - PAST
    ax.plot(data.quarters[start:], data.table[start:, 0], color="black", label="observed")
    for row in sorted({*range(chosen % AHEAD, len(changes), AHEAD), chosen}):
        last = data.last[row]
        level = data.table[last, 0] + np.concatenate([[0.0], changes[row, :, 0]])
        colour = "#d55e00" if row == chosen else "#0072b2"
        label = {chosen: f"forecast made after {data.quarters[last]}", chosen % AHEAD: "forecasts"}
        ax.plot(
            data.quarters[last : last + AHEAD + 1], level, ".-",
            color=colour, ms=4, lw=1, label=label.get(row),
        )  # fmt: skip
    ax.set(title="Unemployment, and forecasts of the four quarters ahead", ylabel=FEATURES[0])
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
