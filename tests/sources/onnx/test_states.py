"""States of recurrent operators over time: what their own Y, Y_h and Y_c say of every prefix."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.graph.vjp import recurrent_unrolled
from tests.sources.onnx.recurrent import HIDDEN, WIDTH, weights_of

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
AXES = {"x": "time,batch,feature", "out": "batch,unit"}


def file(kind, direction="forward", lengths=False, **attributes):
    """One operator whose last states alone are read; and the same operator with all outputs."""
    rng = np.random.default_rng(len(kind) + len(direction))
    count = 2 if direction == "bidirectional" else 1
    stored = {**weights_of(kind, count, rng), "zero": np.array([0])}
    peephole = attributes.pop("peephole", False)
    given = ["x", "w", "r", "b", "lengths" if lengths else ""]
    if peephole:
        stored["p"] = 0.3 * rng.standard_normal((count, 3 * HIDDEN))
        given += ["", "", "p"]
    stored = [
        numpy_helper.from_array(a.astype(np.int64 if n == "zero" else np.float32), n)
        for n, a in stored.items()
    ]
    states = ["y_h", "y_c"][: 2 if kind == "LSTM" else 1]

    def model(outputs):
        node = helper.make_node(
            kind, given, outputs, "cell", hidden_size=HIDDEN, direction=direction, **attributes
        )
        squeeze = helper.make_node("ReduceSum", ["y_h", "zero"], ["out"], "sum", keepdims=0)
        sizes = {"x": ["time", "batch", WIDTH], "lengths": ["batch"], "out": ["batch", HIDDEN]}
        ins = [
            helper.make_tensor_value_info(
                n, onnx.TensorProto.INT32 if n == "lengths" else 1, sizes[n]
            )
            for n in ("x", *(["lengths"] if lengths else []))
        ]
        outs = [helper.make_tensor_value_info("out", 1, sizes["out"])]
        if outputs[0]:
            outs += [helper.make_tensor_value_info(n, 1, None) for n in outputs]
        graph = helper.make_graph([node, squeeze], "one", ins, outs, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    return model(["", *states]), model(["y", *states])


def by_prefixes(whole, x, position, backwards):
    """The last states of every part of a series that a direction has read, in the input's order."""
    session = ort.InferenceSession(whole.SerializeToString())
    names = [o.name for o in session.get_outputs() if o.name in ("y_h", "y_c")]
    found = []
    for t in range(len(x)):
        read = x[t:] if backwards else x[: t + 1]
        found.append([one[position] for one in session.run(names, {"x": read})])
    return [np.stack(states, 1) for states in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("kind", "direction", "more"),
    [
        ("LSTM", "bidirectional", {}),
        ("LSTM", "forward", {"peephole": True, "clip": 0.7}),
        ("GRU", "reverse", {"linear_before_reset": 1}),
        ("RNN", "forward", {"activations": ["HardSigmoid"], "activation_alpha": [0.3]}),
    ],
)
def test_states_are_the_last_ones_of_every_prefix(kind, direction, more, tmp_path):
    alone, whole = file(kind, direction, **more)
    probe = pg.States("cell", gates=kind != "RNN")
    pg.compile(alone, [probe, pg.InputGradient(target=1)], tmp_path / "m.onnx", inputs=AXES)
    art = runtime.load(tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    for batch, time in ((2, 5), (3, 4)):
        x = rng.standard_normal((time, batch, WIDTH)).astype("float32")
        found = art.run(x)
        ways = ["/forward", "/backward"] if direction == "bidirectional" else [""]
        for position, way in enumerate(ways):
            expected = by_prefixes(whole, x, position, position == 1 or direction == "reverse")
            for number, value in enumerate(expected):
                name = f"states/cell{way}" + (f":{number}" if number else "")
                assert art.manifest.output(name).axes == ("batch", "time", "unit")
                np.testing.assert_allclose(found[name].array, value, err_msg=name, **CLOSE)
    gates = [n for n in found if n.endswith(("gate", "candidate"))]
    assert len(gates) == {"LSTM": 4, "GRU": 3, "RNN": 0}[kind] * len(ways)


def test_beyond_the_end_of_a_sequence_its_state_stays(tmp_path):
    alone, whole = file("LSTM", lengths=True)
    pg.compile(alone, pg.States(), tmp_path / "m.onnx", inputs=AXES | {"lengths": "batch"})
    x = np.random.default_rng(3).standard_normal((5, 3, WIDTH)).astype("float32")
    lengths = np.array([5, 2, 3], np.int32)
    found = runtime.load(tmp_path / "m.onnx").run({"x": x, "lengths": lengths})
    session = ort.InferenceSession(whole.SerializeToString())
    y, cell = session.run(["y", "y_c"], {"x": x, "lengths": lengths})
    hidden = found["states/cell"].array
    for row, end in enumerate(lengths):
        np.testing.assert_allclose(hidden[row, :end], y[:end, 0, row], **CLOSE)
        np.testing.assert_allclose(
            hidden[row, end:], np.repeat(hidden[row, end - 1 : end], 5 - end, 0), **CLOSE
        )
        np.testing.assert_allclose(found["states/cell:1"].array[row, -1], cell[0, row], **CLOSE)


def test_a_wrong_state_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent_unrolled, "_entering", lambda *given: given[1])
    with pytest.raises(VerificationError, match="states/cell:1"):
        pg.compile(file("LSTM")[0], pg.States(), tmp_path / "m.onnx", inputs=AXES)


@pytest.mark.parametrize(
    ("kind", "more", "cells"),
    [("LSTM", {}, 0), ("GRU", {"linear_before_reset": 1}, 0), ("LSTM", {"peephole": True}, 1)],
)
def test_no_cell_runs_again(kind, more, cells, tmp_path):
    """Hidden states are the operator's own; gates and cell states follow from them at once.

    The gates of a cell with peepholes need the cell state before: that one is run step by step.
    """
    probe = pg.States(gates=True)
    path = tmp_path / "m.onnx"
    pg.compile(file(kind, **more)[0], probe, path, inputs=AXES, gate=False, verify=False)
    nodes = onnx.load(path).graph.node
    bodies = [a.g for n in nodes if n.op_type == "Scan" for a in n.attribute if a.name == "body"]
    assert sum(n.op_type == "MatMul" for body in bodies for n in body.node) == cells
    assert sum(n.op_type == kind for n in nodes) == 1


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_lengths_with_empty_sequences_among_them(kind, direction, tmp_path):
    """Of each row by itself, cut to its length; an empty one stays where it starts, at zero."""
    alone, whole = file(kind, direction, lengths=True)
    pg.compile(
        alone, pg.States(), tmp_path / "m.onnx", inputs=AXES | {"lengths": "batch"}, verify=True
    )
    x = np.random.default_rng(3).standard_normal((5, 4, WIDTH)).astype("float32")
    lengths = np.array([5, 0, 3, 1], np.int32)
    found = runtime.load(tmp_path / "m.onnx").run({"x": x, "lengths": lengths})
    session = ort.InferenceSession(whole.SerializeToString())
    ways = ["/forward", "/backward"] if direction == "bidirectional" else [""]
    for position, way in enumerate(ways):
        backwards = position == 1 or direction == "reverse"
        for row, end in enumerate(lengths):
            expected = np.zeros((5, HIDDEN))
            if end:
                feed = {"x": x[:end, row : row + 1], "lengths": lengths[row : row + 1]}
                expected[:end] = session.run(["y"], feed)[0][:, position, 0]
                expected[end:] = 0 if backwards else expected[end - 1]
            got = found[f"states/cell{way}"].array[row]
            np.testing.assert_allclose(got, expected, err_msg=f"{row} {way}", **CLOSE)


def pooled(kind):
    """Attention over what both directions say of sequences, those beyond their ends left out."""
    rng = np.random.default_rng(len(kind))
    stored = {
        **weights_of(kind, 2, rng), "q": rng.standard_normal((2 * HIDDEN, 1)),
        "d": rng.standard_normal((2 * HIDDEN, 2)), "far": np.array(-1e9),
    }  # fmt: skip
    stored = {name: array.astype("float32") for name, array in stored.items()}
    stored |= {"ax1": np.array([1]), "ax2": np.array([2]), "joined": np.array([0, 0, -1])}
    stored |= {"zero": np.array(0), "one": np.array(1)}
    text = f"""<ir_version: 9, opset_import: ["" : 17]> pooled
      (float[N, T, {WIDTH}] x, int32[N] lengths) => (float[N, 2] out) {{
      turned = Transpose <perm = [1, 0, 2]> (x)
      y = {kind} <hidden_size = {HIDDEN}, direction = "bidirectional"> (turned, w, r, b, lengths)
      first = Transpose <perm = [2, 0, 1, 3]> (y)
      both = Reshape (first, joined)
      scores_1 = MatMul (both, q)
      scores = Squeeze (scores_1, ax2)
      sizes = Shape (x)
      steps = Gather <axis = 0> (sizes, one)
      places = Range (zero, steps, one)
      whole = Cast <to = 7> (lengths)
      ends = Unsqueeze (whole, ax1)
      within = Less (places, ends)
      masked = Where (within, scores, far)
      weights = Softmax <axis = 1> (masked)
      weights_1 = Unsqueeze (weights, ax2)
      weighed = Mul (weights_1, both)
      pooled = ReduceSum <keepdims = 0> (weighed, ax1)
      out = MatMul (pooled, d) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in stored.items())
    return proto


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_attention_and_gradients_over_empty_sequences(kind, tmp_path):
    """Gradients are differences of the file's own scores; of an empty sequence they are 0."""
    source = pooled(kind)
    probes = [pg.Attention(), pg.States(), pg.InputGradient(target=1, wrt="x")]
    pg.compile(source, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    session = ort.InferenceSession(source.SerializeToString())
    rng = np.random.default_rng(5)
    for lengths in ([5, 0, 3, 1, 5], [0, 2]):
        feed = {
            "x": rng.standard_normal((len(lengths), max(lengths), WIDTH)).astype("float32"),
            "lengths": np.array(lengths, np.int32),
        }
        found = art.run(feed)
        slope = found["input_gradient/x"].array
        for t, i in np.ndindex(feed["x"].shape[1:]):
            moved = np.zeros_like(feed["x"])
            moved[:, t, i] = 1e-2
            ends = [
                session.run(None, feed | {"x": feed["x"] + s * moved})[0][:, 1] for s in (1, -1)
            ]
            np.testing.assert_allclose(slope[:, t, i], (ends[0] - ends[1]) / 2e-2, atol=3e-3)
        assert not slope[np.array(lengths) == 0].any()
        weights = found["attention/weights"].array
        for row, end in enumerate(lengths):
            np.testing.assert_allclose(weights[row].sum(), 1, rtol=1e-5)
            assert end == 0 or not weights[row, end:].any()
