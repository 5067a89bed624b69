"""Keras' recurrent layers as fused operators, against the untouched model and its tape.

One model holds one branch a kind of layer, so that one artefact tries them all.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime

FEATURES = 3
FUSED = ("LSTM", "GRU", "RNN")
Layers = Mapping[str, Callable[[], layers.Layer]]

KINDS: Layers = {
    "lstm": lambda: layers.LSTM(5),
    "lstm_states": lambda: layers.LSTM(5, return_state=True),
    "lstm_backwards": lambda: layers.LSTM(4, return_sequences=True, go_backwards=True),
    "lstm_hard": lambda: layers.LSTM(
        4, recurrent_activation="hard_sigmoid", activation="softsign", use_bias=False
    ),
    "gru": lambda: layers.GRU(5, return_sequences=True),
    "gru_before": lambda: layers.GRU(4, reset_after=False, return_sequences=True),
    "gru_plain": lambda: layers.GRU(4, use_bias=False, activation="relu", go_backwards=True),
    "gru_states": lambda: layers.GRU(5, return_state=True, return_sequences=True),
    "gru_dropout": lambda: layers.GRU(3, dropout=0.4, recurrent_dropout=0.3),
    "rnn": lambda: layers.SimpleRNN(5, return_sequences=True),
    "rnn_linear": lambda: layers.SimpleRNN(3, activation="linear", go_backwards=True),
    "rnn_elu": lambda: layers.SimpleRNN(3, activation="elu", use_bias=False),
    "cell": lambda: layers.RNN(layers.GRUCell(4), return_sequences=True, go_backwards=True),
    "cells": lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)]),
    "cells_backwards": lambda: layers.RNN(
        [layers.GRUCell(4), layers.LSTMCell(3)], return_sequences=True, go_backwards=True
    ),
    "one_cell": lambda: layers.RNN([layers.LSTMCell(4)], return_state=True),
    "zero_output": lambda: layers.RNN(
        layers.LSTMCell(4), return_sequences=True, zero_output_for_mask=True
    ),
    "zero_last": lambda: layers.RNN(layers.GRUCell(4), zero_output_for_mask=True),
    **{
        f"both_{mode}": lambda mode=mode: layers.Bidirectional(
            layers.GRU(4, return_sequences=True), merge_mode=mode
        )
        for mode in ("concat", "sum", "ave", "mul", None)
    },
    "both_states": lambda: layers.Bidirectional(layers.LSTM(4, return_state=True)),
    "both_last": lambda: layers.Bidirectional(layers.LSTM(4)),
}


def branches(kinds: Layers, *, masked: bool, time: int | None = None, batch: int | None = None):
    """Returns a model with one branch a kind; the states and outputs of a branch are summed up."""
    x = keras.Input((time, FEATURES), batch_size=batch, name="x")
    inside = layers.Masking()(x) if masked else x
    outputs = {}
    for name, make in kinds.items():
        layer = make()
        layer.name = name
        results = keras.tree.flatten(layer(inside))
        flat = [keras.ops.sum(r, axis=1) if len(r.shape) == 3 else r for r in results]
        weighted = [r * (k + 1.0) for k, r in enumerate(flat)]
        joined = weighted[0] if len(flat) == 1 else layers.Concatenate()(weighted)
        outputs[f"{name}_out"] = joined
        for k, r in enumerate(results):
            if len(r.shape) == 3:
                outputs[f"{name}_steps_{k}"] = r
    return keras.Model(x, outputs)


def score(outputs):
    """Returns one number a sample that depends on all outputs, each step with another weight."""
    total = 0.0
    for k, name in enumerate(sorted(outputs)):
        y = outputs[name]
        axes = list(range(1, len(y.shape)))
        if len(axes) == 2:
            y *= keras.ops.cos(keras.ops.cast(keras.ops.arange(keras.ops.shape(y)[1]), "float32"))[
                :, None
            ]
        total += keras.ops.sum(y * (1.0 + 0.1 * k), axis=axes)
    return total


def sequences(batch: int, time: int) -> np.ndarray:
    """Returns sequences: padded behind, in front and in the middle, whole, and padding alone."""
    x = np.random.default_rng(batch * 100 + time).normal(size=(batch, time, FEATURES)).astype("f")
    for row in range(batch):
        if row % 5 == 0:
            x[row, time // 2 :] = 0
        elif row % 5 == 1:
            x[row, : time // 2] = 0
        elif row % 5 == 2:
            x[row, 1 : time - 1 : 2] = 0
        elif row % 5 == 4:
            x[row] = 0
    return x


def counts(graph: onnx.GraphProto) -> collections.Counter:
    """Returns how often each operator stands in a graph and those within."""
    found: collections.Counter = collections.Counter()
    for node in graph.node:
        found[node.op_type] += 1
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += counts(attribute.g)
    return found


#: What is tried each time; the rest is wide.
FEW = ("lstm_states", "gru", "gru_before", "gru_plain", "rnn", "cells_backwards", "both_concat")


@pytest.fixture(
    scope="module",
    params=["few kinds", "few kinds, masked", "all kinds", "all kinds, masked"],
)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    keras.utils.set_random_seed(7)
    names, masked = FEW if "few" in request.param else tuple(KINDS), "masked" in request.param
    # Keras cannot trace one cell in a list with a mask: it takes a list for a state.
    kinds = {name: KINDS[name] for name in names if not (masked and name == "one_cell")}
    model = branches(kinds, masked=masked)
    for variable in model.trainable_variables:  # biases too
        variable.assign(variable + 0.2 * np.random.default_rng(3).normal(size=variable.shape))
    path = tmp_path_factory.mktemp("recurrent") / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=score, wrt="x")], path, verify=False)
    return model, path


def test_every_kind_is_one_operator_a_cell_and_no_loop(compiled) -> None:
    model, path = compiled
    (gate,) = (node for node in onnx.load(path).graph.node if node.op_type == "If")
    found = next(counts(a.g) for a in gate.attribute if a.name == "else_branch")
    cells = sum(
        len(getattr(layer.cell, "cells", [0]))
        for layer in model._flatten_layers()
        if isinstance(layer, layers.RNN)
    )
    assert sum(found[name] for name in FUSED) == cells
    assert [found[name] for name in ("Loop", "Scan", "If")] == [0, 0, 0]


@pytest.mark.parametrize(("batch", "time"), [(1, 4), (6, 9)])
def test_predictions_and_gradients_are_those_of_the_untouched_model(
    compiled, batch: int, time: int
) -> None:
    model, path = compiled
    x = sequences(batch, time)
    result = runtime.load(path).run(x)
    with tf.GradientTape() as tape:
        watched = tf.constant(x)
        tape.watch(watched)
        expected = model(watched)
        total = score(expected)
    for name, y in expected.items():
        np.testing.assert_allclose(result[name], y, rtol=2e-5, atol=2e-6, err_msg=name)
    gradient = tape.gradient(total, watched).numpy()
    found = result["input_gradient/x"]
    assert np.abs(found - gradient).max() < 2e-5 * np.abs(gradient).max()


def test_fixed_sizes_unrolled_and_stateful(tmp_path: Path) -> None:
    """States of a stateful layer are those that it holds when it is compiled."""
    keras.utils.set_random_seed(8)
    kinds: Layers = {
        "unrolled": lambda: layers.LSTM(4, unroll=True, return_sequences=True),
        "unrolled_gru": lambda: layers.GRU(4, unroll=True, go_backwards=True),
        "unrolled_both": lambda: layers.Bidirectional(
            layers.GRU(3, unroll=True, return_sequences=True)
        ),
        "stateful": lambda: layers.GRU(4, stateful=True),
        "stateful_lstm": lambda: layers.LSTM(4, stateful=True, return_state=True),
    }
    model = branches(kinds, masked=True, time=5, batch=3)
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            for state in layer.states:
                state.assign(np.random.default_rng(1).normal(size=state.shape))
    x = sequences(5, 5)[[0, 1, 4]]
    held = [np.array(v) for v in model.non_trainable_variables]
    pg.compile(model, [pg.InputGradient(target=score)], tmp_path / "m.onnx")
    result = runtime.load(tmp_path / "m.onnx").run(x)
    for variable, before in zip(model.non_trainable_variables, held, strict=True):
        np.testing.assert_array_equal(variable, before)
    assert counts(onnx.load(tmp_path / "m.onnx").graph)["Loop"] == 0
    for name, y in model(x).items():
        np.testing.assert_allclose(result[name], y, rtol=2e-5, atol=2e-6, err_msg=name)


def test_states_beyond_the_end_do_not_grow_into_the_gradient(tmp_path: Path) -> None:
    """Hundreds of masked steps behind a few that count, and weights that double the state."""
    x = keras.Input((None, 1), name="x")
    layer = layers.SimpleRNN(2, activation="relu")
    layer.name = "rnn"
    model = keras.Model(x, layer(layers.Masking()(x)))
    layer.set_weights([np.ones((1, 2)), 2 * np.eye(2), np.ones(2)])
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=1)], path, verify=False)
    values = np.zeros((2, 300, 1), "f")
    values[0, :4], values[1, 290:293] = 1, 2
    result = runtime.load(path).run(values)
    np.testing.assert_allclose(result["rnn"], model(values), rtol=1e-6)
    expected = np.zeros((2, 300, 1))
    expected[0, :4, 0], expected[1, 290:293, 0] = [8, 4, 2, 1], [4, 2, 1]
    np.testing.assert_array_equal(result["input_gradient/x"], expected)


def test_a_fixed_batch_keeps_the_operators(tmp_path: Path) -> None:
    keras.utils.set_random_seed(9)
    model = branches({k: KINDS[k] for k in ("lstm", "gru", "rnn")}, masked=True)
    path = tmp_path / "m.onnx"
    pg.compile(model, [], path, dynamic_batch=False, gate=False)
    found = counts(onnx.load(path).graph)
    assert [found[name] for name in (*FUSED, "Loop")] == [1, 1, 1, 0]


class Scaled(layers.GRUCell):
    """A cell of one's own, which computes something else than the one it derives from."""

    def call(self, inputs, states, training=False):
        y, states = super().call(2 * inputs, states, training=training)
        return y + 1, states


def test_the_weights_tell_how_many_features_are_read_where_the_graph_does_not(tmp_path):
    """TensorFlow forgets sizes in a product along axes, Keras does not."""
    x = keras.Input((7, FEATURES), name="x")
    mixed = keras.ops.tensordot(x, np.float32([[1, 2], [0, 1], [3, -1]]), axes=1)
    turned = keras.ops.transpose(mixed, [0, 2, 1])
    model = keras.Model(x, layers.LSTM(4, name="lstm")(turned))
    pg.compile(model, pg.InputGradient(target=1), tmp_path / "m.onnx", gate=False)
    found = counts(onnx.load(tmp_path / "m.onnx").graph)
    assert [found[name] for name in ("LSTM", "Loop")] == [1, 0]


def test_other_cells_precisions_and_activations_keep_the_loop_of_keras(tmp_path: Path) -> None:
    keras.utils.set_random_seed(10)
    kinds: Layers = {
        "own": lambda: layers.RNN(Scaled(3)),
        "own_among_others": lambda: layers.RNN([layers.GRUCell(3), Scaled(2)]),
        "selu": lambda: layers.LSTM(3, activation="selu"),
    }
    model = branches(kinds, masked=False)
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=score)], path)
    assert not any(counts(onnx.load(path).graph)[name] for name in FUSED)
    x = sequences(2, 6)
    result = runtime.load(path).run(x)
    for name, y in model(x).items():
        np.testing.assert_allclose(result[name], y, rtol=2e-5, atol=2e-6, err_msg=name)


def gated(steps, **more):
    """Series into a GRU that is no operator of ONNX."""
    keras.utils.set_random_seed(8)
    x = keras.Input((steps, 2), name="x")
    layer = layers.GRU(3, activation="swish", bias_initializer="normal", name="gru", **more)
    return keras.Model(x, layers.Dense(2, name="scores")(layer(layers.Masking()(x))))


@pytest.mark.parametrize("probe", [pg.DeepLIFT(0.3, target=1), pg.LRP(target=1)])
def test_some_rules_have_few_steps_one_by_one(probe, tmp_path):
    x = np.random.default_rng(8).normal(size=(3, 4, 2)).astype("float32")
    x[0, -1] = x[1, 1] = x[2] = 0
    found = []
    for unroll in (False, True):
        path = tmp_path / f"{unroll}.onnx"
        pg.compile(gated(4, unroll=unroll), probe, path)
        (told,) = runtime.load(path).manifest.explanations
        found.append(np.asarray(runtime.load(path).run(x)[told.name]))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert np.all(found[0][2] == 0)
