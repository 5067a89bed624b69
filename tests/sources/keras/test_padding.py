"""What says which values of a Keras model's inputs are padding, by what the model computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from probegen.artefact.manifest import Padding
from probegen.sources import open_source

IDS, BOOLS, FLOATS = ((None,), "int32"), ((None,), "bool"), ((None,), "float32")


def embedding(**more):
    return layers.Embedding(9, 4, **more)


def found(function, **inputs):
    """The paddings of a model by input name."""
    given = {n: keras.Input(shape, dtype=dtype, name=n) for n, (shape, dtype) in inputs.items()}
    view = open_source(keras.Model(list(given.values()), function(**given))).view
    return {view.input_names[i]: (p.input, p.values) for i, p in view.paddings().items()}


def self_attention(x, **more):
    return layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3)(x, x, **more))


def penalised(tokens, attention_mask):
    x = embedding()(tokens)
    penalty = (1.0 - ops.cast(attention_mask, "float32"))[:, None, :] * -1e9
    weights = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))) + penalty)
    return ops.mean(ops.matmul(weights, x), 1)


def masked_mean(tokens):
    there = ops.cast(ops.not_equal(tokens, 1), "float32")[..., None]
    return ops.sum(embedding()(tokens) * there, 1) / ops.sum(there, 1)


def infinite(tokens):
    x = embedding()(tokens)
    return ops.mean(ops.softmax(ops.where(ops.equal(tokens, 2), -np.inf, ops.sum(x, 2))), 1)


def marked(tokens):
    there = ops.cast(ops.equal(tokens, 3), "float32")[..., None]
    return ops.sum(embedding()(tokens) * there, 1)


OWN = {
    "LSTM": lambda tokens: layers.LSTM(3)(embedding(mask_zero=True)(tokens)),
    "attention": lambda tokens: self_attention(embedding(mask_zero=True)(tokens)),
    "pooled": lambda tokens: layers.GlobalAveragePooling1D()(embedding(mask_zero=True)(tokens)),
    "not heard by what reads it": lambda tokens: layers.GlobalMaxPooling1D()(
        layers.Conv1D(3, 2)(embedding(mask_zero=True)(tokens))
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_keras_masks(name):
    assert found(OWN[name], tokens=IDS) == {"tokens": ("tokens", (0,))}


def test_ids_that_come_as_floats():
    assert found(OWN["LSTM"], tokens=FLOATS) == {"tokens": ("tokens", (0,))}


def test_the_value_is_that_of_the_input_where_ids_are_changed_before_the_look_up():
    def shifted(tokens):
        return layers.LSTM(3)(embedding(mask_zero=True)(tokens + 1))

    assert found(shifted, tokens=IDS) == {"tokens": ("tokens", (-1,))}


@pytest.mark.parametrize(("function", "value"), [(masked_mean, 1), (infinite, 2)])
def test_comparisons_of_a_users_own(function, value):
    assert found(function, tokens=IDS) == {"tokens": ("tokens", (value,))}


def test_a_masked_series():
    def masked(series):
        return layers.GRU(3)(layers.Masking(-5.0)(series))

    assert found(masked, series=((None, 3), "float32")) == {"series": ("series", (-5,))}


def test_masks_that_are_fed():
    def recurrent(tokens, valid):
        return layers.LSTM(3)(embedding()(tokens), mask=valid)

    assert found(recurrent, tokens=IDS, valid=BOOLS) == {"tokens": ("valid", (0,))}
    expected = {"tokens": ("attention_mask", (0,))}
    assert found(penalised, tokens=IDS, attention_mask=IDS) == expected


def test_a_mask_that_says_what_to_ignore():
    def ignoring(tokens, padding_mask):
        return penalised(tokens, ops.cast(ops.equal(padding_mask, 0), "int32"))

    expected = {"tokens": ("padding_mask", (1,))}
    assert found(ignoring, tokens=IDS, padding_mask=IDS) == expected


def test_each_of_two_sequences_has_its_own_mask():
    def pair(a, b, a_mask, b_mask):
        shared, attend = embedding(), layers.MultiHeadAttention(2, 3)

        def read(tokens, mask):
            x = shared(tokens)
            return ops.mean(attend(x, x, attention_mask=mask[:, None, :]), 1)

        return read(a, a_mask) * read(b, b_mask)

    expected = {"a": ("a_mask", (0,)), "b": ("b_mask", (0,))}
    assert found(pair, a=IDS, b=IDS, a_mask=BOOLS, b_mask=BOOLS) == expected


def test_the_mask_of_the_keys_is_none_of_the_queries():
    def crossing(query, document):
        keys = embedding(mask_zero=True)(document)
        return ops.mean(layers.MultiHeadAttention(2, 3)(embedding()(query), keys), 1)

    assert found(crossing, query=IDS, document=IDS) == {"document": ("document", (0,))}


def test_whose_mask_it_is_may_not_be_known():
    def crossing(query, document, mask):
        x, keys = (embedding()(ids) for ids in (query, document))
        attended = layers.MultiHeadAttention(2, 3)(x, keys, attention_mask=mask[:, None, :])
        return ops.mean(attended, 1) + ops.mean(x, 1) + ops.mean(keys, 1)

    assert found(crossing, query=IDS, document=IDS, mask=BOOLS) == {}


@pytest.mark.parametrize("join", [layers.Add(), layers.Concatenate()])
def test_tokens_and_their_segments_have_one_mask(join):
    def segmented(tokens, segments, mask):
        x = join([embedding()(tokens), embedding()(segments)])
        return self_attention(x, attention_mask=mask[:, None, :])

    expected = dict.fromkeys(("tokens", "segments"), ("mask", (0,)))
    assert found(segmented, tokens=IDS, segments=IDS, mask=BOOLS) == expected


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda tokens: layers.LSTM(3)(embedding()(tokens)), {"tokens": IDS}),
        (marked, {"tokens": IDS}),
        (
            lambda pixels: layers.Flatten()(ops.cast(pixels, "float32") * (2 / 255) - 1),
            {"pixels": ((4, 5, 3), "uint8")},
        ),
        (
            lambda n: ops.cast(n, "float32") * layers.Dense(7)(ops.cast(n, "float32")),
            {"n": ((7,), "int32")},
        ),
    ],
    ids=["no mask", "one kind of token alone", "pixels", "numbers"],
)
def test_other_numbers_are_no_padding(function, inputs):
    assert found(function, **inputs) == {}


def test_the_manifest_is_told():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    view = open_source(keras.Model(tokens, OWN["LSTM"](tokens))).view
    assert view.paddings() == {0: Padding("tokens", (0.0,))}
