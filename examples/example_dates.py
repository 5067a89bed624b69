"""Attention between two sequences: dates as people write them become ISO dates.

    python examples/example_dates.py

"Tuesday, 3 March 1998", "3/3/98" or "mar 3rd 1998" becomes "1998-03-03", letter by letter. The
network reads the date with a GRU in both directions, and writes with a second GRU; before each
letter it looks back at what was read, by an attention layer of our own (Bahdanau et al. 2015). The
artefact returns the weights of that layer, and beside them what each letter read gave to each
letter written (gradient times embedding): what was looked at, and what mattered.

The dates are generated here. The network never sees a date of its test set in any spelling.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
from keras import layers, ops

import probegen as pg
from probegen import runtime

NAME = "dates"
EPOCHS = 8
BATCH = 64
TRAINED, TESTED = 6000, 500
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)

#: Letters that are read and written; a letter's id is its place here and 0 is padding.
READ = "\0 ,./-'0123456789abcdefghijklmnopqrstuvwxyz"
#: `<` is what the writer has before the first letter.
WRITTEN = "\0<-0123456789"
ISO_LENGTH = len("1998-03-03")

SHOWN = (
    "Tuesday, 3 March 1998",
    "Aug 21st, 2004",
    "the 9th of november 1989",
    "7/4/76",
)


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Pairs of texts: dates as people write them and the same in ISO 8601."""

    train: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]


def load_data() -> Data:
    """Returns generated pairs; no day of the test set is in the training set."""
    random = np.random.default_rng(0)
    days = random.permutation((LAST - FIRST).days)[: TRAINED + TESTED]
    dates = [FIRST + datetime.timedelta(days=int(n)) for n in days]
    pairs = [(spelt(date, random), date.isoformat()) for date in dates]
    return Data(pairs[:TRAINED], pairs[TRAINED:])


def spelt(date: datetime.date, random: np.random.Generator) -> str:
    """Returns a date in one of many spellings; of numbers alone the month comes first."""
    ending = "th" if 10 < date.day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    day, year, short = date.day, date.year, f"{date.year % 100:02}"
    month, name, weekday = date.month, f"{date:%B}", f"{date:%A}"
    spellings = (
        f"{weekday}, {day} {name} {year}",
        f"{weekday[:3]} {day} {name[:3]} {year}",
        f"{name} {day}, {year}",
        f"{name[:3]} {day}{ending}, {year}",
        f"the {day}{ending} of {name} {year}",
        f"{day} {name[:3]} '{short}",
        f"{day}. {name} {year}",
        f"{month}/{day}/{year}",
        f"{month}/{day}/{short}",
        f"{year}/{month:02}/{day:02}",
    )
    chosen = spellings[random.integers(len(spellings))]
    return chosen.lower() if random.random() < 0.5 else chosen


def encode(texts: Sequence[str], letters: str) -> Any:
    """Returns texts as int32 `[n, longest]`: the place of each letter, 0 fills the rest."""
    ids = np.zeros((len(texts), max(map(len, texts))), "int32")
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = [letters.index(letter) for letter in text.lower()]
    return ids


def decode(ids: Any, letters: str) -> list[str]:
    """Returns the letters of one row of ids without the padding."""
    return [letters[i] for i in ids if i]


def feeds(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns what the network is fed: the date, and each letter's predecessors (one behind)."""
    read, written = zip(*pairs, strict=True)
    return {
        "date": encode(read, READ),
        "written": encode([f"<{text[:-1]}" for text in written], WRITTEN),
    }


# -- model -------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="probegen_examples")
class BahdanauAttention(layers.Layer):
    """Additive attention: weights are softmax(v tanh(A query + B key)) over the keys.

    Takes queries `[batch, query, width]` and keys `[batch, key, width]`; gives for each query the
    weighted sum of the keys. Nothing here knows of probegen: the weights stay inside.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.of_query = layers.Dense(units, use_bias=False, name="of_query")
        self.of_key = layers.Dense(units, name="of_key")
        self.score = layers.Dense(1, use_bias=False, name="score")

    def build(self, shapes: Any) -> None:
        queries, keys = shapes
        self.of_query.build(queries)
        self.of_key.build(keys)
        self.score.build((*queries[:-1], self.units))

    def call(self, sequences: Any, mask: Any = None) -> Any:
        queries, keys = sequences
        both = self.of_query(queries)[:, :, None, :] + self.of_key(keys)[:, None, :, :]
        scores = self.score(ops.tanh(both))[..., 0]
        if mask is not None and mask[1] is not None:
            scores = ops.where(mask[1][:, None, :], scores, -1e9)  # nobody looks at padding
        return ops.matmul(ops.softmax(scores, axis=-1), keys)

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        del sequences
        return None if mask is None else mask[0]

    def compute_output_shape(self, shapes: Any) -> Any:
        queries, keys = shapes
        return (*queries[:-1], keys[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def build_model(width: int = 32) -> keras.Model:
    """Returns the untrained network for dates of any length.

    Inputs are `date` `[time]` and `written` `[step]`, what has been written before each step; the
    output is the next letter at each step, `[step, letter]`.
    """
    date = keras.Input((None,), dtype="int32", name="date")
    written = keras.Input((None,), dtype="int32", name="written")
    x = layers.Embedding(len(READ), width, mask_zero=True, name="letters")(date)
    keys = layers.Bidirectional(layers.GRU(width, return_sequences=True), name="reader")(x)
    y = layers.Embedding(len(WRITTEN), width, mask_zero=True, name="written_letters")(written)
    queries = layers.GRU(2 * width, return_sequences=True, name="writer")(y)
    seen = BahdanauAttention(width, name="look_back")([queries, keys])
    y = layers.Dense(2 * width, activation="relu", name="join")(
        layers.Concatenate(name="both")([queries, seen])
    )
    letters = layers.Dense(len(WRITTEN), activation="softmax", name="letter")(y)
    return keras.Model([date, written], letters, name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place, the true letters before each one given; half a minute."""
    rate = _common.falling(1e-2, len(data.train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), "sparse_categorical_crossentropy")
    right = encode([iso for _, iso in data.train], WRITTEN)
    _common.fit(model, feeds(data.train), right, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------

PROBES = [
    pg.Attention("look_back"),
    # ("steps",): for each letter that is written, by itself, what each letter read gave it.
    pg.GradientXInput(target=("steps",), per_token="dot", wrt="date"),
]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Dates", "Which letters of a date does it look at to write each of the other?", out
    )
    data = load_data()
    model = build_model()
    with _common.training("train GRUs and attention", epochs) as bar:
        train(model, data, epochs, [bar])

    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(
            model, PROBES, folder / "dates.onnx",
            class_names=("nothing", *WRITTEN[1:]), samples=feeds(data.test[:24]),
        )  # fmt: skip
    artefact = runtime.load(onnx.path)
    with _common.step("write the dates of the test set"):
        read, written = zip(*data.test, strict=True)
        answers = translate(artefact, read)
    right = np.mean([a == b for a, b in zip(answers, written, strict=True)])
    _common.fact(f"dates never seen, all ten letters right: {right:.1%} of {len(read)}")
    with _common.step("draw"):
        draw(artefact, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def translate(artefact: runtime.Artefact, dates: Sequence[str]) -> list[str]:
    """Writes ISO dates letter by letter, the best letter each time; no explanations are paid."""
    answers = [""] * len(dates)
    date = encode(dates, READ)
    for _ in range(ISO_LENGTH):
        written = encode([f"<{text}" for text in answers], WRITTEN)
        letters = artefact.run({"date": date, "written": written}, explain=False)["letter"].array
        best = letters[:, -1].argmax(-1)
        answers = [text + WRITTEN[i] for text, i in zip(answers, best, strict=True)]
    return answers


def draw(artefact: runtime.Artefact, folder: Path) -> None:
    """Draws for the dates of `SHOWN` who looks at what, and what gave what."""
    answers = translate(artefact, SHOWN)
    result = artefact.run(feeds(list(zip(SHOWN, answers, strict=True))))
    labels: Any = {
        "tokens": {"date": [list(text) for text in SHOWN]},
        "query_tokens": [list(text) for text in answers],
    }
    for row, (text, answer) in enumerate(zip(SHOWN, answers, strict=True)):
        _common.fact(f"{text} -> {answer}")
        figure = result["attention/look_back"].plot(row, **labels)
        figure.savefig(folder / f"attention_{answer}.png", dpi=150)
    result["gradient_x_input/date"].plot(0, **labels).savefig(folder / "gradient_x_input.png")
    result.to_html(folder / "report.html", title="Dates", samples=len(SHOWN), **labels)


if __name__ == "__main__":
    main()
