"""Keras' recurrent layers through tf2onnx and the rules, against TensorFlow's tape.

Some become fused operators, most become Loops; both in all the ways that Keras has for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import pytest

from probegen.graph.core.queries import is_float
from probegen.graph.loops.iteration import infer_with_loops
from probegen.graph.passes import clean
from probegen.graph.passes.before.join_slices import join_slices
from probegen.graph.passes.before.narrow_slices import narrow_slices
from tests.graph.vjp.harness import Array, differentiate, runner

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
layers = keras.layers

BATCH, TIME, FEATURES, UNITS = 3, 5, 2, 4


class Leaky(layers.Layer):
    """A cell of one's own, with two states of different sizes."""

    state_size = (UNITS, 3)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], UNITS))
        self.back = self.add_weight(shape=(3, UNITS))
        self.forth = self.add_weight(shape=(UNITS, 3))

    def call(self, x, states):
        fast, slow = states
        fast = keras.ops.tanh(x @ self.kernel + slow @ self.back) + 0.3 * fast
        slow = 0.7 * slow + 0.3 * keras.ops.sigmoid(fast @ self.forth)
        return fast, [fast, slow]


class Repeated(layers.Layer):
    """A while loop whose number of turns depends on the input's size alone."""

    def call(self, x):
        turns = keras.ops.shape(x)[1]
        grown = keras.ops.while_loop(
            lambda i, _: i < turns, lambda i, y: (i + 1, keras.ops.tanh(1.2 * y)), (0, x)
        )
        return grown[1]


class Either(layers.Layer):
    """A condition on the values."""

    def call(self, x):
        return keras.ops.cond(
            keras.ops.sum(x) > 0, lambda: keras.ops.tanh(x), lambda: keras.ops.sin(x)
        )


def sequence(*made: layers.Layer, time: int | None = TIME, tail: tuple[int, ...] = (FEATURES,)):
    """Returns a model that applies layers to a sequence."""
    x = y = keras.Input((time, *tail))
    for one in made:
        y = one(y)
    return keras.Model(x, y)


def with_states(layer: layers.Layer, count: int):
    """Returns a model whose initial states are inputs and whose final states are outputs."""
    x = keras.Input((TIME, FEATURES))
    states = [keras.Input((UNITS,)) for _ in range(count)]
    return keras.Model([x, *states], layer(x, initial_state=states))


def tokens(layer: layers.Layer):
    """Returns a model whose embedding masks token 0."""
    x = keras.Input((TIME,), dtype="int32")
    return keras.Model(x, layer(layers.Embedding(7, FEATURES, mask_zero=True)(x)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "LSTM, both ways, any length": lambda: sequence(
        layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True)), time=None
    ),
    "LSTM backwards, then LSTM": lambda: sequence(
        layers.LSTM(UNITS, return_sequences=True, go_backwards=True), layers.LSTM(3)
    ),
    "LSTM with states": lambda: with_states(
        layers.LSTM(UNITS, return_sequences=True, return_state=True), 2
    ),
    "LSTM, relu, no bias": lambda: sequence(layers.LSTM(UNITS, activation="relu", use_bias=False)),
    "LSTM, hard sigmoid": lambda: sequence(layers.LSTM(UNITS, recurrent_activation="hard_sigmoid")),
    "LSTM, unrolled": lambda: sequence(layers.LSTM(UNITS, unroll=True)),
    "LSTM, masked": lambda: sequence(
        layers.Masking(), layers.LSTM(UNITS, return_sequences=True), layers.LSTM(3)
    ),
    "LSTM, masked tokens": lambda: tokens(layers.Bidirectional(layers.LSTM(UNITS))),
    "GRU, any length": lambda: sequence(layers.GRU(UNITS), time=None),
    "GRU, both ways": lambda: sequence(
        layers.Bidirectional(layers.GRU(UNITS, return_sequences=True))
    ),
    "GRU, reset before": lambda: sequence(
        layers.GRU(UNITS, reset_after=False, return_sequences=True), time=None
    ),
    "GRU with states": lambda: with_states(
        layers.GRU(UNITS, return_sequences=True, return_state=True), 1
    ),
    "GRU, masked tokens": lambda: tokens(layers.GRU(UNITS, return_sequences=True)),
    "SimpleRNN, masked": lambda: sequence(layers.Masking(), layers.SimpleRNN(UNITS)),
    "SimpleRNN, relu, backwards": lambda: sequence(
        layers.SimpleRNN(UNITS, activation="relu", go_backwards=True), time=None
    ),
    "a cell of one's own": lambda: sequence(layers.RNN(Leaky(), return_sequences=True), time=None),
    "stacked cells": lambda: sequence(layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(3)])),
    "ConvLSTM1D": lambda: sequence(layers.ConvLSTM1D(2, 3), time=None, tail=(6, 2)),
    "ConvLSTM2D": lambda: sequence(
        layers.ConvLSTM2D(2, 3, padding="same", return_sequences=True), tail=(5, 4, 2)
    ),
    "TimeDistributed": lambda: sequence(layers.TimeDistributed(layers.Dense(3, "tanh"))),
    "while": lambda: sequence(Repeated()),
    "if": lambda: sequence(Either()),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_with_tensorflow(name: str) -> None:
    keras.utils.set_random_seed(3)
    model = MODELS[name]()
    forward, source = converted(model)
    names = [o.name for o in forward.graph.output]
    made = differentiate(forward, source, names)
    assert not made.missing
    cleaned = ir.from_proto(made.model)
    clean(cleaned)
    run = runner(ir.to_proto(cleaned), need_kernels=True)
    xs = inputs_of(model, BATCH)
    ys = [np.asarray(y) for y in tf.nest.flatten(model(xs if len(xs) > 1 else xs[0]))]
    rng = np.random.default_rng(5)
    dys = [rng.normal(size=y.shape).astype("f") for y in ys]
    feeds = dict(zip([i.name for i in forward.graph.input], xs, strict=True))
    feeds |= {f"dy/{n}": dy for n, dy in zip(names, dys, strict=True)}
    found = run(feeds)
    for output, y in zip(names, ys, strict=True):
        near(found[output], y)
    for wrt, gradient in zip(source, gradients_by_tape(model, xs, dys), strict=True):
        near(found[f"d/{wrt}"], gradient)
    if name == "if":  # its condition is one for the batch
        return
    # Samples do not see each other, though masks make steps differ from sample to sample.
    for k in range(BATCH):
        alone = run({n: array[k : k + 1] for n, array in feeds.items()})
        for wrt in source:
            near(alone[f"d/{wrt}"], found[f"d/{wrt}"][k : k + 1])


def converted(model: keras.Model) -> tuple[onnx.ModelProto, list[str]]:
    """Returns the forward pass, and what gradients are taken at: inputs or an embedding."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)

    def forward(*xs):
        return tf.nest.flatten(model(list(xs) if len(xs) > 1 else xs[0], training=False))

    specs = [tf.TensorSpec(i.shape, i.dtype, name=f"in{k}") for k, i in enumerate(model.inputs)]
    function = tf.function(forward, input_signature=specs, autograph=False).get_concrete_function()
    ends = [
        [t.name for t in ts if t.dtype != tf.resource] for ts in (function.inputs, function.outputs)
    ]
    frozen = tf2onnx.tf_loader.from_function(function, *ends)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        made = tf2onnx.tfonnx.process_tf_graph(
            graph, opset=18, input_names=ends[0], output_names=ends[1]
        )
    parsed = ir.from_proto(tf2onnx.optimizer.optimize_graph(made).make_model("forward"))
    for value, given in zip(parsed.graph.inputs, model.inputs, strict=True):
        names = ("batch", "time")
        value.shape = ir.Shape([d or names[axis] for axis, d in enumerate(given.shape)])
    narrow_slices(parsed)
    infer_with_loops(parsed, ir.passes.common.ShapeInferencePass(data_prop=True))
    join_slices(parsed)
    source = [v.name for v in parsed.graph.inputs if is_float(v)]
    embedding = [
        n.outputs[0].name for n in parsed.graph if n.op_type == "Gather" and is_float(n.outputs[0])
    ]
    return ir.to_proto(parsed), source or embedding


def inputs_of(model: keras.Model, batch: int) -> list[Array]:
    """Returns random inputs; some steps are masked, others in each sample."""
    rng = np.random.default_rng(batch)
    xs = []
    for value in model.inputs:
        shape = [batch, *(d or TIME + 1 for d in value.shape[1:])]
        if value.dtype == "int32":
            xs.append(rng.integers(0, 3, shape).astype("int32"))
            continue
        x = rng.normal(size=shape).astype("f")
        if len(shape) == 3:
            x[0, 3:] = 0
            x[-1, 1] = 0
        xs.append(x)
    return xs


def gradients_by_tape(model: keras.Model, xs: list[Array], dys: list[Array]) -> list[Array]:
    tensors = [tf.constant(x) for x in xs]
    embedding = [one for one in model.layers if isinstance(one, layers.Embedding)]
    with tf.GradientTape() as tape:
        if embedding:
            # The layers behind take the mask from the tensor that the embedding gives.
            rows = embedding[0](tensors[0])
            tape.watch(rows)
            y, sources = rows, [rows]
            for layer in model.layers[model.layers.index(embedding[0]) + 1 :]:
                y = (
                    layer(y, mask=embedding[0].compute_mask(tensors[0]))
                    if _masks(layer)
                    else layer(y)
                )
        else:
            tape.watch(tensors)
            y, sources = model(tensors if len(tensors) > 1 else tensors[0]), tensors
        outputs = tf.nest.flatten(y)
    found = tape.gradient(outputs, sources, output_gradients=[tf.constant(dy) for dy in dys])
    return [g.numpy() for g in found]


def _masks(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.RNN | layers.Bidirectional)


def near(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 3e-6 * max(np.abs(expected).max(), 1e-3)
