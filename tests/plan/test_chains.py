"""Which attention layers are of one stream of positions: told from the graph, others refused."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import SelectionError
from probegen.plan.chains import readings_of
from probegen.plan.making import make_plan
from probegen.plan.positions import Reading
from probegen.sources import open_source
from tests import transformers
from tests.sources.onnx.joined_heads import joined_heads
from tests.sources.onnx.support import hard
from tests.sources.onnx.test_attention_weights import _windows
from tests.transformers import keras_attention, keras_block, keras_head, relevance, rollout, weights

W = weights(3, cross=(10,))


def names(model, probe=None):
    """The layers of the chain of a model, as the manifest lists them."""
    plan = make_plan(open_source(model, None).view, [probe or pg.AttentionRollout()])
    return list(plan.chains[0].spec.detail["layers"])


class Applied(layers.Layer):
    """A layer whose call is given; has a square matrix of weights."""

    def __init__(self, told, **kwargs):
        super().__init__(**kwargs)
        self.told = told

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        return self.told(self, x)


def when_asked(build):
    """Returns a function whose result builds a model once, when that is called."""
    return lambda *args: functools.cache(lambda: build(*args))


@when_asked
def around(make, shape=(8, 6)):
    """A model around a layer, or around a function of an input."""
    x = keras.Input(shape, name="x")
    y = make(x)
    return keras.Model(x, layers.Dense(3)(ops.mean(y, tuple(range(1, len(y.shape) - 1)))))


def attended(x):
    return ops.matmul(ops.softmax(ops.matmul(x, ops.swapaxes(x, -1, -2))), x)


# -- one stream --------------------------------------------------------------------------------


def two(make):
    """Two layers with residual connections, one behind the other."""

    def stacked(x):
        return x + make(1)(x + make(0)(x))

    return around(stacked)


def same_layer_twice(x):
    layer = layers.MultiHeadAttention(2, 3, name="same")
    y = x + layer(x, x)
    return y + layer(y, y)


def image_patches(x):
    y = layers.Reshape((6, 6))(layers.Conv2D(6, 4, 4)(x))
    token = ops.zeros_like(y[:, :1])
    return keras_block(W, 1, *[keras_block(W, 0, *[ops.concatenate([token, y], 1)] * 2)] * 2)


CHAINS = {
    "grouped queries": two(
        lambda i: lambda x: layers.GroupQueryAttention(3, 4, 2, name=f"a{i}")(x, x)
    ),
    "without heads": two(lambda i: lambda x: layers.Attention(name=f"a{i}")([x, x])),
    "additive": two(lambda i: lambda x: layers.AdditiveAttention(name=f"a{i}")([x, x])),
    "custom": two(lambda i: Applied(lambda _, x: attended(x), name=f"a{i}")),
    "convolutions between": two(
        lambda i: (
            lambda x: layers.Conv1D(6, 3, padding="same")(
                layers.MultiHeadAttention(2, 3, name=f"a{i}")(x, x)
            )
        )
    ),
    "one layer twice": around(same_layer_twice),
    "patches of an image": around(image_patches, (12, 8, 3)),
}


@pytest.mark.parametrize("case", CHAINS)
def test_layers_of_one_stream(case):
    assert len(names(CHAINS[case]())) == 2
    assert len(names(CHAINS[case](), pg.AttentionRelevance())) == 2


def test_the_names_of_one_chain():
    assert names(CHAINS["custom"]()) == ["a0", "a1"]
    assert names(CHAINS["one layer twice"]()) == ["same#0", "same#1"]
    assert names(CHAINS["custom"](), pg.AttentionRollout(select="a1")) == ["a1"]


def test_open_lengths_and_heads_joined_with_samples(tmp_path):
    """torch's bmm: `[batch*heads, query, key]` comes out told apart, gradients too."""
    path = tmp_path / "m.onnx"
    probes = [pg.AttentionRollout(), pg.AttentionRelevance(target=(1, 2))]
    assert pg.compile(joined_heads(), probes, path).report.passed
    x = hard(4, 5, 12) / 3
    heads = x.astype(np.float64).reshape(4, 5, 3, 4).transpose(0, 2, 1, 3)
    scores = np.exp(heads @ heads.swapaxes(-1, -2))
    a = scores / scores.sum(-1, keepdims=True)
    # The target is element (1, 2): head 0, column 2, of query 1.
    g = np.zeros_like(a)
    g[:, 0, 1] = heads[:, 0, :, 2]
    found = runtime.load(path).run(x)
    np.testing.assert_allclose(found["attention_rollout/weights"].array, rollout([a]), atol=1e-6)
    twin = relevance([a], [g])
    np.testing.assert_allclose(found["attention_relevance/weights"].array, twin, atol=1e-6)


# -- no stream, or several ---------------------------------------------------------------------


def between(function):
    """Two layers with something between them."""
    return around(lambda x: keras_block(W, 1, *[function(keras_block(W, 0, x, x))] * 2))


@when_asked
def towers():
    a, b = (keras.Input((5, 6), name=n) for n in "ab")
    y, z = keras_block(W, 0, a, a), keras_block(W, 1, b, b)
    return keras.Model([a, b], keras_head(W, y + z))


@when_asked
def crossing(lengths=(5, 5)):
    a, b = (keras.Input((n, 6), name=name) for n, name in zip(lengths, "ab", strict=True))
    e = keras_block(W, 0, a, a)
    d = keras_block(W, 1, b, b)
    return keras.Model([a, b], keras_head(W, keras_block(W, 10, d, e)))


@when_asked
def same_input_twice():
    x = keras.Input((5, 6), name="x")
    e, d = keras_block(W, 0, x, x), keras_block(W, 1, x, x)
    return keras.Model(x, keras_head(W, keras_block(W, 10, d, e)))


def windows(x):
    cut = ops.reshape(x, (-1, 4, 6))
    return ops.reshape(attended(cut), (-1, 8, 6)) + x


def channels(layer, x):
    q = ops.swapaxes(ops.matmul(x, layer.table), 1, 2)
    a = ops.softmax(ops.matmul(q, x * 2))
    return ops.swapaxes(ops.matmul(a, ops.swapaxes(x, 1, 2)), 1, 2)


@when_asked
def values_of_others():
    a, b = (keras.Input((5, 6), name=n) for n in "ab")
    y = layers.MultiHeadAttention(2, 3, name="odd")(a, b, a)
    return keras.Model([a, b], keras_head(W, y))


def beside(x):
    y = x + keras_attention(W, 0, x, x) + keras_attention(W, 1, x, x)
    return keras_block(W, 2, y, y)


@when_asked
def regrouped(steps, features):
    """Attention over 8 positions of 6 features, then over those that a reshape makes of both."""
    x = keras.Input((8, 6), name="x")
    y = layers.MultiHeadAttention(2, 3, name="attention_0")(x, x)
    y = layers.Reshape((steps, features))(y)
    y = layers.MultiHeadAttention(2, 3, name="attention_1")(y, y)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))


REFUSED = {
    "pooled": (between(layers.MaxPooling1D(2)), "not on one way.*select=.'attention_0'"),
    "turned round": (between(lambda y: ops.flip(y, 1)), "not on one way"),
    "rolled": (between(lambda y: ops.roll(y, 2, 1)), "not on one way"),
    "cut": (between(lambda y: y[:, 1:]), "not on one way"),
    "padded": (between(layers.ZeroPadding1D(1)), "not on one way"),
    "joined with a token": (
        between(lambda y: ops.concatenate([y[:, :1], y], 1)),
        "not on one way",
    ),
    "mixed along time": (
        between(lambda y: layers.Permute((2, 1))(layers.Dense(8)(layers.Permute((2, 1))(y)))),
        "not on one way",
    ),
    "regrouped with the features": (regrouped(4, 12), "not on one way"),
    "cut into its features": (regrouped(16, 3), "not on one way"),
    "two inputs": (towers(), "not on one way.*select=.'attention_[01]'.; select="),
    "cross-attention of one length": (
        crossing(),
        "'attention_10' attends from positions",
    ),
    "cross-attention": (crossing((7, 5)), "'attention_10' attends from positions"),
    "two streams of one input": (same_input_twice(), "these are two streams"),
    "windows": (around(Applied(lambda _, x: windows(x), name="w")), "'w' .*within windows"),
    "shifted windows": (
        around(Applied(lambda _, x: ops.roll(windows(ops.roll(x, 2, 1)), -2, 1), name="w")),
        "'w' .*within windows",
    ),
    "channels within frames": (
        around(
            Applied(lambda _, x: ops.swapaxes(attended(ops.swapaxes(x, 2, 3)), 2, 3), name="f"),
            (3, 4, 6),
        ),
        "'f' does not fit in: it attends over channels",
    ),
    "channels": (around(Applied(channels, name="c")), "'c' does not fit in|'c' attend"),
    "values of others": (values_of_others(), "'odd'.*values of other positions than its keys"),
    "beside each other": (around(beside), "'attention_2' reads was written by layers beside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_chained_is_refused_by_name(case, tmp_path):
    build, says = REFUSED[case]
    model = build()
    with pytest.raises(SelectionError, match=says):
        pg.compile(model, pg.AttentionRollout(), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    if "cross-attention" not in case:
        with pytest.raises(SelectionError, match=r"pg.AttentionRelevance|does not fit"):
            make_plan(open_source(model, None).view, [pg.AttentionRelevance()])


def test_a_part_can_be_selected():
    assert names(REFUSED["pooled"][0](), pg.AttentionRollout(select="attention_1")) == [
        "attention_1"
    ]
    plan = make_plan(open_source(crossing()(), None).view, [pg.AttentionRelevance()])
    assert {c.spec.name for c in plan.chains} == {
        "attention_relevance/attention_10",
        "attention_relevance/attention_1",
    }


ONNX_BETWEEN = {
    "pooled": "pt = Transpose<perm=[0,2,1]>(x0) pp = MaxPool<kernel_shape=[2], strides=[2]>(pt) "
    "between = Transpose<perm=[0,2,1]>(pp)",
    "turned round": "between = Slice(x0, tail, front, one, back)",
    "cut": "between = Slice(x0, one, far, one)",
    "gathered": "between = Gather<axis=1>(x0, order)",
}


@pytest.mark.parametrize("case", ONNX_BETWEEN)
def test_onnx_files_whose_positions_move(case):
    body = transformers.onnx_block(0, "x", "x") + ONNX_BETWEEN[case]
    body += transformers.onnx_block(1, "between", "between")
    more = {
        "tail": np.array([-1]),
        "front": np.array([-100]),
        "back": np.array([-1]),
        "far": np.array([100]),
        "order": np.array([1, 0, 3, 2, 5, 4, 7, 6]),
    }
    model = transformers.onnx_model("float[N,8,6] x", body, "x1", weights(2), **more)
    with pytest.raises(SelectionError, match=r"not on one way.*select=.'weights0'"):
        names(model)


def test_onnx_windows():
    with pytest.raises(SelectionError, match=r"'w' does not fit in: .* within windows"):
        names(_windows())


def test_numbers_of_readings_count_weights_inside_of_loops_too():
    """Readings know of those outside of loops alone, and may come in any order."""
    nothing = frozenset()
    told = [Reading((), (), frozenset([1]), nothing, ""), Reading((), (), nothing, nothing, "")]
    view = SimpleNamespace(readings=lambda asked: told[: len(asked)])
    loop, later, first = (SimpleNamespace(ref=r) for r in (None, "later", "first"))
    found = readings_of(view, [loop, later, first])
    assert "each step of a loop" in found[0].problem
    assert [r.queries_after for r in found] == [nothing, {2}, nothing]
