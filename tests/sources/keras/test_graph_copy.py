"""Copies of traced functions with loops, against the functions themselves."""

import numpy as np
import pytest
import tensorflow as tf

from probegen.errors import ExportError
from probegen.sources.keras import graph_copy
from probegen.sources.keras.graph_copy import LOOPS, changes_states, graphs_of, holds_loops
from probegen.sources.keras.plain_operations import PLAIN, in_plain_operations

WEIGHTS = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)


def recurrence(x):
    """States over time: a list is read, another is written."""
    weights = tf.constant(WEIGHTS)
    read = tf.TensorArray(tf.float32, tf.shape(x)[1]).unstack(tf.transpose(x, [1, 0, 2]))
    written = tf.TensorArray(tf.float32, tf.shape(x)[1])

    def step(k, state, written):
        state = tf.tanh(read.read(k) + state @ weights)
        return k + 1, state, written.write(k, state)

    start = (0, tf.zeros_like(x[:, 0]), written)
    _, _, states = tf.while_loop(lambda k, *_: k < tf.shape(x)[1], step, start)
    return tf.transpose(states.stack(), [1, 0, 2])


def sums(x):
    """A loop that carries a sum, over an open number of steps, and reads what is around it."""
    scale = tf.reduce_mean(x)
    step = lambda k, total: (k + 1, total + scale * tf.cast(k, tf.float32) * tf.sin(x))  # noqa: E731
    return tf.while_loop(lambda k, _: k < tf.shape(x)[0] + 2, step, (0, tf.zeros_like(x)))[1]


def branch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: x * 2)


def known_branch(x):
    return tf.cond(tf.shape(x)[2] > 2, lambda: tf.nn.relu(x), lambda: x * 2)


def slope(function):
    def found(x):
        return tf.gradients([tf.reduce_sum(function(x) ** 2)], [x])[0]

    return found


def traced(function, shape):
    specs = {"x": tf.TensorSpec(shape, tf.float32, name="x")}
    old = tf.function(lambda x: {"y": function(x)}, autograph=False).get_concrete_function(**specs)
    return old, specs


@pytest.mark.parametrize(
    ("function", "loops"),
    [
        (recurrence, False),
        (slope(recurrence), False),
        (sums, True),
        (slope(branch), None),
        (known_branch, None),
        (slope(lambda x: recurrence(x)[:, -1, 1:]), False),
        (slope(lambda x: tf.concat([recurrence(x)[:, 1], x[:, 0] ** 2], 1)), False),
    ],
)
def test_a_copy_computes_the_same(function, loops):
    """Of two batch sizes; lists are gone, and the loops that fill them."""
    old, specs = traced(function, [None, 4, 3])
    new = in_plain_operations(old, specs)
    kinds = {o.type for graph in graphs_of(new.graph) for o in graph.get_operations()}
    assert not {kind for kind in kinds if kind.startswith("TensorList")}
    assert not kinds & set(PLAIN)
    if loops is not None:
        assert holds_loops(new.graph) is loops is bool(kinds & LOOPS)
    for batch in (1, 5):
        x = np.random.default_rng(batch).normal(size=(batch, 4, 3)).astype(np.float32)
        x[0, 0] = 0
        expected, found = (f(x=tf.constant(x))["y"].numpy() for f in (old, new))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_size_that_is_fixed_afterwards():
    old, _ = traced(slope(recurrence), [None, None, 3])
    with pytest.raises(ExportError, match="loop over an open size"):
        in_plain_operations(old, {"x": tf.TensorSpec([None, None, 3], tf.float32, name="x")})
    new = in_plain_operations(old, {"x": tf.TensorSpec([None, 5, 3], tf.float32, name="x")})
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32))
    np.testing.assert_allclose(new(x=x)["y"], old(x=x)["y"], atol=1e-6)


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(graph_copy, "_MOST", 50)
    old, specs = traced(slope(recurrence), [None, 9, 3])
    with pytest.raises(ExportError, match="more than 50 operations; make the fixed sizes smaller"):
        in_plain_operations(old, specs)


def test_variables_become_constants_and_what_changes_them_is_known():
    state = tf.Variable(WEIGHTS)

    def reading(x):
        step = lambda k, total: (k + 1, total @ state)  # noqa: E731
        return tf.while_loop(lambda k, _: k < tf.shape(x)[0], step, (0, x))[1]

    old, specs = traced(reading, [None, 3])
    new = in_plain_operations(old, specs)
    assert not new.graph.captures
    x = tf.constant(WEIGHTS[:2])
    np.testing.assert_allclose(new(x=x)["y"], old(x=x)["y"], rtol=1e-5)

    def changing(x):
        state.assign_add(state)
        return reading(x)

    old, specs = traced(changing, [None, 3])
    assert changes_states(old.graph)
    assert in_plain_operations(old, specs) is old
