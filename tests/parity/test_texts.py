"""Texts in the verification: a runtime that takes them apart otherwise is found."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, VerificationError
from probegen.parity.texts import _made_up
from probegen.runtime.texts import Texts, lookup, vectorization


@pytest.fixture(scope="module")
def model():
    x = keras.Input((1,), dtype="string", name="text")
    ids = layers.TextVectorization(vocabulary=["the", "cat"], name="words")(x)
    y = layers.GlobalAveragePooling1D()(layers.Embedding(4, 3)(ids))
    return keras.Model(x, layers.Dense(2, activation="softmax")(y))


@pytest.fixture(scope="module")
def artefact(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "m.onnx"
    pg.compile(model, [pg.Saliency()], path, samples=["the cat", "a dog", "THE"])
    return path


def test_given_texts(model, artefact):
    report = pg.verify(artefact, model, ["the cat", "cat"])
    assert report.passed
    assert report.samples == 2
    assert not report.generated
    with pytest.raises(InputError, match="no words in it"):
        pg.verify(artefact, model, [" ", ""])


def test_words_that_are_made_up_are_not_empty_texts(artefact):
    manifest = runtime.load(artefact).manifest
    rng = np.random.default_rng(0)
    for _ in range(9):  # one word a text, and several
        drawn = [_made_up(Texts(manifest), manifest, rng, part)["text"] for part in (0, 1)]
        assert all(text.strip() for text in np.concatenate(drawn).reshape(-1))


def test_a_planted_fault_beside_other_inputs(tmp_path, monkeypatch):
    colour, size = keras.Input((1,), dtype="string", name="colour"), keras.Input((2,), name="size")
    ids = layers.StringLookup(vocabulary=["red", "the"], num_oov_indices=2, name="ids")(colour)
    table = layers.Flatten()(layers.Embedding(5, 3)(ids))
    model = keras.Model([colour, size], layers.Dense(2)(layers.Concatenate()([table, size])))
    report = pg.compile(model, [], tmp_path / "m.onnx").report
    assert report.samples > 6  # texts are among them
    monkeypatch.setattr(lookup, "fingerprint", len)
    with pytest.raises(VerificationError, match="takes a text apart in another way than the"):
        pg.verify(tmp_path / "m.onnx", model)


def _at_any_space(_, text):
    return [word.encode() for word in text.decode().lower().split()]


@pytest.mark.parametrize(
    ("cls", "name", "fault"),
    [
        (vectorization.Vectorization, "split", _at_any_space),
        (lookup.Lookup, "_id", lambda lookup, word: max(1, lookup._ids.get(word.strip(b"s"), 1))),
    ],
    ids=["whitespace of Unicode", "plural"],
)
def test_planted_faults(model, artefact, monkeypatch, cls, name, fault):
    monkeypatch.setattr(cls, name, fault)
    samples = ["the cats"] if name == "_id" else None
    with pytest.raises(VerificationError, match="takes a text apart in another way than the"):
        pg.verify(artefact, model, samples)
