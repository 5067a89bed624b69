"""Images: a small CNN reads handwritten digits, and shows what it looked at.

    python examples/demo_digits.py

The data are the 1797 digits of 8 x 8 pixels that scikit-learn ships. The artefact answers with
the class, the feature maps of every convolution, and three attributions of the class that a
request names: the raw gradient, its magnitude (saliency), and Grad-CAM.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import probegen as pg
from probegen import runtime

NAME = "digits"
EPOCHS = 20
BATCH = 32
CLASS_NAMES = tuple("0123456789")

PROBES = [
    pg.Activations("type:Conv2D"),
    pg.InputGradient(target="input"),
    pg.Saliency(target="input"),
    pg.GradCAM(target="input"),
]


class Data(NamedTuple):
    """Images float32 `[n, 8, 8, 1]` in 0..1 and labels int32 `[n]`, split once and for all."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any


def load_data() -> Data:
    """Returns 1437 digits to train with and 360 to test with, every class in its proportion."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype("float32")
    labels = digits.target.astype("int32")
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    return Data(x_train, y_train, x_test, y_test)


def build_model() -> keras.Model:
    """Returns the untrained network: image `[8, 8, 1]` to ten class probabilities."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv3"),
            layers.GlobalAveragePooling2D(name="average"),
            layers.Dropout(0.2, name="dropout"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name=NAME,
    )


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place; about five seconds on two cores."""
    rate = _common.falling(2e-3, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Digits", "Which pixels make this digit an 8, and which would make it a 1?", out
    )
    data = load_data()
    model = build_model()
    with _common.training("train a CNN", epochs) as bar:
        train(model, data, epochs, [bar])
    probabilities = model.predict_on_batch(data.x_test)
    correct = probabilities.argmax(-1) == data.y_test
    _common.fact(f"{correct.mean():.1%} of {len(correct)} held-out digits are read correctly")

    model.save(folder / "model.keras")
    with _common.step("instrument"):
        probed = pg.instrument(model, PROBES, class_names=CLASS_NAMES)
    samples = data.x_test[:64]
    with _common.step("export to ONNX and verify"):
        onnx = pg.export(probed, folder / "digits.onnx", samples=samples)
    with _common.step("export to SavedModel and verify"):
        saved = pg.export(probed, folder / "digits_saved", samples=samples)
    with _common.step("run and draw"):
        draw(runtime.load(onnx.path), data, probabilities, folder)
    _common.closing_table(folder, ONNX=onnx, SavedModel=saved)
    return folder


def draw(artefact: runtime.Artefact, data: Data, probabilities: Any, folder: Path) -> None:
    """Draws three easy digits, and the hardest one as what it is and as what it may be."""
    easy = [int(np.flatnonzero(data.y_test == digit)[0]) for digit in (0, 3, 7)]
    result = artefact.run(data.x_test[easy])  # no target: explains each row's best class
    for layer in ("conv1", "conv2", "conv3"):
        result[f"activation/{layer}"].plot().savefig(folder / f"feature_maps_{layer}.png")
    for row, digit in enumerate(data.y_test[easy]):
        result["saliency/image"].plot(row).savefig(folder / f"saliency_{digit}.png")
        result["grad_cam/conv3"].plot(row).savefig(folder / f"grad_cam_{digit}.png")

    chances = probabilities.copy()
    rows = np.arange(len(chances))
    hardest = int(chances[rows, data.y_test].argmin())
    truth = int(data.y_test[hardest])
    chances[rows, data.y_test] = 0
    rival = int(chances[hardest].argmax())
    twice = artefact.run(data.x_test[[hardest, hardest]], target=[truth, rival])
    for row, digit in enumerate((truth, rival)):
        picture = folder / f"hardest_{truth}_as_{digit}.png"
        twice["input_gradient/image"].plot(row).savefig(picture)

    result.plot(folder / "overview.png", sample=1)
    twice.to_html(folder / "report.html", title=f"The hardest digit: {truth} or {rival}?")


if __name__ == "__main__":
    main()
