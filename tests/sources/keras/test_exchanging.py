"""Listeners that put other tensors in the place of those that operations make."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.sources.keras.exchanging import exchanging
from tests import models


def ten_times(kind):
    return lambda tensor: tf.multiply(tensor, 10.0) if tensor.op.type == kind else None


@pytest.mark.parametrize("kinds", [("Exp", "Neg"), ("Neg", "Exp")])
def test_several_listeners_each_see_what_is_made(kinds):
    @tf.function
    def traced(x):
        with exchanging(ten_times(kinds[0])), exchanging(ten_times(kinds[1])):
            return tf.abs(tf.negative(x)), tf.exp(x)

    x = np.array([1.0, 2.0], np.float32)
    for found, right in zip(traced(x), (10 * x, 10 * np.exp(x)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_what_stays_is_a_list_as_without_a_listener():
    """Keras turns round in its place what `unstack` gives, in layers that go backwards."""

    @tf.function
    def traced(x):
        with exchanging(ten_times("Neg")):
            steps = tf.unstack(x)
            steps.reverse()
            return tf.stack(steps)

    np.testing.assert_array_equal(traced(np.array([[1.0], [2.0], [3.0]])), [[3.0], [2.0], [1.0]])


def test_token_gradients_beside_attention_relevance(tmp_path):
    # The first waits for the rows that are made of ids, the other for shares inside a layer.
    both = [pg.InputGradient(target=1), pg.AttentionRelevance(target=1)]
    x = keras.Input((5,), dtype="int32")
    rows = keras.ops.one_hot(x, 13)
    y = keras.layers.MultiHeadAttention(2, 3)(rows, rows)
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(y)))
    ids, found = models.tokens(5), {}
    for name, probes in {"both": both, "first": both[:1], "second": both[1:]}.items():
        path = tmp_path / f"{name}.onnx"
        pg.compile(model, probes, path)
        art = runtime.load(path)
        result = art.run(ids)
        found[name] = {o.name: result[o.name].array for o in art.manifest.outputs}
    alone = found["first"] | found["second"]
    assert found["both"].keys() == alone.keys()
    for name, right in alone.items():
        np.testing.assert_allclose(found["both"][name], right, rtol=1e-5, atol=1e-7)
