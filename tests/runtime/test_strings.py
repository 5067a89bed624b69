"""Models that take text: written, run and saved with strings of every form numpy has."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError

TEXTS = [["the cat sat"], ["a dog ran"], ["größer als die Katze"]]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """Words -> ids -> embeddings -> two classes, and its artefact."""
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=5, name="words")
    words.adapt([text for (text,) in TEXTS])
    x = keras.Input((1,), dtype="string", name="text")
    y = layers.Embedding(20, 4, name="embedding")(words(x))
    y = layers.Dense(2, activation="softmax", name="y")(layers.GlobalAveragePooling1D()(y))
    model = keras.Model(x, y)
    path = tmp_path_factory.mktemp("text") / "m"
    pg.compile(model, pg.Saliency(target=1), path, verify=False)
    return model, runtime.load(path)


@pytest.mark.parametrize(
    "form",
    [
        lambda: TEXTS,
        lambda: np.array(TEXTS),
        lambda: np.array(TEXTS, dtype=object),
        lambda: np.array([[t.encode() for t in row] for row in TEXTS], dtype=object),
        lambda: np.array([[t.encode() for t in row] for row in TEXTS]),
    ],
    ids=["lists", "str", "objects", "bytes objects", "bytes"],
)
def test_strings_of_every_form(text_model, form):
    model, art = text_model
    expected = np.asarray(model(np.array(TEXTS)))
    np.testing.assert_allclose(art.run(form())["y"].array, expected, rtol=1e-6)


def test_bytes_that_are_no_text(text_model):
    model, art = text_model
    raw = np.array([[b"\xff\xfe cat"]], dtype=object)
    np.testing.assert_allclose(art.run(raw)["y"].array, model(raw), rtol=1e-6)


def test_texts_without_words_are_the_requests_fault(tmp_path):
    """The last of no words; behind a server it is answered with status 400."""
    x = keras.Input((1,), dtype="string", name="text")
    words = layers.TextVectorization(vocabulary=["the", "cat"], name="words")(x)
    y = layers.Dense(2, name="y")(layers.Embedding(4, 3)(words)[:, -1])
    pg.compile(keras.Model(x, y), [], tmp_path / "m", verify=False)
    art = runtime.load(tmp_path / "m")
    assert art.run([["the cat"], [""]])["y"].shape == (2, 2)
    for form in ([[""], [" "]], np.array([[b""]])):
        with pytest.raises(InputError, match="input 'text' has no words in it, in any sample"):
            art.run(form)


def test_a_result_of_text_is_saved_without_pickle(text_model, tmp_path):
    _, art = text_model
    art.run(TEXTS).to_npz(tmp_path / "r.npz")
    again = runtime.read_npz(tmp_path / "r.npz")
    assert again["y"].run.inputs["text"].tolist() == TEXTS


def test_numbers_for_text(text_model):
    _, art = text_model
    with pytest.raises(InputError, match=r"takes strings, got float 1.0: pass str or bytes"):
        art.run(np.array([[1.0]]))


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, "got NoneType None"), (float("nan"), "got float nan"), (b"a\0", "ends in a zero byte")],
)
def test_what_is_no_text(text_model, value, says):
    _, art = text_model
    with pytest.raises(InputError, match=says):
        art.run(np.array([["the cat"], [value]], dtype=object))
