"""Two texts compared: a siamese LSTM of any length says whether one is the other, misspelt.

    python examples/example_misspellings.py

"beautifull" is "beautiful" misspelt; "careless" is another word than "careful". One LSTM reads both
words letter by letter, and the distance between what it has made of them decides (as in Mueller and
Thyagarajan 2016; squared here, so that the way from nothing to the words has no kinks). The words
have any length, and so has the artefact. It explains both inputs at once: which letters of the one
and of the other word part them, and which do not.

The words are those of vaderSentiment's lexicon; the misspellings are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
import vaderSentiment
from keras import layers, ops

import probegen as pg
from probegen import runtime

NAME = "misspellings"
EPOCHS = 6
BATCH = 64
TRAINED, TESTED = 3000, 400
#: As many misspellings and as many other words for each word of the lexicon.
EACH = 2

#: Drawn in the pictures; none of the words on the left was trained with.
SHOWN = (
    ("beautiful", "beautifull"),
    ("careful", "careless"),
    ("friendly", "freindly"),
    ("friendly", "unfriendly"),
)


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Pairs of words, and whether the second is the first misspelt: int32 `[n]`."""

    train: Sequence[tuple[str, str]]
    y_train: Any
    test: Sequence[tuple[str, str]]
    y_test: Any


def load_data() -> Data:
    """Returns pairs of words that are held out, and of those that are not."""
    random = np.random.default_rng(0)
    words = lexicon()
    shown = {word for pair in SHOWN for word in pair} & set(words)
    others = sorted(set(words) - shown)
    random.shuffle(others)
    test, train = others[:TESTED], others[TESTED:][:TRAINED]
    return Data(*pairs_of(train, random), *pairs_of(test, random))


def lexicon() -> list[str]:
    """Returns the words of the lexicon that are made of letters alone."""
    text = (Path(vaderSentiment.__file__).parent / "vader_lexicon.txt").read_text("utf-8")
    words = {line.split("\t")[0] for line in text.splitlines() if line}
    return sorted(w for w in words if w.isascii() and w.isalpha() and w.islower() and len(w) >= 4)


def pairs_of(words: Sequence[str], random: np.random.Generator) -> tuple[Any, Any]:
    """Returns pairs of each word with misspellings of it and with other words, in any order.

    Args:
        words: in any order.
        random: what chooses.
    """
    known = set(lexicon())
    ordered = sorted(words)
    pairs, labels = [], []
    for place, word in enumerate(ordered):
        for _ in range(EACH):
            pairs.append((word, misspelt(word, random, known)))
            # Most of the others begin alike: neighbours in the lexicon.
            far = random.random() < 0.3
            shift = random.integers(1, len(words) if far else 6)
            pairs.append((word, ordered[(place + shift) % len(ordered)]))
            labels += [1, 0]
    order = random.permutation(len(pairs))
    return [pairs[i] for i in order], np.array(labels, "int32")[order]


def misspelt(word: str, random: np.random.Generator, known: set[str]) -> str:
    """Returns a word as it may be mistyped, which is no word itself."""
    while True:
        i = random.integers(1, len(word))
        before, letter, after = word[:i], word[i], word[i + 1 :]
        wrong = (
            before + letter + letter + after,
            before + after,
            before[:-1] + letter + before[-1] + after,
            before + "aeiou"[random.integers(5)] + after if letter in "aeiou" else word,
        )[random.integers(4)]
        if wrong not in known:
            return wrong


def encode(words: Sequence[str]) -> Any:
    """Returns words as int32 `[n, longest]`: a is 1, z is 26, 0 fills the rest."""
    ids = np.zeros((len(words), max(map(len, words))), "int32")
    for row, word in zip(ids, words, strict=True):
        row[: len(word)] = [ord(letter) - ord("a") + 1 for letter in word]
    return ids


def decode(ids: Any) -> list[str]:
    """Returns the letters of one row of ids, without the padding."""
    return [chr(ord("a") + i - 1) for i in ids if i]


def feeds(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns what the network is fed: two arrays of ids, each as long as its longest word."""
    words, others = zip(*pairs, strict=True)
    return {"word": encode(words), "other": encode(others)}


# -- model -------------------------------------------------------------------------------------


def build_model(width: int = 48) -> keras.Model:
    """Returns the untrained network: two words of any length to the chance of a misspelling."""
    word = keras.Input((None,), dtype="int32", name="word")
    other = keras.Input((None,), dtype="int32", name="other")
    letters = layers.Embedding(27, 24, mask_zero=True, name="letters")
    reader = layers.LSTM(width, name="reader")  # one layer, called twice: the two are siamese
    distance = ops.square(reader(letters(word)) - reader(letters(other)))
    same = layers.Dense(1, activation="sigmoid", name="misspelt")(distance)
    return keras.Model([word, other], same, name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place."""
    rate = _common.falling(6e-3, len(data.train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    _common.fit(model, feeds(data.train), data.y_train, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------

PROBES = [
    # On the way from two words of nothing, which are alike, to these two: which letters part them,
    # and which bring them together? The numbers of both words add up to the score.
    pg.IntegratedGradients(target=0, steps=32, per_token="dot", completeness=True),
]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Misspellings", "Which letters say that two words are one, or are two?", out
    )
    data = load_data()
    model = build_model()
    with _common.training("train a siamese LSTM", epochs) as bar:
        train(model, data, epochs, [bar])
    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(
            model, PROBES, folder / "misspellings.onnx", samples=feeds(data.test[:12])
        )
    artefact = runtime.load(onnx.path)
    judge(artefact, data)
    with _common.step("draw"):
        draw(artefact, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def judge(artefact: runtime.Artefact, data: Data) -> None:
    """Prints how good the network is at words that it never saw."""
    chances = artefact.run(feeds(data.test), explain=False)["misspelt"].array[:, 0]
    right = (chances > 0.5) == data.y_test
    of_misspellings, of_others = (right[data.y_test == label].mean() for label in (1, 0))
    _common.fact(
        f"pairs of words never seen: {right.mean():.1%} of {len(right)} right; misspellings "
        f"{of_misspellings:.1%}, other words {of_others:.1%}"
    )


def draw(artefact: runtime.Artefact, folder: Path) -> None:
    """Draws the pairs of `SHOWN`, both words of each.

    Look at friendly and unfriendly: an LSTM that reads from left to right has forgotten much of how
    a word began.
    """
    result = artefact.run(feeds(SHOWN))
    for row, (word, other) in enumerate(SHOWN):
        _common.fact(f"{word} / {other}: misspelt {result['misspelt'].array[row, 0]:.0%}")
        result.plot(folder / f"{word}_{other}.png", sample=row, tokens=decode)
    result.to_html(folder / "report.html", title="Misspellings", samples=len(SHOWN), tokens=decode)


if __name__ == "__main__":
    main()
