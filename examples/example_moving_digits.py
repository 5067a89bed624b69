"""Films: a ConvLSTM sees a digit move and draws the next frame.

    python examples/example_moving_digits.py

Handwritten digits of scikit-learn move over a field and bounce off its borders, as in Moving MNIST
(Srivastava et al. 2015). Two ConvLSTM layers see the frames, of any number, and predict the next
one. The artefact answers with it, with the states of the first layer over time, and with an
explanation of the part of the predicted frame that the request points at (`region`): which pixels
of which frames does the network draw this part from?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import probegen as pg
from probegen import runtime

NAME = "moving_digits"
EPOCHS = 4
BATCH = 8
FIELD, FRAMES = 16, 5
TRAINED, TESTED = 1200, 100


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Films float32 `[n, 5, 16, 16, 1]` of pixels from 0 to 1, and their next frames."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any


def load_data() -> Data:
    """Returns films; the digits of the test films move in no training film."""
    images = (load_digits().images / 16).astype("float32")
    random = np.random.default_rng(0)
    order = random.permutation(len(images))
    tested, trained = images[order[:200]], images[order[200:]]
    train = films(trained, TRAINED, random)
    test = films(tested, TESTED, random)
    return Data(train[:, :-1], train[:, -1], test[:, :-1], test[:, -1])


def films(images: Any, count: int, random: np.random.Generator) -> Any:
    """Returns films of one more frame than the network sees, `[count, 6, 16, 16, 1]`.

    Args:
        images: digits `[n, 8, 8]`.
        count: how many films.
        random: what chooses digits, places and directions; none stands still.
    """
    made = np.zeros((count, FRAMES + 1, FIELD, FIELD, 1), "float32")
    size = images.shape[1]
    for film in made:
        digit = images[random.integers(len(images))]
        place = random.integers(0, FIELD - size + 1, 2)
        speed = np.zeros(2, int)
        while not speed.any():
            speed = random.integers(-1, 2, 2)
        for frame in film:
            y, x = place
            frame[y : y + size, x : x + size, 0] = digit
            speed = np.where((place + speed < 0) | (place + speed > FIELD - size), -speed, speed)
            place = place + speed
    return made


# -- model -------------------------------------------------------------------------------------


def build_model(filters: int = 10) -> keras.Model:
    """Returns the untrained network: frames `[time, 16, 16, 1]`, any number, to the next frame."""
    film = keras.Input((None, FIELD, FIELD, 1), name="film")
    x = layers.ConvLSTM2D(filters, 3, padding="same", return_sequences=True, name="motion")(film)
    x = layers.ConvLSTM2D(filters, 3, padding="same", name="place")(x)
    frame = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="next")(x)
    return keras.Model(film, frame, name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place."""
    rate = _common.falling(1e-2, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", jit_compile=False)
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------

PROBES = [
    # The sum of the pixels of the next frame, each with the weight that the request gives it.
    pg.GradientXInput(target=(None, None, 0), region="input"),
    pg.States("motion"),
]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Moving digits", "Which pixels of which frames is the next frame drawn from?", out
    )
    data = load_data()
    model = build_model()
    with _common.training("train two ConvLSTM layers", epochs) as bar:
        train(model, data, epochs, [bar])
    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(model, PROBES, folder / "moving_digits.onnx", samples=data.x_test[:3])
    artefact = runtime.load(onnx.path)
    judge(artefact, data)
    with _common.step("draw"):
        draw(artefact, data, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def judge(artefact: runtime.Artefact, data: Data) -> None:
    """Prints the mean squared error beside that of a film that stands still."""
    drawn = artefact.run(data.x_test, explain=False)["next"].array
    error, still = (((x - data.y_test) ** 2).mean() for x in (drawn, data.x_test[:, -1]))
    _common.fact(
        f"next frames of digits never seen: squared error {error:.4f}, {still:.4f} for the last "
        "frame again"
    )


def draw(artefact: runtime.Artefact, data: Data, folder: Path) -> None:
    """Draws two films with what the lower half of their next digit is drawn from."""
    rows = np.arange(len(data.x_test))[:2]
    films, drawn = data.x_test[rows], artefact.run(data.x_test[rows], explain=False)["next"].array
    region = np.stack([lower_half(frame[..., 0]) for frame in drawn])
    result = artefact.run(films, region=region)
    for row in range(len(rows)):
        figure = draw_film(result, row, data.y_test[rows[row]], region[row])
        figure.savefig(folder / f"film_{row}.png", dpi=120)
    result["states/motion"].plot().savefig(folder / "states.png")
    result.to_html(folder / "report.html", title="Moving digits", samples=len(rows))


def lower_half(frame: Any) -> Any:
    """Returns 1 where a predicted digit's lower half is and 0 elsewhere, `[16, 16]`."""
    middle = np.average(np.arange(FIELD), weights=frame.sum(1))
    rows = np.arange(FIELD)[:, None] > middle
    return ((frame > 0.2) & rows).astype("float32")


def draw_film(result: runtime.Result, row: int, truth: Any, region: Any) -> Figure:
    """Draws a film, the true next frame and the predicted one; below, what it was drawn from."""
    film = result.run.inputs["film"][row, ..., 0]
    said = result["gradient_x_input/film"].array[row, ..., 0]
    drawn = result["next"].array[row, ..., 0]
    figure = Figure(figsize=(1.5 * (len(film) + 2), 3.6), layout="constrained")
    axes = figure.subplots(2, len(film) + 2)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    largest = float(np.abs(said).max())
    titles = [f"frame {i}" for i in range(len(film))]
    for ax, frame, title in zip(
        axes[0], [*film, truth[..., 0], drawn], [*titles, "what followed", "predicted"], strict=True
    ):
        ax.imshow(frame, cmap="Greys", vmin=0, vmax=1)
        ax.set_title(title, fontsize=9)
    for ax, heat in zip(axes[1], said, strict=False):
        ax.imshow(heat, cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes[1, 0].set_ylabel("what drew it")
    axes[1, -2].axis("off")
    axes[1, -1].imshow(drawn * region, cmap="Greys", vmin=0, vmax=1)
    axes[1, -1].set_xlabel("the part explained", fontsize=9)
    return figure


if __name__ == "__main__":
    main()
