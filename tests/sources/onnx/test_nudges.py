"""Gradients at the states of a file over time, beside operators and loops written in numpy."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SelectionError, VerificationError
from probegen.sources.onnx import nudges
from tests import reference_recurrent
from tests.sources.onnx.recurrent import HIDDEN, WIDTH, weights_of
from tests.sources.onnx.support import add_weights, parse

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
PROBES = [
    pg.InputGradient(1, wrt="states:cell*"),
    pg.GradientXInput(1, wrt="states:cell*"),
    pg.InputGradient([2, 1], wrt="states:cell*", name="two"),
]


def file(kind, direction="forward", **attributes):
    """One operator, all steps and last states of which are read, `[time, batch, 3] -> [batch, 4]`.

    Args:
        kind: the operator.
        direction: as the operator has it.
        **attributes: others; `lengths=True` gives it ends of its sequences as an input.
    """
    rng = np.random.default_rng(len(kind) + len(direction))
    count = 2 if direction == "bidirectional" else 1
    stored = {n: a.astype("float32") for n, a in weights_of(kind, count, rng).items()}
    lengths = attributes.pop("lengths", False)
    more = "".join(f", {name} = {value}" for name, value in attributes.items())
    text = f"""one (float[time, batch, {WIDTH}] x
      {", int32[batch] lengths" if lengths else ""}) => (float[batch, {HIDDEN}] out) {{
      y, y_h = {kind} <hidden_size = {HIDDEN}, direction = "{direction}"{more}>
        (x, w, r, b{", lengths" if lengths else ""})
      bent = Sin (y)
      steps = ReduceSum <keepdims = 0> (bent, by_time)
      last = ReduceSum <keepdims = 0> (y_h, first)
      out = Add (steps, last) }}"""
    axes = {"by_time": [0, 1], "first": [0]}
    made = parse(text, 17)
    made.graph.node[0].name = "cell"
    stored |= {n: np.array(v) for n, v in axes.items()}
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in stored.items())
    return made, {n: stored[n].astype(np.float64) for n in "wrb"}


def score(kind, weights, direction, x, added, more):
    """The second entry of a sample, of the operator written in numpy."""
    function = getattr(reference_recurrent, kind.lower())
    y, last, *_ = function(x, **weights, direction=direction, added=added, **more)
    return (np.sin(y).sum((0, 1)) + last.sum(0))[:, 1], y


FORMS = {
    "LSTM": ("LSTM", "forward", {}),
    "LSTM, both ways": ("LSTM", "bidirectional", {}),
    "GRU, backwards": ("GRU", "reverse", {"linear_before_reset": 1}),
    "GRU, both ways": ("GRU", "bidirectional", {}),
    "RNN": ("RNN", "forward", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_gradient_by_all_that_a_state_goes_into(form, tmp_path):
    kind, direction, more = FORMS[form]
    source, weights = file(kind, direction, **more)
    report = pg.compile(source, PROBES, tmp_path / "m.onnx", inputs={"x": "time,batch,feature"})
    assert report.report.passed
    art = runtime.load(tmp_path / "m.onnx")
    ways = ["/forward", "/backward"] if direction == "bidirectional" else [""]
    rng = np.random.default_rng(0)
    for batch, time in ((2, 5), (3, 2)):
        x = rng.standard_normal((time, batch, WIDTH)).astype("float32")
        found = art.run(x)
        _, states = score(kind, weights, direction, x, None, more)
        slope = reference_recurrent.complex_step(
            lambda given: {
                "score": score(kind, weights, direction, given["x"], given["e"], more)[0]
            },
            {"x": x, "e": np.zeros((time, len(ways), batch, HIDDEN))},
            {"score": np.ones(batch)},
            "e",
        )
        for k, way in enumerate(ways):
            got = {
                n: found[f"{n}/states/cell{way}"].array
                for n in ("input_gradient", "gradient_x_input")
            }
            expected = slope[:, k].transpose(1, 0, 2)
            np.testing.assert_allclose(got["input_gradient"], expected, **CLOSE)
            product = expected * states[:, k].transpose(1, 0, 2)
            np.testing.assert_allclose(got["gradient_x_input"], product, **CLOSE)
            two = found["two" if len(ways) == 1 else f"two/states/cell{way}"].array
            np.testing.assert_allclose(two[:, 1], expected, **CLOSE)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_beyond_the_end_of_a_sequence_it_is_0(direction, tmp_path):
    source, _ = file("LSTM", direction, lengths=True)
    axes = {"x": "time,batch,feature", "lengths": "batch"}
    pg.compile(source, PROBES[0], tmp_path / "m.onnx", inputs=axes)
    x = np.random.default_rng(3).standard_normal((5, 3, WIDTH)).astype("float32")
    ends = np.array([5, 2, 3], np.int32)
    found = runtime.load(tmp_path / "m.onnx").run({"x": x, "lengths": ends})
    alone, _ = file("LSTM", direction)
    pg.compile(alone, PROBES[0], tmp_path / "alone.onnx", inputs={"x": axes["x"]}, verify=False)
    art = runtime.load(tmp_path / "alone.onnx")
    for name in (n for n in found if n.startswith("input_gradient/")):
        for row, end in enumerate(ends):
            cut = art.run(x[:end, row : row + 1])[name].array
            np.testing.assert_allclose(found[name].array[row : row + 1, :end], cut, **CLOSE)
            assert not found[name].array[row, end:].any()


def test_a_wrong_gradient_is_found(tmp_path, monkeypatch):
    """What moves the states runs the operator itself, one step at a time."""
    right = nudges.give

    def wrong(b, node, number, nudge):
        right(b, node, number, b.mul(nudge, 1.5))

    monkeypatch.setattr(nudges, "give", wrong)
    source, _ = file("GRU")
    with pytest.raises(VerificationError, match="input_gradient/states/cell"):
        pg.compile(source, PROBES[0], tmp_path / "m.onnx", inputs={"x": "time,batch,feature"})


def test_the_file_computes_what_it_did(tmp_path):
    """What is added is for the gradient alone: operators keep their inputs, loops theirs."""
    source, _ = file("LSTM", "bidirectional")
    pg.compile(
        source,
        PROBES[0],
        tmp_path / "m.onnx",
        inputs={"x": "time,batch,feature"},
        gate=False,
        verify=False,
    )
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    (operator,) = (n for n in nodes if n.op_type == "LSTM")
    assert len(operator.input) == 4
    pg.compile(masked(), PROBES[0], tmp_path / "s.onnx", gate=False, verify=False)
    nodes = onnx.load(tmp_path / "s.onnx").graph.node
    assert len(next(n for n in nodes if n.op_type == "Scan").input) == 3


def masked():
    """A loop that leaves its state as it is where a series holds nothing."""
    text = """keeps (float[batch, T, 3] x) => (float[batch, 2] out) {
    turned = Transpose <perm = [1, 0, 2]> (x)
    size = ReduceSum <keepdims = 1> (turned, feature)
    there = Greater (size, far)
    batch = Shape <start = 0, end = 1> (x)
    whole = Concat <axis = 0> (batch, units)
    zeros = ConstantOfShape (whole)
    last = Scan <num_scan_inputs = 2, body = step (float[batch, 2] h, float[batch, 3] e,
      bool[batch, 1] on) => (float[batch, 2] h_next) {
      a = MatMul (e, w)
      b = MatMul (h, r)
      sum = Add (a, b)
      new = Tanh (sum)
      h_next = Where (on, new, h) }> (zeros, turned, there)
    out = Mul (last, last) }"""
    rng = np.random.default_rng(1)
    made = add_weights(
        parse(text), w=rng.standard_normal((3, 2)).astype("float32"),
        r=rng.standard_normal((2, 2)).astype("float32"), units=np.array([2]),
        feature=np.array([2]), far=np.float32(-50),
    )  # fmt: skip
    next(n for n in made.graph.node if n.op_type == "Scan").name = "cell"
    return made


def test_a_loop_that_keeps_its_state_where_it_is_masked(tmp_path):
    """Masked steps have 0, as of Keras' layers; the state before them counts in their stead."""
    pg.compile(masked(), PROBES[:2], tmp_path / "m.onnx")
    x = np.random.default_rng(2).standard_normal((2, 5, 3)).astype("float32")
    x[0, 3:] = x[1, 1] = -100
    found = runtime.load(tmp_path / "m.onnx").run(x)
    w = {i.name: numpy_helper.to_array(i) for i in masked().graph.initializer}

    def by_numpy(given):
        h = np.zeros((2, 2))
        for t in range(5):
            new = np.tanh(x[:, t] @ w["w"].astype(float) + h @ w["r"]) + given["e"][:, t]
            h = np.where(x[:, t].sum(-1, keepdims=True) > -50, new, h)
        return {"score": (h * h)[:, 1]}

    zeros = np.zeros((2, 5, 2))
    slope = reference_recurrent.complex_step(by_numpy, {"e": zeros}, {"score": np.ones(2)}, "e")
    np.testing.assert_allclose(found["input_gradient/states/cell"].array, slope, **CLOSE)
    assert not slope[0, 3:].any()
    assert slope[0, 2, 1]


def test_what_cannot_be_is_refused_by_name():
    source, _ = file("LSTM")
    axes = {"inputs": {"x": "time,batch,feature"}}
    with pytest.raises(
        SelectionError, match=r"of 'cell:1', it is no hidden state.* States: 'cell'"
    ):
        pg.inspect(source, pg.InputGradient(1, wrt="states:cell:1"), **axes)
    with pytest.raises(InstrumentError, match=r"take pg.InputGradient, pg.Saliency"):
        pg.inspect(source, pg.IntegratedGradients(2, target=1, wrt="states:*"), **axes)
