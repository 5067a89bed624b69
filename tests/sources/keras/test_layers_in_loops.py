"""Layers inside the cells of recurrent layers, over time: against the cells, step by step."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SelectionError, VerificationError
from probegen.sources.keras import layers_in_loops

CLOSE = {"rtol": 1e-5, "atol": 3e-6}


@keras.saving.register_keras_serializable("tests")
class Normed(layers.Layer):
    """An LSTM cell with a normalisation, of layers; one is called twice in a step."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units, self.state_size = units, [units, units]
        self.gates = layers.Dense(3 * units, name="gates")
        self.norm = layers.LayerNormalization(name="norm")
        self.new = layers.Dense(units, activation="tanh", name="new")

    def build(self, shape):
        self.gates.build((None, shape[-1] + self.units))
        self.norm.build((None, 3 * self.units))
        self.new.build((None, self.units))

    def call(self, x, states):
        h, c = states
        i, f, o = ops.split(ops.sigmoid(self.norm(self.gates(ops.concatenate([x, h], -1)))), 3, -1)
        c = f * c + i * self.new(c + h)
        h = o * self.new(c)
        return h, [h, c]


@keras.saving.register_keras_serializable("tests")
class Convolved(layers.Layer):
    """A cell that convolves maps."""

    def __init__(self, **more):
        super().__init__(**more)
        self.state_size, self.output_size = [(5, 4, 2)], 2
        self.conv = layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")

    def build(self, _):
        self.conv.build((None, 5, 4, 3))

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, 5, 4, 2))]

    def call(self, x, states):
        h = ops.tanh(self.conv(ops.concatenate([x, states[0]], -1)) - 0.3 * states[0])
        return ops.mean(h, (1, 2)), [h]


@contextlib.contextmanager
def hearing(heard, added):
    """Lets each call of a layer in `added` be moved by an entry there, and heard."""
    original, count = keras.Layer.__call__, {}

    def called(layer, *args, **kwargs):
        out = original(layer, *args, **kwargs)
        number = count[layer.name] = count.get(layer.name, -1) + 1
        if (layer.name, number) in added:
            first, *rest = keras.tree.flatten(out)
            heard[layer.name, number] = first = first + added[layer.name, number]
            out = keras.tree.pack_sequence_as(out, [first, *rest])
        return out

    keras.Layer.__call__ = called
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def by_steps(layer, x, mask, zeros):
    """Calls the cell of a recurrent layer one step at a time.

    Args:
        layer: the layer.
        x: what it is fed.
        mask: which steps count.
        zeros: name of a layer and its call in a step -> what is added to its outputs.

    Returns:
        The outputs of all steps in their order, and what each layer gave in that of the input.
    """
    states = keras.tree.map_structure(tf.convert_to_tensor, layer.get_initial_state(len(x)))
    y, outputs, found = None, [], {key: [None] * x.shape[1] for key in zeros}
    steps = range(x.shape[1])
    for t in reversed(steps) if layer.go_backwards else steps:
        heard = {}
        with hearing(heard, {key: added[:, t] for key, added in zeros.items()}):
            out, new = layer.cell(x[:, t], states)

        def chosen(now, before, t=t):
            there = tf.reshape(mask[:, t], [-1, *[1] * (now.shape.rank - 1)])
            return tf.where(there, now, before)

        pairs = zip(keras.tree.flatten(new), keras.tree.flatten(states), strict=True)
        states = keras.tree.pack_sequence_as(states, [chosen(*pair) for pair in pairs])
        y = chosen(out, tf.zeros_like(out) if y is None else y)
        outputs.append(y)
        for key, value in heard.items():
            found[key][t] = chosen(value, tf.zeros_like(value))
    return outputs, {key: tf.stack(each, 1) for key, each in found.items()}


def series(batch, time, rest=(3,)):
    """Noise with padding behind and between, and a row of nothing else."""
    x = np.random.default_rng(batch).standard_normal((batch, time, *rest)).astype("float32")
    x[0, -2:] = x[1, 1] = x[2:] = 0
    return x


def with_weights(model):
    rng = np.random.default_rng(6)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.6))
    return model


def model_of(layer, rest=(3,), time=None):
    """A series with padding through a layer called `rec`; all its steps are read where it can."""
    x = keras.Input((time, *rest), name="x")
    y = layer(layers.Masking(name="masking")(x) if len(rest) == 1 else x)
    if y.ndim == 3:
        y = layers.LSTM(2, name="reader")(y)
    return with_weights(keras.Model(x, layers.Dense(3, name="scores")(y)))


def expected(model, x, shapes, target=1):
    """What layers in the cell of `rec` give over time, and the gradients of a score there."""
    layer = model.get_layer("rec")
    mask = tf.constant((x != 0).any(-1) if x.ndim == 3 else np.ones(x.shape[:2], bool))
    zeros = {key: tf.zeros([*x.shape[:2], *sizes]) for key, sizes in shapes.items()}
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        outputs, found = by_steps(layer, tf.constant(x), mask, zeros)
        y = outputs[-1]
        if layer.return_sequences:
            y = model.get_layer("reader")(tf.stack(outputs, 1), mask=mask)
        score = model.get_layer("scores")(y)[:, target]
    return found, tape.gradient(score, zeros)


RECURRENT = {
    "last": {},
    "all steps": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "backwards, all steps": {"go_backwards": True, "return_sequences": True},
    "unrolled": {"unroll": True},
    "unrolled backwards": {"unroll": True, "go_backwards": True},
}


@pytest.mark.parametrize("name", RECURRENT)
def test_layers_of_a_cell_come_out_over_time(name, tmp_path):
    keras.utils.set_random_seed(1)
    unrolled = RECURRENT[name].get("unroll")
    cell = Normed(4, name="cell")
    model = model_of(layers.RNN(cell, name="rec", **RECURRENT[name]), time=5 if unrolled else None)
    probes = [
        pg.Activations("rec/cell/*"),
        pg.InputGradient(1, wrt="rec/cell/*"),
        pg.GradientXInput(1, wrt="rec/cell/norm"),
        pg.GradCAM("rec/cell/gates", 1),
    ]
    made = pg.compile(model, probes, tmp_path / "m.onnx")
    assert made.report.passed
    art, probed = runtime.load(tmp_path / "m.onnx"), pg.instrument(model, probes)
    paths = {
        ("gates", 0): "rec/cell/gates",
        ("norm", 0): "rec/cell/norm",
        ("new", 0): "rec/cell/new#0",
        ("new", 1): "rec/cell/new#1",
    }
    sizes = {key: (4 if key[0] == "new" else 12,) for key in paths}
    for batch, time in ((2, 5), (4, 5 if unrolled else 8)):
        x = series(batch, time)
        values, gradients = expected(model, x, sizes)
        for found in (art.run(x), probed(x)):
            for key, path in paths.items():
                np.testing.assert_allclose(found[f"activation/{path}"], values[key], **CLOSE)
                np.testing.assert_allclose(found[f"input_gradient/{path}"], gradients[key], **CLOSE)
            norm, gates = ("norm", 0), ("gates", 0)
            product = values[norm] * gradients[norm]
            np.testing.assert_allclose(found["gradient_x_input/rec/cell/norm"], product, **CLOSE)
            weights = tf.reduce_mean(gradients[gates], 1, keepdims=True)
            cam = tf.nn.relu(tf.reduce_sum(weights * values[gates], -1))
            np.testing.assert_allclose(found["grad_cam/rec/cell/gates"], cam, **CLOSE)
    assert np.all(values[gates][0, -2:] == 0)
    assert np.abs(gradients[gates][1, 2]).max() > 0


def test_maps_of_a_convolution_in_a_cell(tmp_path):
    keras.utils.set_random_seed(1)
    cell = Convolved(name="cell")
    model = model_of(layers.RNN(cell, name="rec"), rest=(5, 4, 1))
    probes = [
        pg.Activations("*/conv"),
        pg.Saliency(1, wrt="*/conv"),
        pg.GradCAM("*/conv", 1),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx")
    art, probed = runtime.load(tmp_path / "m.onnx"), pg.instrument(model, probes)
    axes = {o.name: o.axes for o in art.manifest.explanations}
    place = ("batch", "time", "height", "width")
    assert axes["activation/rec/cell/conv"] == (*place, "channel")
    assert axes["saliency/rec/cell/conv"] == axes["grad_cam/rec/cell/conv"] == place
    for batch, time in ((2, 3), (3, 6)):
        x = series(batch, time, (5, 4, 1))
        values, gradients = expected(model, x, {("conv", 0): (5, 4, 2)})
        value, gradient = values["conv", 0], gradients["conv", 0]
        weights = tf.reduce_mean(gradient, (1, 2, 3), keepdims=True)
        cam = tf.nn.relu(tf.reduce_sum(weights * value, -1))
        for found in (art.run(x), probed(x)):
            np.testing.assert_allclose(found["activation/rec/cell/conv"], value, **CLOSE)
            largest = tf.reduce_max(abs(gradient), -1)
            np.testing.assert_allclose(found["saliency/rec/cell/conv"], largest, **CLOSE)
            np.testing.assert_allclose(found["grad_cam/rec/cell/conv"], cam, **CLOSE)


def agree(model, probes, samples, told, path=None):
    """Compares an instrumented model, and an artefact where there is a path, with what is told."""
    runs = [pg.instrument(model, probes)]
    if path is not None:
        pg.compile(model, probes, path)
        runs.append(runtime.load(path).run)
    for x in samples:
        for run in runs:
            found = run(x)
            for name, value in told(x).items():
                np.testing.assert_allclose(found[name], value, **CLOSE, err_msg=name)


def test_cells_of_a_stack_are_listed_one_by_one(tmp_path):
    """Keras calls stacked cells once before the loop, which is no step."""
    keras.utils.set_random_seed(1)
    cells = [layers.LSTMCell(4, name="lstm"), Normed(4, name="a"), Normed(3, name="b")]
    model = model_of(layers.RNN(layers.StackedRNNCells(cells, name="stack"), name="rec"))
    points = {p.name: p for p in pg.inspect(model) if p.path.startswith("rec/")}
    stack = "rec/stack"
    assert {name for name, p in points.items() if not p.probes} == {stack, f"{stack}/lstm"}
    assert points[f"{stack}/b/new#1"].shape == (None, None, 3)

    def told(x):
        names = {("gates", 0): f"{stack}/a/gates", ("gates", 1): f"{stack}/b/gates"}
        values, gradients = expected(model, x, {("gates", 0): (12,), ("gates", 1): (9,)})
        return {
            **{f"activation/{names[key]}": value for key, value in values.items()},
            **{f"input_gradient/{names[key]}": value for key, value in gradients.items()},
        }

    probes = [pg.Activations("*/gates"), pg.InputGradient(1, wrt="*/gates")]
    agree(model, probes, [series(2, 5), series(3, 7)], told, tmp_path / "m.onnx")
    assert pg.verify(tmp_path / "m.onnx", model, series(3, 4)).passed


def test_a_loop_in_every_frame(tmp_path):
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 5, 3), name="x")
    rnn = layers.RNN(Normed(4, name="cell"), name="rnn", go_backwards=True)
    y = layers.GlobalAveragePooling1D()(layers.TimeDistributed(rnn, name="frames")(x))
    model = with_weights(keras.Model(x, layers.Dense(3, name="scores")(y)))

    def told(x):
        rows, zeros = x.reshape(-1, 5, 3), {("gates", 0): tf.zeros([len(x) * x.shape[1], 5, 12])}
        with tf.GradientTape() as tape:
            tape.watch(zeros)
            outputs, found = by_steps(rnn, rows, tf.ones(rows.shape[:2], bool), zeros)
            each = tf.reshape(outputs[-1], [*x.shape[:2], 4])
            score = model.get_layer("scores")(tf.reduce_mean(each, 1))[:, 1]
        gradient = tape.gradient(score, zeros)["gates", 0]
        path, sizes = "frames/rnn/cell/gates", [*x.shape[:2], 5, 12]
        return {
            f"activation/{path}": tf.reshape(found["gates", 0], sizes),
            f"input_gradient/{path}": tf.reshape(gradient, sizes),
        }

    probes = [pg.Activations("*/gates"), pg.InputGradient(1, wrt="*/gates")]
    rng = np.random.default_rng(2)
    samples = [rng.normal(size=(*n, 5, 3)).astype("float32") for n in ((2, 3), (3, 4))]
    agree(model, probes, samples, told, tmp_path / "m.onnx")
    described = pg.instrument(model, probes).manifest.explanations
    assert {o.axes for o in described} == {("batch", "time", "step", "channel")}
    assert {o.detail["steps_of"] for o in described} == {"frames/rnn"}


def test_a_score_of_a_layer_in_a_cell(tmp_path):
    keras.utils.set_random_seed(1)
    model = model_of(layers.RNN(Normed(4, name="cell"), name="rec"))

    def told(x):
        fed, mask = tf.constant(x), tf.constant((x != 0).any(-1))
        with tf.GradientTape() as tape:
            tape.watch(fed)
            zeros = {("gates", 0): tf.zeros([*x.shape[:2], 12])}
            _, found = by_steps(model.get_layer("rec"), fed, mask, zeros)
            score = tf.reduce_sum(found["gates", 0][..., 2], 1)
        return {"input_gradient/x": tape.gradient(score, fed)}

    probe = pg.InputGradient(2, of="rec/cell/gates")
    agree(model, probe, [series(2, 5), series(3, 7)], told, tmp_path / "m.onnx")


def test_calls_of_a_shared_layer_and_of_a_shared_loop_have_numbers():
    """One that is called in the steps of two loops, and once outside of them."""
    keras.utils.set_random_seed(1)
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    rnn = layers.RNN(Normed(4, name="cell"), name="rec")
    first, second = rnn(a), rnn(b)
    y = layers.Concatenate()([rnn.cell.new(first), second])
    model = with_weights(keras.Model([a, b], layers.Dense(3, name="scores")(y)))
    shapes = {p.name: p.shape for p in pg.inspect(model)}
    assert [shapes[f"rec/cell/gates#{k}"] for k in (0, 1)] == [(None, None, 12)] * 2
    ranks = {len(shape) for name, shape in shapes.items() if "new#" in name}
    assert ranks == {2, 3}
    assert len([name for name in shapes if "new#" in name]) == 5
    found = pg.instrument(model, pg.Activations("rec/cell/gates"))([series(2, 5), series(2, 7)])
    for k, time in enumerate((5, 7)):
        x = series(2, time)
        zeros = {("gates", 0): tf.zeros([2, time, 12])}
        _, values = by_steps(rnn, x, tf.ones(x.shape[:2], bool), zeros)
        np.testing.assert_allclose(
            found[f"activation/rec/cell/gates#{k}"], values["gates", 0], **CLOSE
        )


class Nested(layers.Layer):
    """A cell with layers in loops and branches of its own, and one whose result nothing reads."""

    def __init__(self, **more):
        super().__init__(**more)
        self.state_size = 4
        self.enter = layers.Dense(4, name="enter")
        self.again = layers.Dense(4, activation="tanh", name="again")
        self.inner = layers.RNN(layers.SimpleRNNCell(4), name="inner")
        self.maybe = layers.Dense(4, name="maybe")
        self.unread = layers.Dense(4, name="unread")
        self.parts = layers.Dense(2, name="parts")

    def call(self, x, states):
        h = self.enter(ops.concatenate([x, states[0]], -1))
        _, h = ops.while_loop(lambda i, _: i < 2, lambda i, h: (i + 1, self.again(h)), (0, h))
        h = h + self.inner(ops.stack([h, -h], 1))
        h = h + ops.cond(ops.sum(x) > 0, lambda: self.maybe(h), lambda: h)
        h = h + ops.reshape(self.parts(ops.reshape(h, (-1, 2))), (-1, 4))
        self.unread(h)
        return h, [h]


def test_what_does_not_leave_a_step_is_refused_by_name():
    keras.utils.set_random_seed(1)
    model = model_of(layers.RNN(Nested(name="cell"), name="rec"))
    points = {p.name: p for p in pg.inspect(model) if p.path.startswith("rec/")}
    reasons = {name.removeprefix("rec/cell/"): p.reason for name, p in points.items()}
    assert "gradient" in points["rec/cell/enter"].probes
    assert "gradient" in points["rec/cell/inner"].probes
    assert points["rec/cell/unread"].probes == ("activation",)
    assert "no gradient reaches it" in reasons["unread"]
    assert "join samples with others" in reasons["parts"]
    for name in ("again", "maybe", "inner/simple_rnn_cell"):
        assert not points[f"rec/cell/{name}"].probes
    assert "inside a loop or branch within each step of 'rec'" in reasons["again"]
    with pytest.raises(SelectionError, match="within each step of 'rec'"):
        pg.instrument(model, pg.Activations("*/again"))
    for probe in (pg.IntegratedGradients(1, wrt="*/enter"), pg.Occlusion(2, wrt="*/enter")):
        with pytest.raises(InstrumentError, match=r"each step's output .* pg.InputGradient"):
            pg.instrument(model, probe)


def test_the_witness_is_the_cell_called_step_by_step(tmp_path, monkeypatch):
    """What comes out in another order than that of the input is refused."""
    keras.utils.set_random_seed(1)
    model = model_of(layers.RNN(Normed(4, name="cell"), name="rec", go_backwards=True))
    monkeypatch.setattr(layers_in_loops, "in_order", lambda _, steps: steps)
    with pytest.raises(VerificationError, match="activation/rec/cell/gates"):
        pg.compile(model, pg.Activations("*/gates"), tmp_path / "m.onnx")
