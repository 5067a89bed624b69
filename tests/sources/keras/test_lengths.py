"""How long the sequences of a Keras model may be, told by the tables that it cuts."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.sources import open_source


class Cut(layers.Layer):
    """Adds the first rows of a table."""

    def build(self, shape):
        self.table = self.add_weight(shape=(15, shape[-1]), name="table")

    def call(self, x):
        return x + self.table[: ops.shape(x)[1]]


class Counted(layers.Layer):
    """Looks up 0, 1, 2..., from an offset on."""

    def __init__(self, offset):
        super().__init__()
        self.table, self.offset = layers.Embedding(15, 4), offset

    def call(self, x):
        return x + self.table(ops.arange(ops.shape(x)[1]) + self.offset)


class Triangle(layers.Layer):
    """Cuts a stored matrix along two axes."""

    def call(self, x):
        count, whole = ops.shape(x)[1], np.tril(np.ones((15, 15), np.float32))
        return ops.matmul(ops.convert_to_tensor(whole)[None, :count, :count], x)


def longest(layer, length=None):
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layer(layers.Embedding(9, 4)(tokens))
    model = keras.Model(tokens, layers.Dense(2)(ops.mean(x, 1)))
    return dict(open_source(model).view.longest())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Cut(), 15),
        (Counted(0), 15),
        (Counted(2), 13),
        (Triangle(), 15),
        (keras_hub.layers.PositionEmbedding(12), None),
        (layers.LSTM(4, return_sequences=True), None),
        (layers.Conv1D(4, 3, padding="same"), None),
    ],
)
def test_tables_of_positions(layer, expected):
    if isinstance(layer, keras_hub.layers.PositionEmbedding):
        found = longest(lambda x: x + layer(x))
        assert found == {0: 12}
        return
    assert longest(layer) == ({} if expected is None else {0: expected})


def after(*before):
    return keras.Sequential([*before, Cut()])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (after(layers.Conv1D(4, 3, padding="same", strides=2)), None),
        (after(layers.Conv1D(4, 3)), None),
        (after(layers.MaxPooling1D(2)), None),
        (after(layers.ZeroPadding1D(2)), None),
        (after(layers.Cropping1D(1)), None),
        (after(layers.UpSampling1D(2)), None),
        (after(layers.Lambda(lambda x: x[:, ::2])), None),
        (after(layers.Lambda(lambda x: ops.concatenate([x[:, :1], x], 1))), None),
        (after(layers.Reshape((-1, 8))), None),
        (after(layers.Conv1D(4, 3, padding="same"), layers.Dense(6)), 15),
        (after(layers.Lambda(lambda x: ops.concatenate([x, -x[..., 1:]], -1))), 15),
        (after(layers.Reshape((-1, 2, 2)), layers.Reshape((-1, 4))), 15),
    ],
)
def test_a_table_behind_what_makes_another_length_limits_no_input(layer, expected):
    assert longest(layer) == ({} if expected is None else {0: expected})


def test_a_fixed_length_needs_no_limit():
    assert longest(Cut(), length=7) == {}


def test_each_sequence_has_its_own_limit():
    query, document = (keras.Input((None,), dtype="int32", name=n) for n in ("query", "document"))
    shared = layers.Embedding(9, 4)
    states = Cut()(shared(query)), Counted(5)(shared(document))
    mixed = layers.MultiHeadAttention(2, 3)(*states)
    view = open_source(keras.Model([query, document], ops.mean(mixed, 1))).view
    found = {view.input_names[i]: limit for i, limit in view.longest().items()}
    assert found == {"query": 15, "document": 10}


def test_a_sequence_that_is_too_long_is_refused_before_the_engine_runs(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = Cut()(layers.Embedding(9, 4)(tokens))
    model = keras.Model(tokens, layers.Dense(2)(ops.mean(x, 1)))
    pg.compile(model, pg.Saliency(), tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    assert artefact.inputs[0].longest == 15
    assert artefact.run(np.ones((2, 15), int))["saliency/tokens"].shape == (2, 15)
    with pytest.raises(InputError, match=r"16 entries on the axis 'time'.* positions for 15"):
        artefact.run(np.ones((2, 16), int))
