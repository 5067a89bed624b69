"""`StringLookup` without TensorFlow: the same ids as Keras."""

import numpy as np
import pytest
from keras import layers

from probegen.errors import InputError
from probegen.runtime.texts import lookup
from probegen.sources.keras.texts.keras_layers import lookup as settings_of
from tests.runtime.texts.support import TEXTS, as_array, as_tensor

WORDS = ["red", "", "gr\u00fcn", "a\x00", TEXTS[3], TEXTS[6]]
FED = [*TEXTS, *WORDS, "RED", "[UNK]", "red ", "a"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_token": ""},
        {"mask_token": "red", "num_oov_indices": 3},
        {"num_oov_indices": 7},
        {"oov_token": "?"},
        {"output_mode": "one_hot"},
        {"output_mode": "multi_hot", "num_oov_indices": 2},
        {"output_mode": "count", "mask_token": ""},
        {"output_mode": "tf_idf", "idf_weights": [0.5, 1.5, 2.0, 0.1, 3.0]},
        {"output_mode": "one_hot", "max_tokens": 20, "pad_to_max_tokens": True},
    ],
    ids=str,
)
def test_options(options):
    masked = options.get("mask_token")
    words = [w for w in WORDS if w not in (masked, "")]
    if masked == "red":
        words.append("blue")
    layer = layers.StringLookup(vocabulary=words, **options)
    ours = lookup.made_from(settings_of(layer, "colour"))
    column = as_array(FED).reshape(-1, 1)
    expected = np.asarray(layer(as_tensor(FED)[:, None]))
    made = ours.encode(column)["ids"]
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 1), (6,)], ids=str)
def test_one_hot_of_each_word(shape):
    layer = layers.StringLookup(vocabulary=["b", "a"], output_mode="one_hot", mask_token="")
    texts = as_array(["a", "b", "c", "", "dd", "a"]).reshape(shape)
    made = lookup.made_from(settings_of(layer, "x")).encode(texts)["ids"]
    expected = np.asarray(layer(np.array(texts.tolist())))
    assert made.shape == expected.shape
    np.testing.assert_array_equal(made, expected)


def test_several_words_a_sample():
    layer = layers.StringLookup(vocabulary=["b", "a"], num_oov_indices=2)
    texts = [["a", "b", "c"], ["", "dd", "a"]]
    made = lookup.made_from(settings_of(layer, "x")).encode(
        as_array([*texts[0], *texts[1]]).reshape(2, 3)
    )
    np.testing.assert_array_equal(made["ids"], np.asarray(layer(texts)))


def test_words_that_must_be_known():
    layer = layers.StringLookup(vocabulary=["a"], num_oov_indices=0)
    ours = lookup.made_from(settings_of(layer, "x"))
    assert ours.encode(as_array(["a"]))["ids"].tolist() == [0]
    with pytest.raises(InputError, match=r"'b' is not in the vocabulary.*num_oov_indices=0"):
        ours.encode(as_array(["b"]))
