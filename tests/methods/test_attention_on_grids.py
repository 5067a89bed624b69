"""Rollout and relevance where positions lie along several axes: maps, frames, volumes.

The twin is plain attention over all positions as one sequence, in which those that a layer does
not look at are masked.
"""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from tests.sources.onnx.support import add_weights, parse
from tests.transformers import (
    CLASSES,
    HEADS,
    SIZE,
    WIDTH,
    block,
    by_hand,
    keras_head,
    onnx_block,
    onnx_model,
    relevance,
    rollout,
    weights,
)

MAP = (3, 4)
W = weights(3)
TARGET = [2, -1, 0, 3]
PROBES = (
    pg.AttentionRollout(name="rollout"),
    pg.AttentionRollout("max", 0.2, query=5, name="of one"),
    pg.AttentionRollout(query="mean", name="mean"),
    pg.AttentionRelevance(target="input", name="relevance"),
    pg.AttentionRelevance(target="input", query=-2, name="relevance of one"),
)


def data(rows, shape=MAP):
    return np.random.default_rng(rows).normal(size=(rows, *shape, WIDTH)).astype(np.float32)


def seen_along(shape, axes):
    """Which positions see which where attention is along some axes of a map, `[all, all]`."""
    places = list(itertools.product(*map(range, shape)))
    others = [i for i in range(len(shape)) if i + 1 not in axes]
    return np.array([[all(a[i] == b[i] for i in others) for b in places] for a in places])


def forward(x, along):
    """The scores of blocks of attention along axes, over all positions as one sequence."""
    shape = x.shape[1:-1]

    def scores(seen):
        y = tf.reshape(x, (len(x), math.prod(shape), WIDTH))
        for i, axes in enumerate(along):
            y = block(W, i, y, y, seen_along(shape, axes), seen)
        return tf.reduce_mean(y, 1) @ W["head"]

    return scores


def along_axes(i, x, axes):
    """`block` over some axes of a map."""
    layer = layers.MultiHeadAttention(
        HEADS, SIZE, use_bias=False, attention_axes=axes, name=f"attention_{i}"
    )
    x = x + layer(x, x)
    inner = [W[f"{n}{i}"].reshape(WIDTH, HEADS, SIZE) for n in "qkv"]
    layer.set_weights([*inner, W[f"o{i}"].reshape(HEADS, SIZE, WIDTH)])
    first, second = layers.Dense(len(W[f"a{i}"][0]), "tanh"), layers.Dense(WIDTH)
    z = x + second(first(x))
    first.set_weights([W[f"a{i}"], np.zeros(len(W[f"a{i}"][0]))])
    second.set_weights([W[f"b{i}"], np.zeros(WIDTH)])
    return z


def on_maps(along, shape=MAP):
    x = keras.Input((*shape, WIDTH), name="x")
    y = x
    for i, axes in enumerate(along):
        y = along_axes(i, y, axes)
    return keras.Model(x, keras_head(W, ops.reshape(y, (-1, math.prod(shape), WIDTH))))


def of_frames():
    """Attention within rows of a map, which are joined with the samples, then within columns."""
    x = keras.Input((*MAP, WIDTH), name="x")
    rows = along_axes(0, ops.reshape(x, (-1, MAP[1], WIDTH)), (1,))
    turned = ops.transpose(ops.reshape(rows, (-1, *MAP, WIDTH)), (0, 2, 1, 3))
    columns = along_axes(1, ops.reshape(turned, (-1, MAP[0], WIDTH)), (1,))
    y = ops.reshape(columns, (-1, *MAP[::-1], WIDTH))
    return keras.Model(x, keras_head(W, ops.reshape(y, (-1, math.prod(MAP), WIDTH))))


def onnx_frames():
    """The same as ONNX."""
    body = (
        "r = Reshape(x, rows)"
        + onnx_block(0, "r", "r")
        + "m = Reshape(x0, map) t = Transpose<perm=[0,2,1,3]>(m) c = Reshape(t, columns)"
        + onnx_block(1, "c", "c")
        + "last = Reshape(x1, line)"
    )
    sizes = {
        "rows": [-1, MAP[1], WIDTH],
        "map": [-1, *MAP, WIDTH],
        "columns": [-1, MAP[0], WIDTH],
        "line": [-1, math.prod(MAP), WIDTH],
    }
    more = {name: np.array(size) for name, size in sizes.items()}
    return onnx_model(f"float[N,{MAP[0]},{MAP[1]},{WIDTH}] x", body, "last", W, **more)


CASES = {
    "rows, columns and all": (on_maps, [(2,), (1,), (1, 2)]),
    "frames among the samples": (lambda _: of_frames(), [(2,), (1,)]),
    "ONNX": (lambda _: onnx_frames(), [(2,), (1,)]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_one_sequence_of_all_positions(tmp_path, case):
    build, along = CASES[case]
    path = tmp_path / "m.onnx"
    probes = [*PROBES, pg.AttentionRelevance(target=[2, 0], name="of classes")]
    assert pg.compile(build(along), probes, path).report.passed
    art = runtime.load(path)
    for rows in (1, 4):
        x = data(rows)
        matrices, gradients = by_hand(forward(x, along), TARGET[:rows])
        found = art.run(x, target=TARGET[:rows])
        whole, of_one = rollout(matrices), rollout(matrices, np.max, 0.2)[:, 5]
        twin = relevance(matrices, gradients)
        expected = {
            "rollout": whole.reshape(rows, *MAP, *MAP),
            "of one": of_one.reshape(rows, *MAP),
            "mean": whole.mean(1).reshape(rows, *MAP),
            "relevance": twin.reshape(rows, *MAP, *MAP),
            "relevance of one": twin[:, -2].reshape(rows, *MAP),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name].array, value, rtol=2e-4, atol=1e-5, err_msg=name)
        for place, chosen in enumerate((2, 0)):
            of_class = relevance(*by_hand(forward(x, along), [chosen] * rows))
            np.testing.assert_allclose(
                found["of classes"].array[:, place],
                of_class.reshape(rows, *MAP, *MAP),
                rtol=2e-4,
                atol=1e-5,
            )
        np.testing.assert_allclose(found["rollout"].array.sum((3, 4)), 1, rtol=1e-5)
    axes = {o.name: o.axes for o in art.manifest.explanations}
    assert axes["rollout"] == ("batch", "query_0", "query_1", "key_0", "key_1")
    assert axes["mean"] == axes["relevance of one"] == ("batch", "key_0", "key_1")
    art.run(data(1), target=[1])["rollout"].plot(0)


def test_tensorflow_computes_it_too_for_all_classes_at_once(tmp_path):
    shape, along = (2, 5), [(1,), (2,)]
    probes = [pg.AttentionRollout(name="rollout"), pg.AttentionRelevance(target="all", name="all")]
    assert pg.compile(on_maps(along, shape), probes, tmp_path / "saved").report.passed
    x = data(2, shape)
    found = runtime.load(tmp_path / "saved").run(x)
    matrices, _ = by_hand(forward(x, along), [0, 0])
    np.testing.assert_allclose(
        found["rollout"].array, rollout(matrices).reshape(2, *shape, *shape), atol=1e-5
    )
    each = [relevance(*by_hand(forward(x, along), [c, c])) for c in range(CLASSES)]
    twin = np.stack(each, 1).reshape(2, CLASSES, *shape, *shape)
    np.testing.assert_allclose(found["all"].array, twin, rtol=2e-4, atol=1e-5)
    assert found["all"].spec.axes[:4] == ("batch", "class", "query_0", "query_1")


# -- operators that are written out -------------------------------------------------------------

EINSUMS = f"""
    g (float[N,H,V,{WIDTH}] x) => (float[N,{CLASSES}] y) {{
      q = MatMul(x, q0)  k = MatMul(x, k0)  v = MatMul(x, v0)
      raw = Einsum<equation="nabc,ndec->nabde">(q, k)
      scores = Div(raw, root)
      total = ReduceLogSumExp<keepdims=1>(scores, keys)
      low = Sub(scores, total)
      weights = Exp(low)
      mixed = Einsum<equation="nabde,ndec->nabc">(weights, v)
      out = MatMul(mixed, o0)  z = Add(x, out)
      mean = ReduceMean<keepdims=0>(z, places)
      y = MatMul(mean, head)
    }}"""


def test_a_softmax_over_two_axes_of_open_sizes(tmp_path):
    constants = {
        "root": np.float32(2),
        "keys": np.array([3, 4]),
        "places": np.array([1, 2]),
        **{n: W[n] for n in ("q0", "k0", "v0", "o0", "head")},
    }
    model = add_weights(parse(EINSUMS), **constants)
    path = tmp_path / "m.onnx"
    probes = [pg.Attention(name="weights"), *PROBES]
    assert pg.compile(model, probes, path).report.passed
    art = runtime.load(path)
    assert art.manifest.output("weights").axes == (
        "batch", "query_0", "query_1", "key_0", "key_1"
    )  # fmt: skip
    for rows, shape in ((1, MAP), (3, (2, 5))):
        x = data(rows, shape)

        def scores(seen, x=x, shape=shape):
            y = tf.reshape(x, (len(x), math.prod(shape), WIDTH))
            a = seen(tf.nn.softmax(y @ W["q0"] @ tf.transpose(y @ W["k0"], (0, 2, 1)) / 2))
            return tf.reduce_mean(y + a @ (y @ W["v0"]) @ W["o0"], 1) @ W["head"]

        matrices, gradients = (
            [a[:, None] for a in each] for each in by_hand(scores, TARGET[:rows])
        )
        found = art.run(x, target=TARGET[:rows])
        twins = {
            "rollout": rollout(matrices),
            "relevance": relevance(matrices, gradients),
            "weights": matrices[0][:, 0],
        }
        for name, twin in twins.items():
            np.testing.assert_allclose(
                found[name].array, twin.reshape(rows, *shape, *shape), rtol=2e-4, atol=1e-5
            )


# -- queries on a map, keys along a line --------------------------------------------------------


class ToWords(layers.Layer):
    """Positions of a map attend to words; the weights are `[batch, height, width, word]`."""

    def call(self, x, words):
        a = ops.softmax(ops.einsum("bhwc,btc->bhwt", x, words))
        return x + ops.einsum("bhwt,btc->bhwc", a, words)


def test_a_map_that_attends_to_words(tmp_path):
    x, words = keras.Input((*MAP, WIDTH), name="x"), keras.Input((5, WIDTH), name="words")
    y = along_axes(0, x, (1, 2))
    model = keras.Model(
        [x, words], keras_head(W, ops.reshape(ToWords(name="cross")(y, words), (-1, 12, WIDTH)))
    )
    path = tmp_path / "m.onnx"
    probes = [pg.AttentionRelevance(target=1), pg.Attention("cross", "heads")]
    assert pg.compile(model, probes, path).report.passed
    feed = {"x": data(2), "words": data(3, (5,))[:2]}

    def scores(seen):
        z = tf.reshape(feed["x"], (2, math.prod(MAP), WIDTH))
        z = block(W, 0, z, z, None, seen)
        a = seen(tf.nn.softmax(z @ tf.transpose(feed["words"], (0, 2, 1))))
        return tf.reduce_mean(z + a @ feed["words"], 1) @ W["head"]

    (own, cross), (g, h) = by_hand(scores, [1, 1])
    within = relevance([own], [g])
    added = within - np.eye(12)
    total = added.sum(-1, keepdims=True)
    scaled = added / np.where(total > 0, total, 1) + np.eye(12)
    twin = np.swapaxes(scaled, 1, 2) @ np.maximum(cross * h, 0)
    found = runtime.load(path).run(feed)
    weights_of = found["attention/cross"]
    assert weights_of.spec.axes == ("batch", "query_0", "query_1", "key")  # none is a head
    np.testing.assert_allclose(weights_of.array, cross.reshape(2, *MAP, 5), atol=1e-5)
    by_axes = {
        found[o.name].spec.axes: found[o.name].array
        for o in found.manifest.explanations
        if o.kind == "attention_relevance"
    }
    np.testing.assert_allclose(
        by_axes["batch", "query_0", "query_1", "key"],
        twin.reshape(2, *MAP, 5),
        rtol=1e-3,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        by_axes["batch", "query_0", "query_1", "key_0", "key_1"],
        within.reshape(2, *MAP, *MAP),
        rtol=2e-4,
        atol=1e-5,
    )


# -- refused ------------------------------------------------------------------------------------


def test_a_query_that_is_not_there(tmp_path):
    with pytest.raises(pg.ProbegenError, match=r"query=12 is out of range.*12 queries, 0 to 11"):
        pg.compile(on_maps([(1,)]), pg.AttentionRollout(query=12), tmp_path / "m.onnx")
