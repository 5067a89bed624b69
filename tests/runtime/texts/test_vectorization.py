"""`TextVectorization` without TensorFlow: the same ids as Keras, of every text."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from probegen.errors import InputError
from probegen.runtime.texts import vectorization
from probegen.sources.keras.texts.keras_layers import vectorization as settings_of
from tests.runtime.texts.support import TEXTS, as_array, as_tensor

WORDS = [
    "the",
    "cat",
    "\u00e9t\u00e9",
    "mat",
    "UNK",
    "[UNK]",
    "\u0130stanbul",
    "a b",
    "e",
    "\u4f60",
]


def both(layer, texts):
    """What Keras makes of texts, and what the runtime makes."""
    ours = vectorization.made_from(settings_of(layer, "words"))
    return np.asarray(layer(as_tensor(texts))), ours.encode(as_array(texts))["ids"]


def of_all_texts(**options):
    """A layer whose vocabulary comes from the texts themselves."""
    layer = layers.TextVectorization(**options)
    layer.adapt(as_tensor(TEXTS))
    return layer


@pytest.mark.parametrize(
    ("standardize", "split"),
    itertools.product(
        ["lower_and_strip_punctuation", "lower", "strip_punctuation", None],
        ["whitespace", "character"],
    ),
)
def test_every_standardisation_and_split(standardize, split):
    layer = of_all_texts(standardize=standardize, split=split)
    expected, ids = both(layer, TEXTS)
    assert ids.dtype == expected.dtype
    assert len(np.unique(ids)) > 40  # the words are told apart
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_whole_texts_as_words(shape):
    layer = of_all_texts(split=None, standardize="lower")
    ours = vectorization.made_from(settings_of(layer, "words"))
    expected = np.asarray(layer(tf.reshape(as_tensor(TEXTS), shape)))
    made = ours.encode(as_array(TEXTS).reshape(shape))["ids"]
    assert made.shape == expected.shape
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"ngrams": 2},
        {"ngrams": (3, 1)},
        {"ngrams": 2, "split": "character", "output_sequence_length": 9},
        {"output_sequence_length": 3},
        {"output_sequence_length": 1000},
        {"max_tokens": 12},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "ngrams": 2},
        {"output_mode": "tf_idf"},
        {"output_mode": "multi_hot", "max_tokens": 500, "pad_to_max_tokens": True},
        {"output_mode": "tf_idf", "max_tokens": 500, "pad_to_max_tokens": True},
    ],
    ids=str,
)
def test_options(options):
    expected, ids = both(of_all_texts(**options), TEXTS)
    assert (ids.dtype, ids.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(ids, expected)


def test_a_vocabulary_that_was_given():
    layer = layers.TextVectorization(vocabulary=WORDS, standardize=None)
    expected, ids = both(layer, TEXTS)
    np.testing.assert_array_equal(ids, expected)
    ours = vectorization.made_from(settings_of(layer, "words"))
    assert ours.tokens([2, 1, 3, 0, 0]) == ["the", "[UNK]", "cat"]
    assert ours.decode([2, 3, 0]) == "the cat"


def test_a_very_long_text():
    layer = of_all_texts()
    text = " ".join(TEXTS[:8]) * 500
    expected, ids = both(layer, [text])
    assert ids.shape[1] > 10_000
    np.testing.assert_array_equal(ids, expected)


def test_bytes_that_are_no_text():
    raw = [b"\xff\xfe The cat", b"caf\xc3 e\x80"]
    expected, ids = both(of_all_texts(), raw)
    np.testing.assert_array_equal(ids, expected)
    ours = vectorization.made_from(settings_of(of_all_texts(split="character"), "words"))
    with pytest.raises(InputError, match="is no UTF-8"):
        ours.encode(as_array(raw))
