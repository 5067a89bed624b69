"""Gallery: every method on one image, one text and one row of a table, side by side.

    python examples/gallery.py

It goes through `probegen.methods.METHODS`, so that a new method appears by itself; what a method
must be told (a layer, a background) stands in the subjects below. What a method cannot do on a
subject is said in the words of its error. Everything is compiled, verified, run and drawn, and
put on one page, `out/gallery/index.html`, with an input that the image's network likes best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import _common
import demo_digits
import demo_words
import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_wine

import probegen as pg
from probegen import methods, runtime

NAME = "gallery"

#: What methods are told beside their defaults, for pictures of this size: text name -> fields.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "occlusion": {"window": 2, "stride": 1},
    "rise": {"masks": 500, "cells": 4},
    "lime": {"samples": 300},
    "kernel_shap": {"groups": "grid:4"},
}

STYLE = """
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #1b1f24;
  font: 15px/1.5 system-ui, sans-serif; background: #f6f7f9; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(25rem, 1fr)); }
article { background: #fff; border: 1px solid #d9dde2; border-radius: 8px; padding: 1rem; }
article img { max-width: 100%; height: auto; }
h3 { margin: 0 0 .5rem; font-size: 1rem; }
p { margin: .4rem 0 0; color: #5b6470; font-size: .85rem; overflow-wrap: anywhere; }
"""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        name: of its folder.
        title: its heading.
        model: a trained network.
        x: what is drawn, a batch of one.
        samples: what the artefacts are verified on.
        class_names: names of the classes; None where there are none.
        fields: what fields without a default are filled with, by the field's name.
        small: as `SMALL`, for this subject.
        labels: of the pictures; see `Record.plot`.
    """

    name: str
    title: str
    model: keras.Model
    x: Any
    samples: Any
    class_names: Sequence[str] | None
    fields: Mapping[str, Any]
    small: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Card:
    """One method on one subject: a picture, or why there is none."""

    title: str
    picture: Path | None
    said: str


def image(epochs: int = demo_digits.EPOCHS) -> Subject:
    """Returns a handwritten digit and the network of `demo_digits`."""
    data = demo_digits.load_data()
    model = demo_digits.build_model()
    demo_digits.train(model, data, epochs)
    sevens = data.x_test[data.y_test == 7]
    return Subject(
        "image", "An image: a handwritten 7", model, sevens[:1], data.x_test[:16],
        demo_digits.CLASS_NAMES,
        fields(model, "conv3", data.x_train[:12]), SMALL,
    )  # fmt: skip


def text(epochs: int = demo_words.EPOCHS) -> Subject:
    """Returns a word and the transformer of `demo_words`."""
    data = demo_words.load_data()
    model = demo_words.build_model()
    demo_words.train(model, data, epochs)
    word = data.x_test[data.test_words.index("fearless")]
    # Whole numbers are explained where they are looked up, so that is what a background is of.
    vectors = np.asarray(model.get_layer("embedding").token(data.x_train[:12]))
    return Subject(
        "text", "A text: the word fearless, letter by letter", model, word[None],
        data.x_test[:16], demo_words.CLASS_NAMES,
        fields(model, "pool", vectors, attention="block_*"),
        small={"occlusion": {"window": 2, "stride": 1}, "rise": {"masks": 500, "cells": 4}},
        labels={"tokens": demo_words.decode(word)},
    )  # fmt: skip


def row(epochs: int = 60) -> Subject:
    """Returns a wine and a small network that tells three growers apart."""
    wine = load_wine()
    x = wine.data.astype("float32")
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],), name="wine"),
            layers.Normalization(mean=x.mean(0), variance=x.var(0), name="scale"),
            layers.Dense(24, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="grower"),
        ],
        name="wines",
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(x, wine.target, epochs=epochs, batch_size=32, verbose=0)
    return Subject(
        "row", "A row of a table: a wine of the second grower", model, x[90:91], x[::12],
        ("grower 1", "grower 2", "grower 3"), fields(model, "hidden", x[::15]),
        small={
            "occlusion": {"window": 1, "fill": 0.0},
            "integrated_gradients": {"baseline": x.mean(0)},
            "kernel_shap": {"background": x.mean(0), "samples": 500},
            "lime": {"background": x.mean(0)},
        },
        labels={"feature_names": wine.feature_names},
    )  # fmt: skip


def fields(
    model: keras.Model, layer: str, background: Any, attention: str | None = None
) -> dict[str, Any]:
    """Returns what fields without a default are filled with.

    Args:
        model: the network.
        layer: the layer that class activation maps and concepts are of.
        background: samples to compare with.
        attention: a selector of layers with attention, where there are some.
    """
    shape = model.get_layer(layer).output.shape[1:]
    concepts = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    return {
        "layer": layer,
        "background": background,
        "vectors": concepts,
        "select": attention or layer,
    }


def probe_of(method: type[Any], subject: Subject) -> Any:
    """Returns a method with what it must be told.

    Raises:
        ProbegenError: a field has no default, and nothing is said of it here.
    """
    told: dict[str, Any] = dict(subject.small.get(method.text_name, {}))
    for field in dataclasses.fields(method):
        plain = field.default is dataclasses.MISSING
        if plain and field.default_factory is dataclasses.MISSING and field.name not in told:
            if field.name not in subject.fields:
                raise pg.ProbegenError(f"say what {field.name} is in {Path(__file__).name}.")
            told[field.name] = subject.fields[field.name]
    return method(**told)


def card_of(method: type[Any], subject: Subject, folder: Path) -> Card:
    """Compiles, verifies, runs and draws one method."""
    name = method.text_name
    try:
        probe = probe_of(method, subject)
        done = pg.compile(
            subject.model, [probe], folder / f"{name}.onnx", samples=subject.samples,
            class_names=subject.class_names, overwrite=True,
        )  # fmt: skip
    except pg.ProbegenError as error:
        return Card(method.title, None, str(error).splitlines()[0])
    result = runtime.load(done.path).run(subject.x)
    record = max(result.explanations.values(), key=lambda found: found.spec.is_attribution)
    picture = folder / f"{name}.png"
    stacked = (
        record.spec.sums_to_score and record.array.ndim == 2 and "feature_names" in subject.labels
    )
    labels = {**subject.labels, **({"form": "waterfall"} if stacked else {})}
    record.plot(**labels).savefig(picture)
    return Card(method.title, picture, record.spec.method)


def best_input(subject: Subject, folder: Path) -> Card:
    """Draws an input that the network takes for a 3 above all."""
    probe = pg.InputGradient(target="input")
    done = pg.compile(
        subject.model, [probe], folder / "maximise.onnx", class_names=subject.class_names,
        samples=subject.samples, overwrite=True,
    )  # fmt: skip
    found = runtime.maximise(runtime.load(done.path), target="3", bounds=(0, 1))
    found.plot(folder / "maximise.png")
    return Card("Activation maximisation", folder / "maximise.png", "runtime.maximise")


def page(parts: Sequence[tuple[str, Sequence[Card]]]) -> str:
    """Returns the page: a heading and cards for each subject."""
    body = []
    for title, cards in parts:
        shown = "\n".join(
            f"<article><h3>{escape(card.title)}</h3>"
            + (
                f'<img src="{card.picture.parent.name}/{card.picture.name}" alt="">'
                if card.picture
                else "<p>not here:</p>"
            )
            + f"<p>{escape(card.said)}</p></article>"
            for card in cards
        )
        body.append(f"<h2>{escape(title)}</h2>\n<main>\n{shown}\n</main>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>probegen: gallery'
        f"</title><style>{STYLE}</style></head><body><h1>Every method</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def main(
    out: Path | None = None,
    subjects: Sequence[Callable[[], Subject]] = (image, text, row),
    chosen: Sequence[type[Any]] = methods.METHODS,
) -> Path:
    """Draws everything; returns the folder with the page.

    Args:
        out: where to, by default `out/` of the repository.
        subjects: what is explained.
        chosen: the methods.
    """
    _common.headline("Gallery", "What does each method say of the same sample?")
    folder = _common.fresh_folder(NAME, out)
    keras.utils.set_random_seed(0)
    parts = []
    for build in subjects:
        with _common.step(f"train: {build.__name__}"):
            subject = build()
        place = folder / subject.name
        place.mkdir()
        cards = []
        for method in chosen:
            with _common.step(f"{subject.name}: {method.title}"):
                cards.append(card_of(method, subject, place))
        if subject.name == "image":
            cards.append(best_input(subject, place))
        parts.append((subject.title, cards))
    (folder / "index.html").write_text(page(parts), encoding="utf-8")
    _common.fact(f"look at {_common.shown(folder / 'index.html')}")
    return folder


if __name__ == "__main__":
    main()
