"""Catalogue: one picture a method, for the page of methods on the site.

    python examples/catalogue.py

Each method of `probegen.methods.METHODS` is drawn on the first of the subjects (the gallery's
image, text and row, and a series) that it can explain, into `out/catalogue/<method>.png`;
`make docs` puts the pictures behind the methods' headings.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _common
import demo_sunspots
import gallery
import keras
import numpy as np

import probegen as pg
from probegen import methods

NAME = "catalogue"

#: What shows a method best, where that is not the image: text name of the method -> subject.
BEST = {"kernel_shap": "row", "lime": "row", "feature_ablation": "row"}


def series(epochs: int = demo_sunspots.EPOCHS) -> gallery.Subject:
    """Returns 33 years of sunspots and the Conv1D and LSTM of `demo_sunspots`."""
    data = demo_sunspots.load_data()
    model = demo_sunspots.build_model()
    demo_sunspots.train(model, data, epochs)
    chosen = int(data.y_test.argmax())
    past = np.arange(data.test_years[chosen] - demo_sunspots.WINDOW, data.test_years[chosen])
    return gallery.Subject(
        "series", "A series: sunspots of 33 years", model, data.x_test[[chosen]],
        data.x_test[:16], None, gallery.fields(model, "conv", data.x_train[:12], attention="lstm"),
        labels={"time": past},
    )  # fmt: skip


def draw(method: type[Any], subjects: Sequence[Callable[[], gallery.Subject]], work: Path) -> Path:
    """Returns a picture of a method on the first subject that it can explain.

    Raises:
        ProbegenError: it explains none of them.
    """
    said = []
    for build in subjects:
        subject = build()
        place = work / subject.name
        place.mkdir(parents=True, exist_ok=True)
        card = gallery.card_of(method, subject, place)
        if card.picture is not None:
            return card.picture
        said.append(f"{subject.name}: {card.said}")
    raise pg.ProbegenError(f"{method.title} has no picture: {' '.join(said)}")


def main(
    out: Path | None = None,
    subjects: Sequence[Callable[[], gallery.Subject]] = (
        gallery.image, gallery.text, series, gallery.row,
    ),
    chosen: Sequence[type[Any]] = methods.METHODS,
) -> Path:  # fmt: skip
    """Draws a picture of each method; returns the folder.

    Args:
        out: where to, by default `out/` of the repository.
        subjects: what is explained; each is made when the first method needs it.
        chosen: the methods.

    Raises:
        ProbegenError: a method explains none of the subjects.
    """
    _common.headline("Catalogue", "What does each method look like?")
    folder = _common.fresh_folder(NAME, out)
    keras.utils.set_random_seed(0)
    made = {build.__name__: functools.cache(build) for build in subjects}
    for method in chosen:
        best = BEST.get(method.text_name, "")
        order = sorted(made, key=lambda name: name != best)
        with _common.step(method.title):
            picture = draw(method, [made[name] for name in order], folder / "work")
            shutil.copyfile(picture, folder / f"{method.text_name}.png")
    shutil.rmtree(folder / "work", ignore_errors=True)
    _common.fact(f"look at {_common.shown(folder)}")
    return folder


if __name__ == "__main__":
    main()
