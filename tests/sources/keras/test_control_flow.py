"""Loops and choices of `keras.ops` in layers of one's own: as the untouched model, eagerly."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import ProbegenError, SelectionError
from probegen.sources.keras.control_flow import STAND_INS


class Own(layers.Layer):
    """A layer that calls a function with its matrix and what goes in."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def build(self, shape):
        self.matrix = self.add_weight((shape[-1], shape[-1]), "glorot_uniform", name="matrix")

    def call(self, x):
        return self.function(self.matrix, x)

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def scanned(matrix, x):
    """Two states and two sequences, from the last step to the first."""
    over = ops.transpose(x, (1, 0, 2))

    def step(states, entries):
        h, k = states
        after = ops.tanh(ops.matmul(h, matrix) + entries[0])
        return (after, k * 0.5 + entries[1]), (after * k, entries[1] * h)

    start = ops.zeros_like(x[:, 0]), ops.ones_like(x[:, 0])
    (h, k), (a, b) = ops.scan(step, start, (over, ops.sin(over)), reverse=True)
    return h * k + ops.sum(a * b * over, 0)


def scanned_without_results(matrix, x):
    """States alone, and of another scan results without a sequence."""

    def step(state, entry):
        return ops.tanh(ops.matmul(state, matrix) + entry), None

    def alone(state, _):
        return ops.tanh(ops.matmul(state, matrix)), state

    last = ops.scan(step, x[:, 0], ops.transpose(x, (1, 0, 2)))[0]
    return ops.sum(ops.scan(alone, last, length=3)[1], 0)


def linear_recurrence(matrix, x):
    """As state space models have it, in both directions."""

    def combine(one, other):
        return one[0] * other[0], other[0] * one[1] + other[1]

    gates = ops.sigmoid(ops.matmul(x, matrix))
    ahead = ops.associative_scan(combine, (gates, x), axis=1)[1]
    back = ops.associative_scan(combine, (gates, x), axis=-2, reverse=True)[1]
    return ahead[:, -1] + ops.sum(ahead * ops.square(back), 1)


def switched(matrix, x):
    """Whole numbers below 0 and beyond the last branch among them."""
    chosen = ops.cast(ops.round(ops.sum(x)), "int32")
    branches = [
        lambda v: ops.sum(v, 1) * 2.0,
        lambda v: ops.tanh(ops.sum(ops.matmul(v, matrix), 1)),
        lambda v: ops.max(v, 1),
    ]
    return ops.switch(chosen, branches, x)


def model_of(function):
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, layers.Dense(4, name="y")(Own(function, name="own")(x)))


def agrees(artefact, model, x):
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        scores = model(variable)
        score = scores[:, 1]
    result = artefact.run(x)
    np.testing.assert_allclose(result["y"].array, scores, rtol=2e-5, atol=2e-6)
    expected = tape.gradient(score, variable)
    found = result["input_gradient/x"].array
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (scanned, "m.onnx"),
        (scanned, "m"),
        (scanned_without_results, "m.onnx"),
        (linear_recurrence, "m.onnx"),
    ],
)
def test_loops_of_any_length(function, name, tmp_path):
    model = model_of(function)
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / name)
    artefact = runtime.load(tmp_path / name)
    for shape in ((1, 1, 3), (3, 2, 3), (2, 7, 3)):
        agrees(artefact, model, np.random.default_rng(1).standard_normal(shape).astype("float32"))


def test_layers_inside_a_map_give_nothing_out(tmp_path):
    """Keras calls one for its shape first, with the first entry: that is not what it gives."""
    inner = layers.Dense(3, activation="tanh", name="inner")
    inner.build((None, 3))

    class Mapped(Own):
        def __init__(self, **options):
            super().__init__(self.run, **options)
            self.inner = inner

        def run(self, _, x):
            return ops.sum(ops.map(self.inner, ops.transpose(x, (1, 0, 2))), 0)

    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layers.Dense(4, name="y")(Mapped(name="own")(x)))
    with pytest.raises(SelectionError, match="runs inside a loop or branch"):
        pg.instrument(model, pg.Activations("own/inner"))
    with pytest.raises(
        SelectionError,
        match=r"own/inner.*runs inside a loop or branch.*probe 'own', which holds it",
    ):
        pg.instrument(model, pg.InputGradient(target=1, of="own/inner#0"))
    with pytest.raises(
        SelectionError, match=r"Grad-CAM: runs inside a loop or branch.*\. It needs"
    ):
        pg.instrument(model, [pg.GradCAM("own/inner")])
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    given = np.random.default_rng(1).standard_normal((3, 6, 3)).astype("float32")
    agrees(runtime.load(tmp_path / "m.onnx"), model, given)


def test_a_choice_among_several_branches(tmp_path):
    model = model_of(switched)
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=1)], path, dynamic_batch=False)
    artefact = runtime.load(path)
    for total in (-4.0, 0.0, 1.0, 2.0, 9.0):
        x = np.random.default_rng(1).standard_normal((1, 5, 3)).astype("float32")
        agrees(artefact, model, x + (total - x.sum()) / x.size)


def test_a_choice_that_ranks_decide_is_made_when_it_is_traced(tmp_path):
    """The shapes of the other function do not fit; the last choice TensorFlow's graph makes."""

    def chosen(matrix, x):
        y = ops.inner(x[:, :1] * x, matrix[:2])
        y = ops.concatenate([y, y[..., :1]], -1)
        rank = tf.rank(y)
        y = tf.cond(
            pred=tf.logical_and(tf.equal(rank, 3), tf.not_equal(rank, 1)),
            true_fn=lambda: ops.sum(y, 1),
            false_fn=lambda: y + ops.ones((7,)),
        )
        return tf.cond(tf.reduce_any(tf.constant([False])), lambda: y * 2.0, lambda: ops.tanh(y))

    model = model_of(chosen)
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", gate=False)
    assert "If" not in {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}
    for shape in ((1, 2, 3), (3, 5, 3)):
        x = np.random.default_rng(1).standard_normal(shape).astype("float32")
        agrees(runtime.load(tmp_path / "m.onnx"), model, x)


def test_what_is_no_associative_operation_is_not_passed_over(tmp_path):
    model = model_of(lambda _, x: ops.associative_scan(lambda a, b: a - b, x, axis=1)[:, -1])
    with pytest.raises(ProbegenError):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_are_those_of_keras(reverse):
    stand_ins = {name: function for (_, name), function in STAND_INS.items()}
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype("float32")

    def step(carried, entry):
        return carried * 0.5 + entry, carried * entry

    for length in (None, 4):
        given = (step, x[0], x, length, reverse)
        expected = ops.scan(*given[:3], length=length, reverse=reverse)
        found = stand_ins["scan"](None, *given)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    for axis in (0, 1, -1):
        for count in (1, 2, 3):
            given = (np.add, np.take(x, range(count), axis % 3 if axis % 3 != 2 else 1))
            expected = ops.associative_scan(*given, reverse=reverse, axis=axis)
            found = stand_ins["associative_scan"](None, *given, reverse, axis)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
