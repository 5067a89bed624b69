"""The witness's gradients of LSTM, GRU and RNN, against differences of onnxruntime's outputs."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.parity.witness.adjoints import adjoint
from probegen.parity.witness.evaluation import NodeEvaluator
from probegen.parity.witness.step import Step, Unknown

TIME, BATCH, WIDTH, HIDDEN = 5, 3, 4, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
#: Operator, attributes, further inputs: biases, lengths, initial states, peepholes.
CASES = [
    ("LSTM", {}, ""),
    ("LSTM", {"direction": "bidirectional"}, "bias lengths initial"),
    ("LSTM", {"direction": "reverse"}, "bias lengths initial peepholes"),
    ("LSTM", {"clip": 0.4, "activations": ["Softsign", "Relu", "Tanh"]}, "bias initial"),
    ("LSTM", {"layout": 1}, "initial"),
    ("GRU", {"direction": "bidirectional"}, "bias lengths initial"),
    ("GRU", {"direction": "reverse", "linear_before_reset": 1}, "bias lengths initial"),
    ("GRU", {"linear_before_reset": 1, "clip": 0.5}, "bias"),
    ("GRU", {"activations": ["HardSigmoid", "Elu"], "activation_alpha": [0.15, 0.8],
             "activation_beta": [0.4]}, "bias initial"),
    ("RNN", {"direction": "bidirectional", "activations": ["LeakyRelu", "ScaledTanh"],
             "activation_alpha": [0.3, 1.4], "activation_beta": [0.6]}, "bias lengths initial"),
    ("RNN", {"direction": "reverse", "activations": ["Softplus"]}, "initial"),
]  # fmt: skip


def arrays_of(operator, attributes, others):
    """Random inputs, None where one is left out; states and x with the batch where layout= says."""
    rng = np.random.default_rng(3)
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    width = GATES[operator] * HIDDEN
    turned = bool(attributes.get("layout"))

    def state():
        return rng.normal(size=(BATCH, count, HIDDEN) if turned else (count, BATCH, HIDDEN))

    given = {
        "bias": rng.normal(size=(count, 2 * width)),
        "lengths": np.array([4, 5, 2], np.int32),
        "initial": state(),
        "cell": state(),
        "peepholes": rng.normal(size=(count, 3 * HIDDEN)),
    }
    asked = [*others.split(), *(["cell"] if "initial" in others else [])]
    x = rng.normal(size=(BATCH, TIME, WIDTH) if turned else (TIME, BATCH, WIDTH))
    weights = [rng.normal(size=(count, width, n)) for n in (WIDTH, HIDDEN)]
    found = [x, *weights, *(given[name] if name in asked else None for name in given)]
    return found if operator == "LSTM" else found[:6]  # the others have neither cell nor peepholes


def node_of(operator, attributes, arrays):
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(arrays)]
    outputs = ["y", "h", "c"] if operator == "LSTM" else ["y", "h"]
    return onnx.helper.make_node(operator, names, outputs, hidden_size=HIDDEN, **attributes)


class Alone:
    """The operator alone in onnxruntime, which has no `layout=1`: axes are turned around it."""

    def __init__(self, operator, attributes, arrays):
        others = {name: value for name, value in attributes.items() if name != "layout"}
        self.turns = len(others) < len(attributes)
        node, info = node_of(operator, others, arrays), onnx.helper.make_tensor_value_info
        fed = [(f"i{k}", a) for k, a in enumerate(arrays) if a is not None]
        inputs = [info(n, 6 if a.dtype.kind == "i" else 1, [None] * a.ndim) for n, a in fed]
        graph = onnx.helper.make_graph(
            [node], "cell", inputs, [info(name, 1, None) for name in node.output]
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        self.session = onnxruntime.InferenceSession(model.SerializeToString())

    def __call__(self, arrays):
        fed = {}
        for k, a in enumerate(arrays):
            if a is not None:
                array = a.swapaxes(0, 1) if self.turns and k in (0, 5, 6) else a
                fed[f"i{k}"] = array if a.dtype.kind == "i" else array.astype(np.float32)
        y, *last = (a.astype(np.float64) for a in self.session.run(None, fed))
        if self.turns:
            return [y.transpose(2, 0, 1, 3), *(a.swapaxes(0, 1) for a in last)]
        return [y, *last]


@pytest.mark.parametrize(("operator", "attributes", "others"), CASES)
def test_gradients_through_time_are_those_of_differences(operator, attributes, others):
    arrays = arrays_of(operator, attributes, others)
    run = Alone(operator, attributes, arrays)
    outputs, rng = run(arrays), np.random.default_rng(5)
    g = [rng.normal(size=y.shape) for y in outputs]
    node = ir.from_proto(node_of(operator, attributes, arrays))
    step = Step(node, arrays, outputs, NodeEvaluator(17))
    explained = [k for k in (0, 5, 6) if k < len(arrays) and arrays[k] is not None]
    for position in explained:
        found = adjoint(step, g, position)
        assert found.shape == arrays[position].shape
        for _ in range(3):
            direction, there = rng.normal(size=found.shape), []
            for sign in (1, -1):
                moved = list(arrays)
                moved[position] = arrays[position] + sign * 2e-3 * direction
                there.append(run(moved))
            slope = sum(((a - b) * d).sum() for a, b, d in zip(*there, g, strict=True)) / 4e-3
            np.testing.assert_allclose((found * direction).sum(), slope, rtol=3e-3, atol=5e-3)


def test_outputs_without_a_gradient_count_as_zero():
    arrays = arrays_of("LSTM", {}, "")
    node = ir.from_proto(node_of("LSTM", {}, arrays))
    y, h, c = Alone("LSTM", {}, arrays)(arrays)
    step = Step(node, arrays, [y, h, c], NodeEvaluator(17))
    g = np.random.default_rng(1).normal(size=h.shape)
    whole = adjoint(step, [np.zeros_like(y), g, np.zeros_like(c)], 0)
    np.testing.assert_array_equal(adjoint(step, [None, g], 0), whole)
    assert np.abs(whole).max() > 1e-3


@pytest.mark.parametrize(
    ("attributes", "position", "why"), [({}, 1, "weights move"), ({"input_forget": 1}, 0, "forget")]
)
def test_what_has_no_rule_is_named(attributes, position, why):
    arrays = arrays_of("LSTM", attributes, "")
    step = Step(ir.from_proto(node_of("LSTM", attributes, arrays)), arrays, [], NodeEvaluator(17))
    with pytest.raises(Unknown, match=why):
        adjoint(step, [None, np.ones((1, BATCH, HIDDEN)), None], position)
