"""Strings in a SavedModel, before windows that take some words: how many, and what fewer get."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.sources.keras.source import open_source


def model(kernel=4, **vectorization):
    text = keras.Input((1,), dtype="string", name="text")
    ids = layers.TextVectorization(vocabulary=["a", "cat", "the"], **vectorization)(text)
    y = layers.Conv1D(3, kernel)(layers.Embedding(9, 3, name="embed")(ids))
    return keras.Model(text, layers.Dense(2, name="out")(layers.GlobalMaxPooling1D()(y)))


def test_words_are_counted_behind_the_text_layer():
    assert open_source(model()).view.fewest_words() == {0: 4}
    assert open_source(model(1)).view.fewest_words() == {}
    assert open_source(model(output_sequence_length=7)).view.fewest_words() == {}
    assert open_source(model()).as_written("onnx").view.fewest_words() == {}


def test_texts_that_are_too_short_are_refused(tmp_path):
    """TensorFlow would compute a window that is not full from whatever lies in memory."""
    source = model()
    with pytest.raises(InputError, match=r"needs 4 words of 'text' .* fewer of \['a the cat'\]"):
        pg.compile(source, [], tmp_path / "no", samples=["a the cat the", "a the cat"])
    pg.compile(source, [pg.Saliency()], tmp_path / "saved")
    artefact = runtime.load(tmp_path / "saved")
    assert artefact.inputs[0].fewest_words == 4
    for explain in (True, False):
        with pytest.raises(InputError, match="longest text of input 'text' has fewer than 4 words"):
            artefact.run(["a cat", "the cat, a"], explain=explain)
    texts = ["the cat a the cat", "a cat"]  # the second is filled up
    expected = source(np.array(texts, object)[:, None])
    np.testing.assert_allclose(artefact.run(texts)["out"].array, expected, rtol=1e-5)
