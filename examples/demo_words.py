"""Sequences with attention: a transformer reads single words, letter by letter.

    python examples/demo_words.py

Is a word meant kindly or not? The data are the words of vaderSentiment's lexicon, each rated by
ten people from -4 to 4. The network is made of custom layers around `MultiHeadAttention`: Keras
shows `block_1` as one closed box. The artefact answers with the verdict, with the attention
weights of every head inside the boxes, and with the gradient at the letters' embedding.
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

NAME = "words"
EPOCHS = 10
BATCH = 64
LENGTH = 14
CLASS_NAMES = ("unkind", "kind")

#: Drawn in the pictures, and never trained with. Each has relatives that are.
SHOWN = ("joyful", "joyless", "painful", "painless", "fearless", "unhappy", "dishonest", "unloved")

PROBES = [
    pg.Attention("block_*"),
    pg.InputGradient(),
    pg.Saliency(),
]


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Words, their letters int32 `[n, 14]` (0 is padding) and labels int32 `[n]` (1 is kind)."""

    train_words: Sequence[str]
    x_train: Any
    y_train: Any
    test_words: Sequence[str]
    x_test: Any
    y_test: Any


def load_data() -> Data:
    """Returns the clearly rated words, 800 of them and `SHOWN` (first) held out."""
    ratings = {
        word: rating
        for word, rating in _lexicon().items()
        if word.isascii() and word.isalpha() and word.islower()
        if 4 <= len(word) <= LENGTH and abs(rating) >= 1
    }
    others = sorted(set(ratings) - set(SHOWN))
    np.random.default_rng(0).shuffle(others)
    test, train = [*SHOWN, *others[:800]], others[800:]
    labels = {word: int(rating > 0) for word, rating in ratings.items()}
    return Data(
        train, encode(train), np.array([labels[w] for w in train], "int32"),
        test, encode(test), np.array([labels[w] for w in test], "int32"),
    )  # fmt: skip


def encode(words: Sequence[str]) -> Any:
    """Returns words as int32 `[n, 14]`: a is 1, z is 26, 0 fills the rest."""
    tokens = np.zeros((len(words), LENGTH), "int32")
    for row, word in zip(tokens, words, strict=True):
        row[: len(word)] = [ord(letter) - ord("a") + 1 for letter in word]
    return tokens


def decode(tokens: Any) -> list[str]:
    """Returns the letters of one row of tokens, without the padding."""
    return [chr(ord("a") + token - 1) for token in tokens if token]


def _lexicon() -> dict[str, float]:
    """Returns every entry of the lexicon with its mean rating."""
    text = (Path(vaderSentiment.__file__).parent / "vader_lexicon.txt").read_text("utf-8")
    fields = (line.split("\t") for line in text.splitlines() if line)
    return {word: float(rating) for word, rating, *_ in fields}


# -- model -------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="probegen_examples")
class TokenAndPosition(layers.Layer):
    """The sum of a token's and a position's embedding; token 0 is masked."""

    def __init__(self, vocabulary: int, length: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = {"vocabulary": vocabulary, "length": length, "width": width}
        self.token = layers.Embedding(vocabulary, width, mask_zero=True, name="token")
        self.position = layers.Embedding(length, width, name="position")

    def build(self, shape: Any) -> None:
        self.token.build(shape)
        self.position.build(shape)

    def call(self, tokens: Any) -> Any:
        return self.token(tokens) + self.position(ops.arange(tokens.shape[1]))

    def compute_mask(self, tokens: Any, previous: Any = None) -> Any:
        return self.token.compute_mask(tokens, previous)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


@keras.saving.register_keras_serializable(package="probegen_examples")
class TransformerBlock(layers.Layer):
    """Self-attention and two dense layers, each normalised before and added to its input."""

    def __init__(self, heads: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.sizes = {"heads": heads, "width": width}
        self.norm_1 = layers.LayerNormalization(name="norm_1")
        self.attention = layers.MultiHeadAttention(heads, width // heads, name="attention")
        self.norm_2 = layers.LayerNormalization(name="norm_2")
        self.widen = layers.Dense(2 * width, activation="relu", name="widen")
        self.narrow = layers.Dense(width, name="narrow")

    def build(self, shape: Any) -> None:
        for layer in (self.norm_1, self.norm_2, self.widen):
            layer.build(shape)
        self.attention.build(shape, shape)
        self.narrow.build((*shape[:-1], self.widen.units))

    def call(self, x: Any, mask: Any = None) -> Any:
        normed = self.norm_1(x)
        letters = None if mask is None else mask[:, None, :]  # nobody attends to padding
        x = x + self.attention(normed, normed, attention_mask=letters)
        return x + self.narrow(self.widen(self.norm_2(x)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


def build_model(width: int = 48, heads: int = 4, blocks: int = 2) -> keras.Model:
    """Returns the untrained network: tokens `[14]` to the probabilities of unkind and kind."""
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = TokenAndPosition(27, LENGTH, width, name="embedding")(tokens)
    for number in range(1, blocks + 1):
        x = TransformerBlock(heads, width, name=f"block_{number}")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)  # over letters only: it heeds the mask
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(tokens, layers.Dense(2, activation="softmax", name="mood")(x), name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place; about ten seconds on two cores."""
    rate = _common.falling(3e-3, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


# -- the demo ----------------------------------------------------------------------------------


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(
        NAME, "Words", "Which letters make a word unkind, and which letter looks at which?", out
    )
    data = load_data()
    model = build_model()
    with _common.training("train a transformer", epochs) as bar:
        train(model, data, epochs, [bar])
    judge(model, data)

    model.save(folder / "model.keras")
    with _common.step("instrument"):
        probed = pg.instrument(model, PROBES, class_names=CLASS_NAMES)
    samples = data.x_test[:64]
    with _common.step("export to ONNX and verify"):
        onnx = pg.export(probed, folder / "words.onnx", samples=samples)
    with _common.step("export to SavedModel and verify"):
        saved = pg.export(probed, folder / "words_saved", samples=samples)
    with _common.step("run and draw"):
        draw(runtime.load(onnx.path), data, folder)
    _common.closing_table(folder, ONNX=onnx, SavedModel=saved)
    return folder


def judge(model: keras.Model, data: Data) -> None:
    """Prints how good the model is, and how good it is where it knows no related word."""
    correct = model.predict_on_batch(data.x_test).argmax(-1) == data.y_test
    families = {word[:4] for word in data.train_words}
    strange = np.array([word[:4] not in families for word in data.test_words])
    for what, chosen in (
        ("held-out words judged right", np.ones_like(strange)),
        ("of these, with no trained word that begins with the same four letters", strange),
    ):
        labels = data.y_test[chosen]
        majority = max(labels.mean(), 1 - labels.mean())
        _common.fact(
            f"{what}: {correct[chosen].mean():.1%} of {len(labels)} (majority {majority:.1%})"
        )


def draw(artefact: runtime.Artefact, data: Data, folder: Path) -> None:
    """Draws what each letter of the shown words weighs, and who attends to whom in two."""
    result = artefact.run(data.x_test[: len(SHOWN)])
    for row, word in enumerate(SHOWN):
        figure = result["saliency/tokens"].plot(row, tokens=decode)
        figure.savefig(folder / f"saliency_{word}.png")
    for word in ("joyful", "unhappy"):
        for block in ("block_1", "block_2"):
            weights = result[f"attention/{block}/attention"]
            figure = weights.plot(SHOWN.index(word), tokens=decode)
            figure.savefig(folder / f"attention_{word}_{block}.png")

    result.plot(folder / "overview.png", sample=SHOWN.index("unhappy"), tokens=decode)
    result.to_html(folder / "report.html", samples=len(SHOWN), tokens=decode)


if __name__ == "__main__":
    main()
