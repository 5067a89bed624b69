"""States and gates of recurrent layers over time: the untouched cells, called step by step."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import SelectionError, SpecError, VerificationError
from probegen.sources.keras import recurrence
from probegen.sources.keras.to_onnx import recurrent_layers

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


class Leaky(layers.Layer):
    """A custom cell of two states, of which the second is larger."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units, self.state_size, self.output_size = units, [units, units + 1], 1

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.v = self.add_weight(shape=(self.units, self.units + 1), name="v")

    def call(self, x, states):
        fast = 0.5 * states[0] + ops.tanh(ops.matmul(x, self.w))
        slow = 0.9 * states[1] + ops.matmul(fast, self.v)
        return slow[:, :1], [fast, slow]


def many(*chosen):
    """Masked series into layers of every kind, or those chosen; none returns what it keeps."""
    keras.utils.set_random_seed(4)
    x = keras.Input((None, 3), name="x")
    y = layers.Masking(name="masking")(x)
    parts = [
        layers.LSTM(4, go_backwards=True, return_sequences=True, name="back"),
        layers.GRU(2, reset_after=False, bias_initializer="normal", name="before"),
        layers.GRU(3, use_bias=False, activation="relu", name="bare"),
        layers.SimpleRNN(5, name="simple"),
        layers.Bidirectional(layers.GRU(2, bias_initializer="normal", name="gru"), name="both"),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], name="stacked"),
        layers.RNN(Leaky(2), name="custom"),
    ]
    made = [part(y) for part in parts if not chosen or part.name in chosen]
    if made[0].ndim == 3:
        made[0] = layers.GlobalAveragePooling1D(name="mean")(made[0])
    out = layers.Dense(2, name="scores")(layers.Concatenate(name="all")(made))
    return keras.Model(x, out, name="many")


def series(batch, time, width=3, seed=0):
    """Noise with steps of padding before, between and behind, and one row of nothing else."""
    x = np.random.default_rng(seed).standard_normal((batch, time, width)).astype("float32")
    x[0, :2] = x[-1] = 0
    x[batch // 2, 2:4] = 0
    return 2 * x


def by_hand(layer, x, mask=None, states=None):
    """All states after each step, in the order of the input, by the cell alone."""
    states = states or layer.get_initial_state(len(x))
    steps = range(x.shape[1])
    found = {}
    for t in reversed(steps) if layer.go_backwards else steps:
        _, new = layer.cell(tf.constant(x[:, t]), states)
        new, old = keras.tree.flatten(new), keras.tree.flatten(states)
        if mask is not None:
            new = [tf.where(mask[:, t, None], n, o) for n, o in zip(new, old, strict=True)]
        states = keras.tree.pack_sequence_as(states, new)
        found[t] = [np.array(one) for one in new]
    return [np.stack(over, 1) for over in zip(*(found[t] for t in steps), strict=True)]


#: States of all layers of `many`, with the gates of those that have some.
ALL = [
    pg.States([f"type:{kind}" for kind in ("LSTM", "GRU")], gates=True),
    pg.States(["simple", "stacked", "custom"]),
]


@pytest.fixture(scope="module")
def model():
    return many()


@pytest.fixture(scope="module")
def few():
    """Those of `many` whose states are planted wrong."""
    return many("before", "simple")


@pytest.fixture(scope="module")
def art(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "many.onnx"
    pg.compile(model, ALL, path, verify=False)  # the slowest part: a wide test
    return runtime.load(path)


def test_all_of_them_are_verified(model, art):
    assert pg.verify(art.path, model).passed


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (2, 5)])
def test_states_are_those_of_the_cells(model, art, batch, time):
    x = series(batch, time)
    mask = (x != 0).any(-1)
    found = art.run(x)
    both = model.get_layer("both")
    named = {
        n: model.get_layer(n) for n in ("back", "before", "bare", "simple", "stacked", "custom")
    }
    named |= {f"both/{one.name}": one for one in (both.forward_layer, both.backward_layer)}
    for path, layer in named.items():
        expected = by_hand(layer, x, mask)
        for number, value in enumerate(expected):
            name = f"states/{path}" + (f":{number}" if number else "")
            np.testing.assert_allclose(found[name], value, err_msg=name, **CLOSE)
            assert art.manifest.output(name).axes == ("batch", "time", "unit")
        assert f"states/{path}:{len(expected)}" not in found


def test_gates_make_the_next_state(art):
    x = series(3, 7)
    counts = (x != 0).any(-1)[..., None]
    found = {name: np.asarray(value) for name, value in art.run(x).items()}
    gate = {n.rpartition("/")[2]: found[n] for n in found if n.startswith("states/back/")}
    cell, hidden = found["states/back:1"], found["states/back"]
    before = np.concatenate([cell[:, 1:], np.zeros_like(cell[:, :1])], 1)  # it runs backwards
    made = gate["forget_gate"] * before + gate["input_gate"] * gate["candidate"]
    np.testing.assert_allclose(cell, np.where(counts, made, before), **CLOSE)
    shown = gate["output_gate"] * np.tanh(made)
    np.testing.assert_allclose(np.where(counts, hidden, 0), np.where(counts, shown, 0), **CLOSE)
    for path in ("before", "bare", "both/forward_gru"):
        hidden = found[f"states/{path}"]
        before = np.concatenate([np.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        keep, new = (found[f"states/{path}/{n}"] for n in ("update_gate", "candidate"))
        made = np.where(counts, keep * before + (1 - keep) * new, before)
        np.testing.assert_allclose(hidden, made, **CLOSE)
        assert found[f"states/{path}/reset_gate"].shape == hidden.shape


def test_cells_of_keras_are_not_run_once_more(tmp_path):
    """What their operators give is enough, over any length: 16 steps is a block of cell states."""
    keras.utils.set_random_seed(5)
    x = keras.Input((None, 3), name="x")
    y = layers.Masking()(x)
    made = [
        layers.LSTM(3, recurrent_activation="hard_sigmoid", unit_forget_bias=False, name="hard"),
        layers.LSTM(2, go_backwards=True, name="back"),
        layers.RNN([layers.GRUCell(4), layers.LSTMCell(2)], name="stacked"),
        layers.SimpleRNN(2, name="simple"),
    ]
    model = keras.Model(x, layers.Concatenate()([layer(y) for layer in made]))
    for variable in model.trainable_variables:  # gates from shut to open
        variable.assign(3 * variable + np.random.default_rng(2).normal(size=variable.shape))
    pg.compile(model, pg.States(), tmp_path / "m.onnx", gate=False)
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert [kinds.count(kind) for kind in ("LSTM", "GRU", "RNN")] == [3, 1, 1]
    bodies = [a.g for node in graph.node for a in node.attribute if node.op_type == "Loop"]
    assert not any(node.op_type == "MatMul" for body in bodies for node in body.node)
    art = runtime.load(tmp_path / "m.onnx")
    for batch, time in ((2, 1), (3, 37)):
        data = series(batch, time, seed=time)
        found = art.run(data)
        for layer in made:
            for number, value in enumerate(by_hand(layer, data, (data != 0).any(-1))):
                name = f"states/{layer.name}" + (f":{number}" if number else "")
                np.testing.assert_allclose(found[name], value, err_msg=name, **CLOSE)


def test_the_other_formats_agree(tmp_path):
    x = series(3, 6, seed=1)
    model = many("back", "simple", "both", "custom")
    probes = [pg.States("*"), pg.IntegratedGradients(target=1, steps=3)]  # masks are held on a path
    probed = pg.instrument(model, probes)
    pg.export(probed, tmp_path / "many.onnx", verify=False)
    expected = runtime.load(tmp_path / "many.onnx").run(x)
    found = probed(x)
    pg.export(probed, tmp_path / "many", verify=False)
    saved = runtime.load(tmp_path / "many").run(x)
    names = [n for n in found if n.startswith("states/")]
    assert len(names) == 7
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **CLOSE)
        np.testing.assert_allclose(saved[name], expected[name], err_msg=name, **CLOSE)


@pytest.mark.parametrize(
    ("layer", "shape", "rest"),
    [
        (layers.ConvLSTM1D(2, 3, padding="same", name="conv"), (None, 5, 3), ("position",)),
        (layers.ConvLSTM2D(2, (2, 3), name="conv"), (None, 4, 5, 1), ("height", "width")),
        (layers.ConvLSTM3D(2, 2, name="conv"), (None, 3, 4, 5, 1), ("depth", "height", "width")),
    ],
)
def test_convolutional_states_have_positions(layer, shape, rest, tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input(shape, name="x")
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(layer(x))))
    pg.compile(model, pg.States("conv"), tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    for batch, time in ((2, 4), (3, 2)):
        data = (
            np.random.default_rng(time).standard_normal((batch, time, *shape[1:])).astype("float32")
        )
        found = art.run(data)
        start = [
            np.zeros_like(np.asarray(found[n])[:, 0]) for n in ("states/conv", "states/conv:1")
        ]
        for name, value in zip(
            ("states/conv", "states/conv:1"), by_hand(layer, data, states=start), strict=True
        ):
            assert art.manifest.output(name).axes == ("batch", "time", *rest, "channel")
            np.testing.assert_allclose(found[name], value, **CLOSE)


def test_each_call_of_a_stateful_layer_begins_with_its_state(tmp_path):
    keras.utils.set_random_seed(3)
    x = keras.Input(batch_shape=(2, None, 3), name="x")
    layer = layers.GRU(4, stateful=True, name="gru")
    model = keras.Model(x, layers.Dense(2)(layer(x) + layer(-x)))
    model.predict(series(2, 5), verbose=0)
    start = [np.array(s) for s in layer.states]
    assert np.abs(start[0]).max() > 0.05
    pg.compile(model, pg.States(gates=True), tmp_path / "m.onnx")
    data = series(2, 4, seed=5)
    found = runtime.load(tmp_path / "m.onnx").run(data)
    (first,) = by_hand(layer, data, states=start)
    np.testing.assert_allclose(found["states/gru#0"], first, **CLOSE)
    (second,) = by_hand(layer, -data, states=[first[:, -1]])
    np.testing.assert_allclose(found["states/gru#1"], second, **CLOSE)
    for call, (before, after) in enumerate([(start[0], first), (first[:, -1], second)]):
        names = (f"states/gru#{call}/{gate}" for gate in ("update_gate", "candidate"))
        update, candidate = (found[name].array for name in names)
        entering = np.stack([before, *after.swapaxes(0, 1)[:-1]], axis=1)
        made = update * entering + (1 - update) * candidate
        np.testing.assert_allclose(after, made, **CLOSE)


def test_calls_are_told_apart_though_keras_runs_the_second_one_first(tmp_path):
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 3), name="x")
    layer = layers.SimpleRNN(2, return_sequences=True, name="rnn")
    first, second = layer(x), layer(-x)
    both = layers.Multiply()([layers.Maximum()([first, second]), second])
    model = keras.Model(x, layers.GlobalAveragePooling1D()(both))
    pg.compile(model, pg.States(), tmp_path / "m.onnx")
    data = series(2, 4)
    found = runtime.load(tmp_path / "m.onnx").run(data)
    np.testing.assert_allclose(found["states/rnn#0"], layer(data), **CLOSE)
    np.testing.assert_allclose(found["states/rnn#1"], layer(-data), **CLOSE)


@pytest.mark.parametrize("steps", [None, 2])
def test_a_layer_at_each_step_of_another_time(steps, tmp_path):
    keras.utils.set_random_seed(6)
    inner = layers.LSTM(3, name="inner")
    x = keras.Input((steps, None, 2), name="x")
    y = layers.TimeDistributed(inner, name="outer")(x)
    model = keras.Model(x, layers.LSTM(2, name="upper")(y))
    pg.compile(model, pg.States(), tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    data = np.random.default_rng(1).standard_normal((3, 2, 5, 2)).astype("float32")
    found = art.run(data)
    each = [by_hand(inner, data[:, i]) for i in range(2)]
    for number, name in enumerate(("states/outer/inner", "states/outer/inner:1")):
        expected = np.stack([one[number] for one in each], 1)
        np.testing.assert_allclose(found[name], expected, **CLOSE)
        assert art.manifest.output(name).axes == ("batch", "time", "step", "unit")
    assert found["states/upper"].shape == (3, 2, 2)


def test_a_wrong_state_is_found(few, tmp_path, monkeypatch):
    # The states of steps that count, in the place of those of all steps.
    monkeypatch.setattr(
        recurrent_layers._Masked, "hidden_states", lambda _, y, __: tf.transpose(y, [1, 0, 2])
    )
    with pytest.raises(VerificationError, match="states/simple"):
        pg.compile(few, pg.States("simple"), tmp_path / "m.onnx")


def test_a_wrong_gate_is_found(few, tmp_path, monkeypatch):
    of_gru = recurrence._of_gru

    def turned(*given):
        update, reset, new = of_gru(*given)
        return [reset, update, new]

    monkeypatch.setattr(recurrence, "_of_gru", turned)
    with pytest.raises(VerificationError, match=r"states/before/(update|reset)_gate"):
        pg.compile(few, pg.States("before", gates=True), tmp_path / "m.onnx")


def test_what_has_none_is_refused_by_name(model):
    with pytest.raises(SelectionError, match=r"'scores' .*none of which can be probed for states"):
        pg.instrument(model, pg.States("scores"))
    with pytest.raises(SelectionError, match="none of which has gates"):
        pg.instrument(model, pg.States("simple", gates=True))
    with pytest.raises(SpecError, match="gates= takes True or False"):
        pg.States(gates="yes")


def test_a_wrapped_layer_comes_once(model):
    probed = pg.instrument(model, pg.States(["both", "both/*"]))
    names = [o.name for o in probed.manifest.explanations]
    assert names == ["states/both/forward_gru", "states/both/backward_gru"]


def test_gates_of_layers_that_compute_in_halves(tmp_path):
    """A cell that is called by itself computes in what its layer does, as its variables are."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = keras.Input((4, 3), name="x")
        y = layers.LSTM(2, return_sequences=True, name="lstm")(x)
        model = keras.Model(x, layers.GRU(3, name="gru")(y))
    finally:
        keras.config.set_dtype_policy(before)
    exported = pg.compile(model, pg.States(gates=True), tmp_path / "m.onnx")
    assert all(figures.passed for figures in exported.report.values())
    assert {"states/lstm/forget_gate", "states/gru/update_gate"} <= set(exported.report)
