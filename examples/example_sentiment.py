"""Text as it is: raw strings in, a verdict and a coloured sentence out.

    python examples/example_sentiment.py

Does a review speak well of something? The model takes strings: it begins with Keras'
`TextVectorization`. TensorFlow alone can run that layer, so the ONNX artefact begins behind it, and
its manifest says how texts become ids; the runtime does the same without TensorFlow.

No package ships labelled reviews, so these are made here from a few dozen patterns and the rated
words of vaderSentiment's lexicon. The label is that package's verdict, which knows more than the
words: "not good" is bad, and what follows a "but" weighs more. That gives a judge for the
explanation as well: leave a word out, ask vaderSentiment again, and compare with what the artefact
said of this word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

import probegen as pg
from probegen import runtime

NAME = "sentiment"
EPOCHS = 6
BATCH = 64
TRAINED, TESTED = 6000, 1000
CLASS_NAMES = ("bad", "good")

THINGS = (
    "food service music plot film book room hotel staff waiter story camera screen battery sound "
    "game ending cast song view garden coffee soup bread"
)
GOOD = (
    "good great wonderful beautiful charming funny brilliant excellent superb delightful perfect "
    "lovely friendly impressive inspiring amazing awesome fantastic elegant clever warm helpful "
    "generous pleasant fresh fine nice"
)
BAD = (
    "bad awful terrible horrible boring ugly poor disappointing dreadful annoying hopeless rude "
    "dirty stupid weak pathetic miserable lousy ridiculous painful disgusting weird unfriendly "
    "tragic cruel dull lame"
)
VERY = "very really extremely rather so quite"
NOT = "not never hardly"
PATTERNS = (
    "The {thing} was {a}.",
    "The {thing} was {very} {a}!",
    "The {thing} was {no} {a}.",
    "The {thing} was {no} {very} {a}.",
    "The {thing} was {a} and the {thing} was {b}.",
    "The {thing} was {a}, but the {thing} was {b}.",
    "The {thing} was {no} {a}, but the {thing} was {b}.",
    "The {thing} was {a}, but the {thing} was {no} {b}.",
    "I found the {thing} {very} {a} and the {thing} {no} {b}.",
    "What a {a} {thing}, and how {b} the {thing} was!",
    "{no} {a}, and the {thing} is {b} too.",
    "We came for the {thing}, which was {a}, and stayed for the {b} {thing}.",
)

#: Drawn in the pictures; put together by hand, and never trained with.
SHOWN = (
    "A charming story with a brilliant cast.",
    "The soup was not bad, but the waiter was rude.",
    "The waiter was rude, but the soup was not bad.",
    "I never found the film boring, and the music was beautiful!",
    "Not a very good camera: the screen is weak and the battery is hopeless.",
)


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Reviews, and whether each is a good one: int32 `[n]`, 1 is good."""

    train_texts: Sequence[str]
    y_train: Any
    test_texts: Sequence[str]
    y_test: Any


def load_data() -> Data:
    """Returns reviews that vaderSentiment is sure about, each one once."""
    random = np.random.default_rng(0)
    judge = SentimentIntensityAnalyzer()
    labels: dict[str, int] = {}
    while len(labels) < TRAINED + TESTED:
        text = made_up(random)
        score = judge.polarity_scores(text)["compound"]
        if abs(score) >= 0.1 and text not in SHOWN:
            labels[text] = int(score > 0)
    texts, y = list(labels), np.array(list(labels.values()), "int32")
    return Data(texts[:TRAINED], y[:TRAINED], texts[TRAINED:], y[TRAINED:])


def made_up(random: np.random.Generator) -> str:
    """Returns a pattern with words in its places."""

    def some(words: str) -> str:
        choices = words.split()
        return choices[random.integers(len(choices))]

    text = PATTERNS[random.integers(len(PATTERNS))]
    while "{thing}" in text:
        text = text.replace("{thing}", some(THINGS), 1)
    a, b = (some(GOOD if random.random() < 0.5 else BAD) for _ in "ab")
    text = text.format(a=a, b=b, very=some(VERY), no=some(NOT))
    return text[0].upper() + text[1:]


# -- model -------------------------------------------------------------------------------------


def build_model(texts: Sequence[str], width: int = 24) -> keras.Model:
    """Returns the untrained network: a string to the probabilities of bad and good.

    Args:
        texts: what the vocabulary is made of.
        width: units of the LSTM in each direction.
    """
    words = layers.TextVectorization(name="words")  # lower case, no punctuation, split at spaces
    words.adapt(tf.constant(list(texts)))
    text = keras.Input((), dtype="string", name="text")
    x = words(text)
    x = layers.Embedding(words.vocabulary_size(), 24, mask_zero=True, name="embedding")(x)
    x = layers.Bidirectional(layers.LSTM(width), name="reader")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(text, layers.Dense(2, activation="softmax", name="verdict")(x), name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place."""
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    _common.fit(model, tf.constant(list(data.train_texts)), data.y_train, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------

PROBES = [
    # What each word gives to "good": signed numbers that add up to the score, and what is missing.
    pg.IntegratedGradients(target=1, steps=32, per_token="dot", completeness=True),
    # What hiding the word takes from the score.
    pg.Occlusion(target=1, window=1),
]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(NAME, "Sentiment", "Which words make a review a good one?", out)
    data = load_data()
    model = build_model(data.train_texts)
    with _common.training("train an LSTM on strings", epochs) as bar:
        train(model, data, epochs, [bar])

    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(
            model, PROBES, folder / "sentiment.onnx",
            class_names=CLASS_NAMES, samples=list(data.test_texts[:16]),
        )  # fmt: skip
    artefact = runtime.load(onnx.path)
    with _common.step("judge and explain the test set"):
        judge(artefact, data)
    with _common.step("draw"):
        draw(artefact, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def judge(artefact: runtime.Artefact, data: Data) -> None:
    """Prints how good the verdicts are, and how good what is said of single words."""
    verdicts = artefact.run(list(data.test_texts), explain=False)["verdict"].array.argmax(-1)
    right = np.mean(verdicts == data.y_test)
    _common.fact(
        f"reviews never seen, judged as vaderSentiment does: {right:.1%} of {len(verdicts)}"
    )
    texts = list(data.test_texts[:200])
    result = artefact.run(texts)
    truth = [without_each_word(text) for text in texts]
    for name in ("integrated_gradients/text", "occlusion/text"):
        words = [result[name].words(row) for row in range(len(texts))]
        agreement = np.mean(
            [
                np.corrcoef([value for _, value in said], truth[row])[0, 1]
                for row, said in enumerate(words)
            ]
        )
        _common.fact(
            f"{name}, correlated with what leaving the word out takes from vaderSentiment's "
            f"score: {agreement:.2f} (mean over {len(texts)} reviews)"
        )


def without_each_word(text: str) -> Any:
    """Returns by how much vaderSentiment's score falls where a word is left out, `[word]`."""
    judge, words = SentimentIntensityAnalyzer(), text.split()
    whole = judge.polarity_scores(text)["compound"]
    parts = (" ".join(words[:i] + words[i + 1 :]) for i in range(len(words)))
    return np.array([whole - judge.polarity_scores(part)["compound"] for part in parts])


def draw(artefact: runtime.Artefact, folder: Path) -> None:
    """Draws the sentences of `SHOWN`, and puts them into a report."""
    result = artefact.run(list(SHOWN))
    for row, text in enumerate(SHOWN):
        chance = result["verdict"].array[row, CLASS_NAMES.index("good")]
        _common.fact(f"{chance:4.0%} good: {text}")
        result["integrated_gradients/text"].plot(row).savefig(folder / f"words_{row}.png", dpi=150)
    result.plot(folder / "overview.png", sample=1)
    result.to_html(folder / "report.html", title="Reviews", samples=len(SHOWN))


if __name__ == "__main__":
    main()
