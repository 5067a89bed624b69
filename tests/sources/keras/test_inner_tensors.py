"""Tensors inside a layer's call are found again in every trace, and exchanged."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from probegen.plan.plan import ATTENTION, TensorRef
from probegen.sources.keras.capture import Watcher, watching
from probegen.sources.keras.inner_tensors import InnerTensors, number_in_call


class Twice(keras.layers.Layer):
    """Two softmaxes and an exponential."""

    def call(self, x):
        first = ops.softmax(x)
        return ops.softmax(ops.exp(first) * 2)


def traced(model, stand_ins):
    """The model as a function, with inner tensors exchanged; and what was exchanged."""
    inner = InnerTensors(stand_ins)

    def run(x):
        watcher = Watcher(model)
        with watching(watcher), inner.listening(watcher):
            return model(x)

    spec = tf.TensorSpec([None, 4], tf.float32)
    return tf.function(run, autograph=False).get_concrete_function(spec), inner


def model():
    x = keras.Input((4,), name="x")
    layer = Twice(name="twice")
    return keras.Model(x, layer(layer(x)))


def test_one_operation_of_one_call_is_exchanged():
    """The first softmax of the second call, which becomes zeros."""
    made, rows = model(), np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ref = TensorRef("twice", 1, 0, ATTENTION, "Softmax")
    function, inner = traced(made, {ref: tf.zeros_like})
    np.testing.assert_allclose(function(tf.constant(rows)), np.full((3, 4), 0.25), rtol=1e-6)
    assert list(inner.tensors) == [ref]
    plain, nothing = traced(made, {})
    np.testing.assert_array_equal(plain(tf.constant(rows)), made(rows))
    assert not nothing.tensors


def test_the_last_softmax_is_the_result():
    ref = TensorRef("twice", 1, 1, ATTENTION, "Softmax")
    function, _ = traced(model(), {ref: lambda t: t * 0 + 7})
    np.testing.assert_array_equal(function(tf.zeros((2, 4))), np.full((2, 4), 7))


def test_an_operation_that_is_not_there_is_left_alone():
    refs = [
        TensorRef("twice", 0, 2, ATTENTION, "Softmax"),
        TensorRef("twice", 2, 0, ATTENTION, "Softmax"),
        TensorRef("twice", 0, 0, ATTENTION, "Sigmoid"),
        TensorRef("other", 0, 0, ATTENTION, "Softmax"),
    ]
    _, inner = traced(model(), dict.fromkeys(refs, tf.zeros_like))
    assert not inner.tensors


def test_numbers_count_operations_of_one_type():
    function, _ = traced(model(), {})
    operations = function.graph.get_operations()
    softmaxes = [op for op in operations if op.type == "Softmax"]
    assert [number_in_call(operations, op) for op in softmaxes] == [0, 1, 2, 3]
    assert number_in_call([], softmaxes[0]) == -1
