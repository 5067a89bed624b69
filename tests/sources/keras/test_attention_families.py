"""Attention as people write it: the weights are those that the untouched model applies.

Layers here note down what they apply whenever they are called eagerly. The noted weights come from
the model as a user calls it: not watched, not traced.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import SelectionError
from probegen.sources.keras import attention, reference

T = 5


class Noting(layers.Layer):
    """A layer that notes the weights that it applies, and what came of them."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.wide = layers.Dense(units, name="wide")
        self.other = layers.Dense(units, name="other")
        self.score = layers.Dense(1, name="score")
        self.noted = []

    def build(self, *_, **__):
        self.built = True

    def note(self, weights):
        if tf.executing_eagerly() and isinstance(weights, tf.Tensor):
            self.noted.append(np.asarray(weights))
        return weights


class Bahdanau(Noting):
    def call(self, states, last):
        scores = self.score(ops.tanh(self.wide(states) + self.other(last)[:, None]))
        weights = self.note(ops.softmax(scores, axis=1))
        return ops.sum(weights * states, axis=1)


class Pooling(Noting):
    """Additive pooling, masked by a large negative score."""

    def call(self, x):
        there = ops.any(ops.not_equal(x, 0), -1)
        scores = ops.where(there, self.score(ops.tanh(self.wide(x)))[..., 0], -1e9)
        return ops.einsum("bt,btd->bd", self.note(tf.nn.softmax(scores)), x)


class Renormalised(Noting):
    """Masked behind the softmax, and normalised again."""

    def call(self, x):
        there = ops.cast(ops.any(ops.not_equal(x, 0), -1), "float32")
        weights = ops.softmax(self.score(x)[..., 0]) * there
        weights = self.note(weights / (ops.sum(weights, -1, keepdims=True) + 1e-9))
        return ops.sum(weights[..., None] * x, 1)


class FedMask(Noting):
    """As `Renormalised`, by a mask that is an input."""

    def call(self, x, there):
        weights = ops.softmax(self.score(x)[..., 0]) * there
        weights = self.note(weights / (ops.sum(weights, -1, keepdims=True) + 1e-9))
        return ops.sum(weights[..., None] * x, 1)


class Chosen(Noting):
    """Weights of rows that are masked whole are 0."""

    def call(self, x):
        there = ops.any(ops.not_equal(x, 0), -1)
        weights = ops.softmax(ops.where(there, self.score(x)[..., 0], -1e9))
        weights = self.note(ops.where(there, weights, 0.0))
        return tf.linalg.matvec(x, weights, transpose_a=True)


class ByReciprocal(Noting):
    def call(self, x):
        scores = self.score(x)
        e = tf.exp(scores - tf.reduce_max(scores, 1, keepdims=True))
        weights = self.note(e * tf.math.reciprocal(tf.reduce_sum(e, 1, keepdims=True)))
        return tf.reduce_sum(weights * x, 1)


class ByLogarithm(Noting):
    def call(self, x):
        weights = self.note(tf.exp(tf.nn.log_softmax(self.score(x)[..., 0])))
        return ops.sum(weights[..., None] * x, 1)


class Graph(Noting):
    """Graph attention over the neighbours in an adjacency matrix (Velickovic et al. 2018)."""

    def call(self, x, adjacency):
        h = self.wide(x)
        scores = ops.leaky_relu(self.score(h) + ops.transpose(self.score(h), (0, 2, 1)))
        weights = self.note(ops.softmax(ops.where(adjacency > 0, scores, -1e9)))
        return ops.mean(ops.matmul(weights, h), 1)


class Instances(Noting):
    """Gated multiple-instance attention (Ilse et al. 2018)."""

    def call(self, bag):
        gated = ops.tanh(self.wide(bag)) * ops.sigmoid(self.other(bag))
        weights = self.note(ops.softmax(self.score(gated), axis=1))
        return ops.matmul(ops.transpose(weights, (0, 2, 1)), bag)[:, 0]


class Heads(Noting):
    """Two heads by hand, from queries to other positions."""

    def call(self, x, memory):
        apart = lambda y: tf.transpose(tf.reshape(y, (-1, y.shape[1], 2, 3)), (0, 2, 1, 3))  # noqa: E731
        q, k = apart(self.wide(x)), apart(self.other(memory))
        weights = self.note(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / 3**0.5))
        mixed = tf.matmul(weights, k)
        return tf.reduce_mean(tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (-1, T, 6)), 1)


class Twice(Noting):
    """Two attentions in one call."""

    def call(self, x):
        first = self.note(ops.softmax(ops.matmul(self.wide(x), ops.transpose(x, (0, 2, 1)))))
        y = ops.matmul(first, x)
        second = self.note(ops.softmax(self.score(y), axis=1))
        return ops.sum(second * y, 1)


class Experts(Noting):
    """A gate that mixes the outputs of experts."""

    def __init__(self, **kwargs):
        super().__init__(3, **kwargs)

    def call(self, x):
        flat = ops.reshape(x, (-1, T * 6))
        gate = self.note(ops.softmax(self.wide(flat)))
        experts = ops.stack([self.other(flat), ops.tanh(self.other(flat)), self.other(-flat)], 1)
        return ops.einsum("be,bed->bd", gate, experts)


def series(shape=(T, 6)):
    return keras.Input(shape, name="x")


def over_states():
    x = series()
    states, last = layers.GRU(6, return_sequences=True, return_state=True)(x)
    return x, Bahdanau(name="it")(states, last)


def of(layer, more=None):
    def make():
        x = series()
        if more is None:
            return x, layer(name="it")(x)
        second = keras.Input(more, name="more")
        return [x, second], layer(name="it")(x, second)

    return make


FAMILIES = {
    "bahdanau": (over_states, ("batch", "key", "query")),
    "pooling": (of(Pooling), ("batch", "key")),
    "renormalised": (of(Renormalised), ("batch", "key")),
    "mask that is fed": (of(FedMask, (T,)), ("batch", "key")),
    "chosen": (of(Chosen), ("batch", "key")),
    "reciprocal": (of(ByReciprocal), ("batch", "key", "query")),
    "logarithm": (of(ByLogarithm), ("batch", "key")),
    "graph": (of(Graph, (T, T)), ("batch", "query", "key")),
    "instances": (of(Instances), ("batch", "key", "query")),
    "heads": (of(Heads, (4, 6)), ("batch", "head", "query", "key")),
    "experts": (of(Experts), ("batch", "key")),
}


def model_of(make):
    keras.utils.set_random_seed(8)
    x, y = make()
    return keras.Model(x, layers.Dense(2, name="out")(y))


def fed(model, batch=3, length=T, seed=0):
    """Noise, with padding at the end of each sample and one of padding alone."""
    rng = np.random.default_rng(seed)
    found = []
    for spec in model.inputs:
        shape = (batch, *(length if n is None else n for n in spec.shape[1:]))
        x = 2 * rng.standard_normal(shape).astype("float32")
        x[:, -2:] = 0
        x[-1] = 0
        found.append((x > 0).astype("float32") if spec.name == "more" and len(shape) == 2 else x)
    return found if len(found) > 1 else found[0]


def noted(model, x, layer="it"):
    """What the untouched model's layer notes when it is called as a user calls it."""
    it = model.get_layer(layer)
    it.noted.clear()
    np.asarray(model(x))
    return list(it.noted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_those_of_the_untouched_model(family):
    make, axes = FAMILIES[family]
    model = model_of(make)
    (point,) = [p for p in pg.inspect(model) if "attention" in p.probes]
    assert (point.path, point.role) == ("it", "attention")
    assert pg.inspect(model)  # by role as well
    probed = pg.instrument(model, pg.Attention("role:attention"))
    (spec,) = probed.manifest.explanations
    assert (spec.name, spec.axes) == ("attention/it", axes)
    for batch in (2, 5):
        x = fed(model, batch)
        got = np.asarray(probed(x)["attention/it"])
        (expected,) = noted(model, x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
        sums = got.sum(axes.index("key"))
        whole = [] if family in ("renormalised", "chosen", "mask that is fed") else [sums]
        for each in whole or [sums[:-1]]:
            np.testing.assert_allclose(each, 1, rtol=1e-5)
        if family in ("renormalised", "chosen", "pooling"):
            assert (got[:-1, -2:] == 0).all()


def test_several_in_one_call_are_told_apart(tmp_path):
    model = model_of(of(Twice))
    probes = [pg.Attention(), pg.Attention("it", reduce="heads", name="a")]
    pg.compile(model, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    assert [o.name for o in art.manifest.explanations] == [
        "attention/it:0", "attention/it:1", "a/it:0", "a/it:1",
    ]  # fmt: skip
    x = fed(model)
    result = art.run(x)
    for place, expected in enumerate(noted(model, x)):
        np.testing.assert_allclose(result[f"attention/it:{place}"].array, expected, atol=1e-6)


def test_weights_in_another_order_than_the_model_applies_them_fail(tmp_path, monkeypatch):
    """Artefact and TensorFlow agree, as both give out what is planted: the prediction tells."""
    as_they_are = attention._in_steps

    def turned_round(graph, call, weights):
        found = as_they_are(graph, call, weights)
        with graph.as_default():
            return dataclasses.replace(found, tensor=tf.reverse(found.tensor, [1]))

    model = model_of(of(Pooling))
    report = pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report
    assert "prediction with these weights in place" in report["attention/it"].witness
    monkeypatch.setattr(attention, "_in_steps", turned_round)
    monkeypatch.setattr(reference, "in_one_order", lambda _: True)
    with pytest.raises(pg.errors.VerificationError, match=r"attention/it.*with these weights"):
        pg.compile(model, pg.Attention(), tmp_path / "wrong.onnx")


# -- between layers ----------------------------------------------------------------------------


def functional():
    x = series()
    weights = ops.softmax(layers.Dense(1, name="score")(x), axis=1)
    return keras.Model(x, layers.Dense(2, name="out")(ops.sum(weights * x, axis=1)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.score, self.out = layers.Dense(1, name="score"), layers.Dense(2, name="out")

    def call(self, x):
        weights = tf.nn.softmax(self.score(x), axis=1)
        mixed = tf.reduce_sum(weights * x, 1)
        again = tf.nn.softmax(self.score(x)[..., 0])
        return self.out(mixed + tf.einsum("bt,btd->bd", again, x))


def nested():
    inner, x = functional(), series()
    return keras.Model(x, layers.Dense(2)(keras.Model(inner.input, inner.output, name="in")(x)))


def test_operations_between_layers(tmp_path):
    model = functional()
    x = fed(model)
    (point,) = [p for p in pg.inspect(model) if "attention" in p.probes]
    assert (point.class_name, point.role) == ("Softmax", "attention")
    report = pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report
    assert report.passed
    got = runtime.load(tmp_path / "m.onnx").run(x)[f"attention/{point.path}"].array
    scores = np.asarray(model.get_layer("score")(x), np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_operations_in_a_model_that_is_nested():
    (point,) = [p for p in pg.inspect(nested()) if "attention" in p.probes]
    assert point.path.startswith("in/softmax")


def test_a_subclassed_model():
    model = Subclassed()
    x = fed(functional())
    model(x)
    points = [p.path for p in pg.inspect(model) if "attention" in p.probes]
    assert points == ["softmax", "softmax_1"]
    probed = pg.instrument(model, pg.Attention())
    outputs = probed(x)
    scores = np.asarray(model.score(x), np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["attention/softmax"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["attention/softmax_1"], expected[..., 0], rtol=1e-5)


def test_relevance_through_attention_between_layers(tmp_path):
    """Gradients at weights that no layer makes: differences of the model's score confirm them."""
    keras.utils.set_random_seed(3)
    x = series()
    q, k = layers.Dense(6)(x), layers.Dense(6)(x)
    weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    y = layers.GlobalAveragePooling1D()(ops.matmul(weights, x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    report = pg.compile(model, pg.AttentionRelevance(target=1), tmp_path / "m.onnx").report
    assert report.passed


def test_relevance_behind_a_loop(tmp_path):
    """Weights are found again where the loop before them is written as one operator.

    A softmax along another axis than the last is turned back by a transposition, and loops write
    transpositions of their own.
    """
    keras.utils.set_random_seed(3)
    x = keras.Input((7, 5), name="series")
    h = layers.LSTM(6, return_sequences=True)(x)
    q, k = layers.Dense(6)(h), layers.Dense(6)(h)
    by_key = ops.softmax(ops.matmul(k, ops.transpose(q, (0, 2, 1))), axis=1)
    y = layers.GlobalAveragePooling1D()(ops.matmul(ops.transpose(by_key, (0, 2, 1)), h))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    report = pg.compile(model, pg.AttentionRelevance(target=1), tmp_path / "m.onnx").report
    assert report.passed


class Windows(Noting):
    """Attends within windows of 2 x 2 positions, as Swin does: windows are joined with samples."""

    def call(self, x):
        rows = ops.shape(x)[0]
        flat = ops.reshape(x, (rows, ops.shape(x)[1] * ops.shape(x)[2], 6))
        parts = ops.transpose(ops.reshape(flat, (-1, 3, 2, 2, 2, 6)), (0, 1, 3, 2, 4, 5))
        parts = ops.reshape(parts, (-1, 4, 6))
        q = ops.transpose(ops.reshape(self.wide(parts), (-1, 4, 2, 3)), (0, 2, 1, 3))
        scores = ops.matmul(q, ops.transpose(q, (0, 1, 3, 2)))
        mixed = ops.matmul(self.note(ops.softmax(scores)), q)
        return ops.mean(ops.reshape(mixed, (rows, 3 * 2 * 2 * 4, 3)), 1)


def test_windows_are_told_from_samples(tmp_path):
    keras.utils.set_random_seed(5)
    x = keras.Input((6, 4, 6), name="x")
    model = keras.Model(x, layers.Dense(2, name="out")(Windows(name="it")(ops.tril(x, 2))))
    inner = model.get_layer("it").wide
    probes = [pg.Attention(), pg.Activations(inner, name="inner")]
    report = pg.compile(model, probes, tmp_path / "m.onnx").report
    assert "these weights in place" in report["attention/it"].witness
    art = runtime.load(tmp_path / "m.onnx")
    activation, spec = (art.manifest.output(name) for name in ("inner", "attention/it"))
    assert spec.axes == ("batch", "window_0", "window_1", "head", "query", "key")
    assert activation.axes == ("batch", "window_0", "window_1", "time", "channel")
    for batch in (2, 3):
        x = fed(model, batch)
        (expected,) = noted(model, x)
        result = art.run(x)
        got = result["attention/it"].array
        np.testing.assert_allclose(got, expected.reshape(batch, 3, 2, 2, 4, 4), atol=1e-6)
        parts = np.tril(x, 2).reshape(batch, 3, 2, 2, 2, 6).transpose(0, 1, 3, 2, 4, 5)
        right = inner(parts.reshape(batch, 3, 2, 4, 6))
        np.testing.assert_allclose(result["inner"].array, right, atol=1e-6)
    with pytest.raises(SelectionError, match="along its first axis samples are joined"):
        pg.compile(model, pg.InputGradient(wrt=inner), tmp_path / "none.onnx")


# -- what is none --------------------------------------------------------------------------------


class Aside(layers.Layer):
    """Attends in a branch that the answer does not depend on."""

    def call(self, x):
        weights = ops.softmax(x, axis=1)
        self.add_loss(ops.mean(ops.sum(weights * ops.tanh(x), axis=1)))
        return x


NONE = {
    "classes": lambda x: layers.Dense(3, activation="softmax")(layers.Flatten()(x)),
    "classes of each step": layers.Dense(3, activation="softmax"),
    "a loss": Aside(),
    "stored vectors": lambda x: layers.Dense(2)(layers.Softmax()(layers.Dense(4)(x))),
}


@pytest.mark.parametrize("case", NONE)
def test_what_weighs_no_values_is_none(case):
    x = series()
    model = keras.Model(x, NONE[case](x))
    assert [p for p in pg.inspect(model) if "attention" in p.probes] == []


def test_what_has_no_weights_is_refused_with_what_to_do():
    class Linear(layers.Layer):
        """Linear attention (Katharopoulos et al. 2020): its weights are nowhere."""

        def call(self, x):
            k = ops.elu(x) + 1
            return ops.matmul(k, ops.matmul(ops.transpose(k, (0, 2, 1)), x))

    x = series()
    model = keras.Model(x, layers.GlobalAveragePooling1D()(Linear(name="linear")(x)))
    with pytest.raises(SelectionError, match="register_attention"):
        pg.instrument(model, pg.Attention("linear"))
    x = series()
    with pytest.raises(SelectionError, match="register_attention"):
        pg.instrument(keras.Model(x, layers.Flatten()(x)), pg.Attention())


# -- over time -----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="probegen_tests")
class Cell(Noting):
    """Attends, in each step, from its state to the parts of what comes in: `[batch, 3 * 4]`."""

    def __init__(self, units=5, **kwargs):
        super().__init__(4, **kwargs)
        self.state_size = self.output_size = units
        self.step = layers.Dense(units, activation="tanh", name="step")

    def call(self, x, states):
        parts = ops.reshape(x, (-1, 3, 4))
        query = self.wide(states[0])[:, None]
        weights = self.note(ops.softmax(ops.matmul(query, ops.transpose(parts, (0, 2, 1)))))
        mixed = ops.matmul(weights, parts)[:, 0]
        new = self.step(ops.concatenate([mixed, states[0]], -1))
        return new, [new]


def recurrent(length=None, wrapped=lambda y: y, **options):
    keras.utils.set_random_seed(9)
    x = keras.Input((length, 12), name="x")
    y = layers.Masking(name="masking")(x) if options.pop("masked", False) else x
    cell = Cell(name="cell")
    layer = layers.RNN(cell, return_sequences=True, name="rnn", **options)
    model = keras.Model(x, layers.Dense(2)(wrapped(layer)(y)))
    return model, cell


def each_step(model, cell, x):
    """The weights of each step, `[batch, time, 1, 3]`, from the untouched model called eagerly."""
    cell.noted.clear()
    np.asarray(model(x))
    return np.stack(cell.noted[-x.shape[1] :], 1)


@pytest.mark.parametrize(
    "options",
    [{}, {"length": 4}, {"masked": True}, {"go_backwards": True}, {"length": 4, "unroll": True}],
    ids=str,
)
def test_weights_in_a_cell_are_given_over_time(tmp_path, options):
    model, cell = recurrent(**options)
    assert pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report.passed
    art = runtime.load(tmp_path / "m.onnx")
    (spec,) = art.manifest.explanations
    assert (spec.name, spec.axes) == ("attention/rnn", ("batch", "time", "query", "key"))
    for batch, length in ((2, 4), (3, 4 if options.get("length") else 7)):
        x = fed(model, batch, length)
        got = art.run(x)[spec.name].array
        expected = each_step(model, cell, x)
        if options.get("go_backwards"):
            expected = expected[:, ::-1]
        if options.get("masked"):
            expected = expected * (x != 0).any(-1)[..., None, None]
            assert (got[:, -2:] == 0).all()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_both_directions(tmp_path):
    model, _ = recurrent(wrapped=lambda layer: layers.Bidirectional(layer, name="both"))
    assert pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report.passed
    art = runtime.load(tmp_path / "m.onnx")
    names = [o.name for o in art.manifest.explanations]
    assert [n.rpartition("/")[2] for n in names] == ["forward_rnn", "backward_rnn"]
    # Alike where both see the same: steps are those of the input in either direction.
    x = np.repeat(fed(model, 2, 1), 6, 1)
    result = art.run(x)
    backward = model.get_layer("both").backward_layer.cell
    backward.noted.clear()
    np.asarray(model(x))
    last = np.stack(backward.noted[-6:], 1)[:, ::-1]
    np.testing.assert_allclose(result[names[1]].array, last, rtol=1e-4, atol=1e-6)


class EachSample(Noting):
    """Attends within each sample, one after the other."""

    def call(self, x):
        def of_one(steps):
            weights = self.note(ops.softmax(ops.matmul(self.wide(steps), ops.transpose(steps))))
            return ops.matmul(weights, steps)

        return ops.map(of_one, x)


def test_a_loop_over_the_samples_has_no_time(tmp_path):
    x = series()
    model = keras.Model(x, layers.Flatten()(EachSample(x.shape[-1], name="each")(x)))
    assert pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report.passed
    art = runtime.load(tmp_path / "m.onnx")
    assert art.manifest.explanations[0].axes == ("batch", "query", "key")
    for batch in (2, 3):
        value = fed(model, batch, T)
        got = art.run(value)["attention/each"].array
        scores = model.get_layer("each").wide(value) @ value.transpose(0, 2, 1)
        np.testing.assert_allclose(got, tf.nn.softmax(scores), rtol=1e-4, atol=1e-6)


class Decoder(Noting):
    """Attends to a memory in each turn of a loop of its own."""

    def call(self, memory):
        def turn(i, state, total):
            weights = self.note(tf.nn.softmax(tf.einsum("btd,bd->bt", memory, state)))
            state = tf.tanh(tf.einsum("bt,btd->bd", weights, memory) + state)
            return i + 1, state, total + state

        start = self.wide(memory[:, 0])
        return tf.while_loop(lambda i, *_: i < 3, turn, [0, start, tf.zeros_like(start)])[2]


def test_a_loop_of_ones_own(tmp_path):
    x = series((None, 6))
    keras.utils.set_random_seed(1)
    decoder = Decoder(name="it")
    model = keras.Model(x, layers.Dense(2)(decoder(x)))
    assert pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report.passed
    art = runtime.load(tmp_path / "m.onnx")
    assert art.manifest.explanations[0].axes == ("batch", "time", "key")
    for batch, length in ((2, 4), (3, 7)):
        x = fed(model, batch, length)
        decoder.noted.clear()
        np.asarray(model(x))
        got = art.run(x)["attention/it"].array
        np.testing.assert_allclose(got, np.stack(decoder.noted, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [None, 3])
def test_time_distributed(tmp_path, length):
    keras.utils.set_random_seed(2)
    words = keras.Input((T, 6), name="words")
    inner = keras.Model(words, Pooling(name="it")(words), name="sentence")
    x = keras.Input((length, T, 6), name="x")
    y = layers.TimeDistributed(inner, name="each")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))
    assert pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report.passed
    art = runtime.load(tmp_path / "m.onnx")
    (spec,) = art.manifest.explanations
    assert (spec.name, spec.axes) == ("attention/each/sentence/it", ("batch", "time", "key"))
    for batch, steps in ((2, 3), (4, length or 5)):
        x = fed(model, batch, steps)
        it = inner.get_layer("it")
        it.noted.clear()
        for step in range(steps):
            np.asarray(inner(x[:, step]))
        got = art.run(x)[spec.name].array
        np.testing.assert_allclose(got, np.stack(it.noted, 1), rtol=1e-4, atol=1e-6)


class Looking(layers.Layer):
    """A cell that looks at the parts of what it reads."""

    def __init__(self, **options):
        super().__init__(**options)
        self.state_size = 4
        self.query = layers.Dense(2)
        self.new = layers.Dense(4, activation="tanh")

    def build(self, _):
        self.query.build((None, 4))
        self.new.build((None, 6))

    def weights_of(self, parts, state):
        return ops.softmax(ops.einsum("brc,bc->br", parts, self.query(state) + 1.0))

    def call(self, x, states):
        parts = ops.reshape(x, (-1, 3, 2))
        seen = ops.einsum("br,brc->bc", self.weights_of(parts, states[0]), parts)
        new = self.new(ops.concatenate([seen, states[0]], -1))
        return new, [new]


@pytest.mark.parametrize("backwards", [False, True])
def test_weights_in_a_cell_that_runs_in_every_frame(backwards):
    x = keras.Input((None, 5, 6), name="x")
    rnn = layers.RNN(Looking(), go_backwards=backwards)
    y = layers.GlobalAveragePooling1D()(layers.TimeDistributed(rnn, name="frames")(x))
    probed = pg.instrument(keras.Model(x, layers.Dense(2)(y)), pg.Attention())
    given = np.random.default_rng(3).normal(size=(2, 3, 5, 6)).astype("float32")
    rows, state, expected = given.reshape(6, 5, 6), np.zeros((6, 4), "float32"), [None] * 5
    for t in range(4, -1, -1) if backwards else range(5):
        expected[t] = rnn.cell.weights_of(rows[:, t].reshape(6, 3, 2), state)
        state = rnn.cell(rows[:, t], [state])[0]
    found = probed(given)["attention/frames"]
    np.testing.assert_allclose(found, np.stack(expected, 1).reshape(2, 3, 5, 3), atol=1e-6)
    (described,) = probed.manifest.explanations
    assert described.axes == ("batch", "time_0", "time_1", "key")
