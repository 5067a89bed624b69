"""What counts as attention: a softmax that weighs values, and what its axes are called."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen.errors import InstrumentError, SelectionError, SpecError
from probegen.sources.keras import attention
from tests import models


class Told(layers.Layer):
    """A layer whose call is given."""

    def __init__(self, call, **kwargs):
        super().__init__(**kwargs)
        self.told = call

    def build(self, shape):
        self.score = self.add_weight(shape=(shape[-1], 1), name="score")
        self.table = self.add_weight(shape=(shape[-1], 4), name="table")

    def call(self, x):
        return self.told(self, x)


def points(call, **of_layer):
    """The layers that can be probed for attention in a model around one layer."""
    x = keras.Input((5, 7), name="x")
    found = keras.tree.flatten(Told(call, name="told", **of_layer)(x))
    model = keras.Model(x, [layers.Dense(2)(layers.Flatten()(y)) for y in found])
    return model, [p.name for p in pg.inspect(model) if "attention" in p.probes]


def softmax_over_time(layer, x):
    return ops.softmax(ops.matmul(ops.tanh(x), layer.score), axis=1)


def self_attention(x):
    return ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))))


def by_hand(layer, x):
    exponentials = ops.exp(ops.squeeze(ops.matmul(ops.tanh(x), layer.score), -1))
    exponentials = exponentials * ops.cast(x[:, :, 0] > -1.0, "float32")
    total = ops.sum(exponentials, axis=1, keepdims=True) + keras.config.epsilon()
    return exponentials / total


APPLIED = {
    "pair": lambda s, x: (ops.sum((w := softmax_over_time(s, x)) * x, axis=1), w),
    "alone": lambda s, x: ops.sum(softmax_over_time(s, x) * x, axis=1),
    "product": lambda _, x: ops.matmul(self_attention(x), x),
    "einsum": lambda _, x: ops.einsum("bqk,bkd->bqd", self_attention(x), x),
    "einsum of one": lambda s, x: ops.einsum("btj,btd->bd", softmax_over_time(s, x), x),
    "transposed": lambda s, x: ops.matmul(ops.transpose(softmax_over_time(s, x), (0, 2, 1)), x),
    "masked": lambda _, x: ops.matmul(
        self_attention(x) * ops.cast(x[:, None, :, 0] > 0, "float32"), x
    ),
    "by hand": lambda s, x: ops.sum(by_hand(s, x)[..., None] * x, axis=1),
    "values of its own": lambda s, x: ops.matmul(self_attention(x), ops.matmul(x, s.table)),
    "ops": lambda _, x: ops.dot_product_attention(x[:, :, None], x[:, :, None], x[:, :, None]),
}


def encoder(_, x):
    return x, ops.mean(x, axis=1)


def head(layer, x):
    return x, ops.softmax(ops.matmul(x, layer.table))


NOT_APPLIED = {
    "an encoder's state": encoder,
    "a second head": head,
    "probabilities into a dense layer": lambda s, x: (
        x,
        ops.matmul(ops.softmax(ops.matmul(x, s.table)), ops.transpose(s.table)),
    ),
    "an entropy": lambda _, x: (
        x,
        -ops.sum((p := ops.softmax(x)) * ops.log(p + 1e-6), axis=-1, keepdims=True),
    ),
    "an expected value": lambda _, x: (
        x,
        ops.sum(ops.softmax(x) * ops.arange(7, dtype="float32"), axis=-1, keepdims=True),
    ),
    "a gate": lambda _, x: (x * ops.softmax(x), ops.softmax(x)),
    "a masked sum": lambda _, x: (
        x,
        ops.sum(self_attention(x) * ops.cast(x[:, None, :, 0] > 0, "float32"), -1),
    ),
}


@pytest.mark.parametrize("name", APPLIED)
def test_a_softmax_that_weighs_values_is_attention(name):
    model, found = points(APPLIED[name])
    assert found == ["told"]
    outputs = pg.instrument(model, pg.Attention())(models.images((5, 7)))
    described = pg.instrument(model, pg.Attention()).manifest.explanations[0]
    weights = np.asarray(outputs["attention/told"])
    keys = described.axes.index("key")
    assert weights.shape[keys] == 5
    if name == "masked":  # and not normalised again: what is applied
        assert (weights.sum(keys) < 1 + 1e-5).all()
        assert (weights == 0).any()
    else:
        np.testing.assert_allclose(weights.sum(keys), 1, rtol=1e-4)


@pytest.mark.parametrize("name", NOT_APPLIED)
def test_what_a_layer_merely_returns_is_none(name):
    model, found = points(NOT_APPLIED[name])
    assert found == []
    with pytest.raises(SelectionError, match="no layer that can be probed for attention"):
        pg.instrument(model, pg.Attention("told"))


def test_recurrent_states_are_none():
    x = keras.Input((5, 7), name="x")
    y, state = layers.GRU(4, return_sequences=True, return_state=True, name="attention_gru")(x)
    model = keras.Model(x, [layers.Dense(2)(state), layers.Dense(3)(y)])
    assert not any("attention" in p.probes for p in pg.inspect(model))


def test_weights_are_those_that_are_applied():
    model, _ = points(APPLIED["pair"])
    data = models.images((5, 7))
    layer = model.get_layer("told")
    scores = np.tanh(data) @ np.asarray(layer.score)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    probed = pg.instrument(model, pg.Attention())
    np.testing.assert_allclose(probed(data)["attention/told"], expected, rtol=1e-5)
    assert probed.manifest.output("attention/told").axes == ("batch", "key", "query")


def cut_by_index(weights):
    return weights[..., 1:]


def cut_by_slice(weights):
    return ops.slice(weights, (0, 0, 1), (ops.shape(weights)[0], 5, 5))


@pytest.mark.parametrize("cut", [cut_by_index, cut_by_slice], ids=lambda v: v.__name__)
def test_keys_that_are_cut_off_weigh_nothing(cut):
    """A sink takes its share of the softmax and has no value: no position of the model."""

    def with_sink(_, x):
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        sink = ops.ones_like(scores[..., :1])
        return ops.matmul(cut(ops.softmax(ops.concatenate([sink, scores], -1))), x)

    model, _ = points(with_sink)
    data = models.images((5, 7))
    exponentials = np.exp(data @ data.transpose(0, 2, 1))
    expected = exponentials / (exponentials.sum(-1, keepdims=True) + np.e)
    probed = pg.instrument(model, pg.Attention())
    np.testing.assert_allclose(probed(data)["attention/told"], expected, rtol=1e-4)
    assert probed.manifest.output("attention/told").axes == ("batch", "query", "key")
    # Not as if the keys were those of another stream, as many as these and the sink.
    with pytest.raises(SelectionError, match="'told' does not fit in"):
        pg.instrument(model, pg.AttentionRelevance(target=0))


def dots():
    x = keras.Input((5, 7), name="x")
    scores = layers.Dot(axes=2)([x, x])
    return x, layers.Dot(axes=(2, 1))([layers.Activation("softmax", name="weights")(scores), x])


def multiplied():
    """One of the oldest recipes: Dense, softmax, RepeatVector, Permute, multiply, sum."""
    x = keras.Input((5, 7), name="x")
    scores = layers.Flatten()(layers.Dense(1, activation="tanh")(x))
    weights = layers.Activation("softmax", name="weights")(scores)
    spread = layers.Permute((2, 1))(layers.RepeatVector(7)(weights))
    return x, layers.Lambda(lambda v: ops.sum(v, 1))(layers.Multiply()([x, spread]))


def two_axes():
    x = keras.Input((3, 4, 6), name="x")
    return x, layers.MultiHeadAttention(2, 5, attention_axes=(1, 2), name="weights")(x, x)


def one_axis():
    x = keras.Input((3, 4, 6), name="x")
    return x, layers.MultiHeadAttention(2, 5, attention_axes=(2,), name="weights")(x, x)


def windows():
    """Patches of a picture, and attention within rows of them, which lie along the samples."""

    class Rows(layers.Layer):
        def call(self, x):
            rows = ops.reshape(ops.image.extract_patches(x, 2), (-1, 4, 12))
            weights = ops.softmax(ops.matmul(rows, ops.transpose(rows, (0, 2, 1))))
            return ops.reshape(ops.matmul(weights, rows), (-1, 3, 4, 12))

    x = keras.Input((6, 8, 3), name="x")
    return x, Rows(name="weights")(x)


@pytest.mark.parametrize(
    ("make", "axes"),
    [
        (windows, ("batch", "axis_1", "query", "key")),
        (dots, ("batch", "query", "key")),
        (multiplied, ("batch", "key")),
        (two_axes, ("batch", "head", "query_0", "query_1", "key_0", "key_1")),
        (one_axis, ("batch", "axis_1", "head", "query", "key")),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_weights_across_layers_and_over_several_axes(make, axes):
    x, y = make()
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    probed = pg.instrument(model, pg.Attention())
    assert [o.name for o in probed.manifest.explanations] == ["attention/weights"]
    assert probed.manifest.explanations[0].axes == axes
    weights = np.asarray(probed(models.images(x.shape[1:]))["attention/weights"])
    keys = tuple(i for i, name in enumerate(axes) if name.startswith("key"))
    np.testing.assert_allclose(weights.sum(keys), 1, rtol=1e-5)


def test_the_user_names_weights_that_are_no_softmax(monkeypatch, tmp_path):
    monkeypatch.setattr(attention, "_registered", {})

    class Gated(Told):
        """Sigmoid weights: no softmax shows them."""

    def call(_, x):
        weights = ops.sigmoid(ops.matmul(x, ops.transpose(x, (0, 2, 1))))
        return ops.matmul(weights, x), weights

    x = keras.Input((5, 7), name="x")
    y, _ = Gated(call, name="gated")(x)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    assert not any("attention" in p.probes for p in pg.inspect(model))
    pg.register_attention(Gated, lambda _, __, outputs: outputs[1])
    data = models.images((5, 7))
    done = pg.compile(model, pg.Attention(), tmp_path / "m.onnx")
    got = pg.runtime.load(tmp_path / "m.onnx").run(data)["attention/gated"]
    assert done.report.passed
    assert got.axes == ("batch", "query", "key")
    expected = 1 / (1 + np.exp(-data @ data.transpose(0, 2, 1)))
    np.testing.assert_allclose(got.array, expected, rtol=1e-4)
    pg.register_attention(Gated, lambda *_: "weights")
    with pytest.raises(InstrumentError, match=r"Gated returns 'weights' for layer 'gated'"):
        pg.inspect(model)
    with pytest.raises(SpecError, match="a class of Keras layers"):
        pg.register_attention("Gated", call)
    with pytest.raises(SpecError, match="takes a function"):
        pg.register_attention(Gated, None)


def test_attention_weights_are_those_the_model_applies_even_where_padded():
    model, x = models.transformer(), models.tokens()
    probed = pg.instrument(model, pg.Attention())
    outputs = probed(x)
    assert list(outputs) == ["scores", "attention/block_1/mha", "attention/block_2/mha"]
    np.testing.assert_array_equal(outputs["scores"], model(x))
    weights = np.asarray(outputs["attention/block_1/mha"])
    assert weights.shape == (3, 2, 9, 9)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert np.all(weights[0, :, :6, 6:] == 0)  # padded keys get nothing from real queries
    layer = model.get_layer("block_1").attention
    e = model.get_layer("embedding")(x)
    _, explicit = layer(e, e, return_attention_scores=True)
    real = (x != 0)[:, None, :, None] & np.ones_like(weights, bool)
    np.testing.assert_allclose(weights[real], np.asarray(explicit)[real], rtol=1e-5, atol=1e-7)


ATTENTION = {
    "causal": lambda x: keras.layers.MultiHeadAttention(2, 3, name="a")(x, x, use_causal_mask=True),
    "explicit": lambda x: keras.layers.MultiHeadAttention(2, 3, dropout=0.5, name="a")(x, x),
    "grouped": lambda x: keras.layers.GroupQueryAttention(3, 4, 2, name="a")(x, x),
    "dot": lambda x: keras.layers.Attention(name="a")([x, x[:, :3]]),
    "additive": lambda x: keras.layers.AdditiveAttention(name="a")([x, x[:, :3]]),
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("causal", (3, 2, 5, 5)),
        ("explicit", (3, 2, 5, 5)),
        ("grouped", (3, 4, 5, 5)),
        ("dot", (3, 5, 3)),
        ("additive", (3, 5, 3)),
    ],
)
def test_every_attention_layer_of_keras(kind, shape):
    x = keras.Input((5, 7), name="x")
    model = keras.Model(x, keras.layers.Flatten()(ATTENTION[kind](x)))
    data = models.images((5, 7))
    outputs = pg.instrument(model, pg.Attention())(data)
    weights = np.asarray(outputs["attention/a"])
    assert weights.shape == shape
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(outputs[model.output_names[0]], model(data))
    if kind == "causal":
        assert np.all(np.triu(weights, 1) == 0)


def test_custom_layers_that_return_output_and_weights():
    x = keras.Input((5, 7), name="x")
    context, _ = models.Bahdanau(name="look")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="head")(context))
    data = models.images((5, 7))
    outputs = pg.instrument(model, [pg.Activations("look"), pg.Attention("look")])(data)
    assert list(outputs) == [
        "head",
        "activation/look:0",
        "activation/look:1",
        "attention/look",
    ]
    np.testing.assert_array_equal(outputs["attention/look"], outputs["activation/look:1"])
    np.testing.assert_allclose(np.asarray(outputs["activation/look:1"]).sum(1), 1, rtol=1e-6)
