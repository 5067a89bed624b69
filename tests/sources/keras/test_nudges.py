"""Gradients at hidden states over time, against a tape through the cells, step by step."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SelectionError

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
PROBES = [
    pg.InputGradient(1, wrt="states:rec*"),
    pg.GradientXInput(1, wrt="states:rec*"),
    pg.InputGradient([2, 1], wrt="states:rec*", name="two"),
]


@keras.saving.register_keras_serializable("tests")
class Doubling(layers.Layer):
    """A cell whose output is another function of its state."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = self.state_size = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

    def call(self, x, states):
        state = keras.ops.tanh(states[0] + keras.ops.matmul(x, self.w))
        return 2.0 * state, [state]


def model(layer):
    """Masked series through a layer called `rec`, whose output is read at every step if it can."""
    keras.utils.set_random_seed(6)
    x = keras.Input((None, 3), name="x")
    y = layer(layers.Masking(name="masking")(x))
    if y.ndim == 3:
        y = layers.LSTM(2, name="reader")(y)
    made = keras.Model(x, layers.Dense(3, name="scores")(y))
    rng = np.random.default_rng(6)
    for weight in made.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.6))
    return made


def series(batch, time):
    """Noise with padding behind and between, and a row of nothing else."""
    x = np.random.default_rng(batch).standard_normal((batch, time, 3)).astype("float32")
    x[0, -2:] = x[1, 1] = x[2:] = 0
    return x


def by_hand(made, x, target=1):
    """Gradients of a score at the hidden states, and these: by the cells, one step at a time."""
    layer, head = made.get_layer("rec"), made.layers[3:]
    stacked = isinstance(layer.cell, layers.StackedRNNCells)
    cells = layer.cell.cells if stacked else [layer.cell]
    first = layer.get_initial_state(len(x))
    states = [keras.tree.flatten(one) for one in (first if stacked else [first])]
    mask = (x != 0).any(-1)
    steps = range(x.shape[1])
    added = [tf.zeros((*x.shape[:2], s[0].shape[-1])) for s in states]
    found = [[None] * x.shape[1] for _ in cells]
    outputs, y = [], tf.zeros((len(x), states[-1][0].shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(added)
        for t in reversed(steps) if layer.go_backwards else steps:
            there, value = mask[:, t, None], tf.constant(x[:, t])
            for k, cell in enumerate(cells):
                _, new = cell(value, states[k])
                new = keras.tree.flatten(new)
                new[0] = value = new[0] + added[k][:, t]
                states[k] = [tf.where(there, n, o) for n, o in zip(new, states[k], strict=True)]
                found[k][t] = states[k][0]
            y = tf.where(there, value, y)
            outputs.append(y)
        if layer.return_sequences:
            y = head[0](tf.stack(outputs, 1), mask=tf.constant(mask))
        score = head[-1](y)[:, target]
    return tape.gradient(score, added), [np.stack(over, 1) for over in found]


LAYERS = {
    "LSTM": lambda: layers.LSTM(4, name="rec"),
    "LSTM, backwards, all steps": lambda: layers.LSTM(
        4, go_backwards=True, return_sequences=True, name="rec"
    ),
    "LSTM, other gates": lambda: layers.LSTM(
        4, recurrent_activation="hard_sigmoid", return_sequences=True, name="rec"
    ),
    "GRU, all steps": lambda: layers.GRU(4, return_sequences=True, name="rec"),
    "GRU, reset before": lambda: layers.GRU(4, reset_after=False, go_backwards=True, name="rec"),
    "GRU in a loop": lambda: layers.GRU(4, activation="swish", name="rec"),
    "SimpleRNN": lambda: layers.SimpleRNN(4, return_sequences=True, name="rec"),
    "stacked": lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], name="rec"),
}


def test_a_state_counts_by_its_later_steps_as_well(tmp_path):
    made = model(layers.SimpleRNN(4, name="rec"))
    pg.compile(made, PROBES[0], tmp_path / "m.onnx", verify=False)
    x = series(2, 5)
    (expected,), _ = by_hand(made, x)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    np.testing.assert_allclose(found["input_gradient/states/rec"], expected, **CLOSE)
    assert np.all(expected[1, 0] != 0)  # which no other step gives out


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_gradient_by_all_that_a_state_goes_into(name, tmp_path):
    made = model(LAYERS[name]())
    pg.compile(made, PROBES, tmp_path / "m.onnx", verify=False)
    art, probed = runtime.load(tmp_path / "m.onnx"), pg.instrument(made, PROBES)
    for batch, time in ((2, 5), (3, 7)):
        x = series(batch, time)
        gradients, states = by_hand(made, x)
        others, _ = by_hand(made, x, target=2)
        paths = ["rec", "rec:2"] if len(states) > 1 else ["rec"]
        for path, gradient, other, state in zip(paths, gradients, others, states, strict=True):
            more = f"/states/{path}" if len(paths) > 1 else ""
            expected = {
                f"input_gradient/states/{path}": gradient,
                f"gradient_x_input/states/{path}": gradient * state,
                f"two{more}": np.stack([other, gradient], 1),
            }
            for found in (art.run(x), probed(x)):
                for output, numbers in expected.items():
                    np.testing.assert_allclose(found[output], numbers, **CLOSE, err_msg=output)


@pytest.mark.parametrize("name", ["LSTM", "GRU in a loop", "GRU, reset before", "stacked"])
def test_methods_of_other_rules_pass_them(name, tmp_path):
    """What is added to the states is 0 in the reference as well, and has no relevance."""
    made, x = model(LAYERS[name]()), series(2, 5)
    probes = [pg.DeepLIFT(target=1), pg.LRP(target=1)]
    found = []
    for beside in ([], PROBES[:1]):
        pg.compile(made, [*probes, *beside], tmp_path / "m.onnx", verify=False)
        found.append(runtime.load(tmp_path / "m.onnx").run(x))
    alone, together = found
    for output in alone.explanations:
        np.testing.assert_allclose(together[output], alone[output], **CLOSE, err_msg=output)
    expected = by_hand(made, x)[0][0]
    np.testing.assert_allclose(together["input_gradient/states/rec"], expected, **CLOSE)


def test_fused_operators_stay_and_an_artefact_is_verified(tmp_path):
    made = model(
        layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="lstm"), name="both")
    )
    report = pg.compile(made, pg.Saliency(1, wrt="states:both/*"), tmp_path / "m.onnx").report
    assert report.passed
    graph = onnx.load(tmp_path / "m.onnx").graph
    branches = [a.g for node in graph.node for a in node.attribute if a.g.node]
    fused = [n for g in (graph, *branches) for n in g.node if n.op_type == "LSTM"]
    assert fused
    assert all(len(node.input) <= 8 for node in fused)
    first, _ = runtime.load(tmp_path / "m.onnx").manifest.explanations
    assert first.axes == ("batch", "time")


@pytest.fixture(scope="module")
def lstm():
    return model(layers.LSTM(4, name="rec"))


def test_a_manifest_names_the_states(lstm):
    probed = pg.instrument(lstm, pg.Saliency(1, wrt="states:*ec"))
    assert [probe["wrt"] for probe in probed.manifest.probes] == [["states:rec"]]


def test_layers_that_keras_numbers_anew(tmp_path):
    made = []
    for _ in range(2):
        keras.utils.set_random_seed(6)
        x = keras.Input((4, 3), name="x")
        made.append(
            keras.Model(x, layers.Dense(2, name="scores")(layers.Bidirectional(layers.GRU(2))(x)))
        )
    probed = pg.instrument(made[0], pg.InputGradient(1, wrt="states:*"))
    pg.export(probed, tmp_path / "m.onnx", dynamic_batch=False)
    assert pg.verify(tmp_path / "m.onnx", made[1]).passed


@pytest.mark.parametrize(
    ("wrt", "said"),
    [
        ("states:rec:1", "of 'rec:1', it is no hidden state.* States: 'rec'"),
        ("states:other", "matches no state over time. States: 'rec'"),
    ],
)
def test_other_states_are_refused(lstm, wrt, said):
    with pytest.raises(SelectionError, match=said):
        pg.instrument(lstm, pg.InputGradient(1, wrt=wrt))


@pytest.mark.parametrize(
    "probe",
    [
        pg.IntegratedGradients(2, target=1, wrt="states:rec"),
        pg.Occlusion(1, target=1, wrt="states:rec"),
        pg.LRP(target=1, wrt="states:rec"),
    ],
)
def test_methods_that_look_elsewhere_are_refused(lstm, probe):
    with pytest.raises(InstrumentError, match=r"take pg.InputGradient, pg.Saliency"):
        pg.instrument(lstm, probe)


def test_a_cell_that_makes_more_of_its_state_is_refused():
    made = model(layers.RNN(Doubling(2), name="rec"))
    with pytest.raises(SelectionError, match="makes more of the new state in the same step"):
        pg.instrument(made, pg.InputGradient(1, wrt="states:rec"))


def test_a_cell_that_runs_twice_in_a_step_is_refused():
    cell = layers.GRUCell(3)
    made = model(layers.RNN([cell, cell], name="rec"))
    with pytest.raises(SelectionError, match="its cell runs several times in a step"):
        pg.instrument(made, pg.InputGradient(1, wrt="states:rec"))
