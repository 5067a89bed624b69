"""Gradients at several points: what a step computes, what it reads, and that sums are right."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.attribution.sampled import Moved, sampled_gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import MARK, MASK_NAME, remove_marks
from probegen.graph.core.queries import inputs_of
from probegen.graph.tables import backward_pass
from probegen.methods.paths import Line
from probegen.methods.quadrature import RULES
from probegen.methods.samples import Place, SumAt

#: `scores = tanh(x)^3 exp(side)^2 W`; `other` is a head that nothing asks for.
TEXT = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[batch, 5] x, float[batch, 5] side) => (float[batch, 3] scores)
  <float[5, 3] w = {%s}>
  {
    bent = Tanh(x)
    fixed = Exp(side)
    scaled = Mul(bent, fixed)
    other = Sin(scaled)
    late = Neg(other)
    squared = Mul(scaled, scaled)
    hidden = Mul(squared, bent)
    scores = MatMul(hidden, w)
  }"""
W = (np.arange(15).reshape(5, 3) % 7 - 3).astype(np.float32) / 3


#: `scores = (x + 1 where x is not 0, else 5)^2 W`: a mask, what reads it, and what hangs on it.
MASKED = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[batch, 5] x) => (float[batch, 3] scores)
  <float[5, 3] w = {%s}, float zero = {0}, float five = {5}>
  {
    padded = Equal(x, zero)
    there = Not(padded)
    count = Cast <to = 1> (there)
    kept = Where(padded, five, x)
    both = Add(kept, count)
    squared = Mul(both, both)
    scores = MatMul(squared, w)
  }"""
#: `scores = (5 where x is in [0, 1) or whole, else x)^2 W`: no masks, what a value comes to be.
CONDITIONAL = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[batch, 5] x) => (float[batch, 3] scores)
  <float[5, 3] w = {%s}, float zero = {0}, float five = {5}>
  {
    floor = Floor(x)
    padded = Equal(floor, zero)
    there = Equal(x, floor)
    both = Or(padded, there)
    kept = Where(both, five, x)
    squared = Mul(kept, kept)
    scores = MatMul(squared, w)
  }"""
#: `scores = (x where there, else 0)^2 W`: a mask of numbers that are computed, marked as one.
MARKED = """<ir_version: 9, opset_import: ["" : 18, "probegen" : 1]>
  g (float[batch, 5] x) => (float[batch, 3] scores)
  <float[5, 3] w = {%s}, float zero = {0}>
  {
    bent = Tanh(x)
    high = Greater(bent, zero)
    there = probegen.Mark(high)
    kept = Where(there, x, zero)
    squared = Mul(kept, kept)
    scores = MatMul(squared, w)
  }"""
BOOL = {
    MARKED: ("high", "there"),
    MASKED: ("padded", "there"),
    CONDITIONAL: ("padded", "there", "both"),
}


def written(places, samples, text=TEXT):
    """Returns a session that gives the sums at some values, and the body of its Scan."""
    filled = text % ", ".join(map(str, W.reshape(-1)))
    model = ir.from_proto(onnx.parser.parse_model(filled))
    graph = model.graph
    for node in graph:
        if node.op_type == MARK:
            node.name = MASK_NAME
    for value in (v for node in graph for v in node.outputs):
        width = 3 if value.name == "scores" else 5
        value.shape = ir.Shape(["batch", width])
        value.dtype = ir.DataType.BOOL if value.name in BOOL.get(text, ()) else ir.DataType.FLOAT
    values = {v.name: v for v in [*graph.inputs, *(v for n in graph for v in n.outputs)]}
    builder = Builder(graph, 18)
    ones = builder.expand(builder.const(np.ones((1, 3), np.float32)), values["scores"])
    at = [values[name] for name in places]
    moved = [Moved(value, Place(value.name), SumAt(samples)) for value in at]
    found = sampled_gradients(builder, {values["scores"]: ones}, moved, backward_pass(None))
    builder.attach()
    graph.outputs[:] = found
    remove_marks(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    scan = next(node for node in graph if node.op_type in ("Scan", "Loop"))
    return session, scan.attributes["body"].as_graph()


def feeds(batch):
    rng = np.random.default_rng(batch)
    x, side = rng.standard_normal((2, batch, 5)).astype(np.float32)
    x[0, 0] = 0
    return {"x": x, "side": side}


def gradient_at(x, side):
    """d sum(scores) / d x, by hand."""
    bent, fixed = np.tanh(x), np.exp(side)
    return 3 * bent**2 * fixed**2 * W.sum(1) * (1 - bent**2)


def midpoints(steps, baseline):
    return Line(*RULES["midpoint"](steps), baseline)


TRAPEZOID = Line((0.0, 0.5, 1.0), (0.25, 0.5, 0.25), baseline=-0.25)
LINES = {"midpoints": midpoints(4, 0.5), "trapezoid": TRAPEZOID, "one point": midpoints(1, 0.0)}


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("line", LINES)
def test_sums_are_those_of_numpy(line, batch):
    samples = LINES[line]
    session, _ = written(["x"], samples)
    fed = feeds(batch)
    x, side = fed["x"].astype(float), fed["side"].astype(float)
    expected = sum(
        w * gradient_at(samples.baseline + f * (x - samples.baseline), side)
        for f, w in zip(samples.fractions, samples.weights, strict=True)
    )
    np.testing.assert_allclose(session.run(None, fed)[0], expected, rtol=1e-4, atol=1e-5)


def test_tensors_move_together():
    samples = midpoints(3, 0.25)
    session, _ = written(["x", "side"], samples)
    fed = feeds(3)
    x, side = fed["x"].astype(float), fed["side"].astype(float)
    expected = [0.0, 0.0]
    for f in samples.fractions:
        u, v = (0.25 + f * (a - 0.25) for a in (x, side))
        expected[0] = expected[0] + gradient_at(u, v) / 3
        expected[1] = expected[1] + 2 * np.tanh(u) ** 3 * np.exp(v) ** 2 * W.sum(1) / 3
    for found, wanted in zip(session.run(None, fed), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def inner(fed):
    """`bent` and `scaled` of the graph."""
    bent = np.tanh(fed["x"].astype(float))
    return bent, bent * np.exp(fed["side"].astype(float))


def test_a_tensor_that_moves_is_not_made_anew_of_another_that_does():
    samples = midpoints(3, 0.25)
    session, _ = written(["x", "scaled"], samples)
    fed = feeds(2)
    expected = [0.0, 0.0]
    for f in samples.fractions:
        u, v = (0.25 + f * (a - 0.25) for a in (fed["x"].astype(float), inner(fed)[1]))
        expected[0] = expected[0] + v**2 * (1 - np.tanh(u) ** 2) * W.sum(1) / 3
        expected[1] = expected[1] + 2 * v * np.tanh(u) * W.sum(1) / 3
    for found, wanted in zip(session.run(None, fed), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_tensor_within_moves_and_what_is_before_it_stays():
    samples = midpoints(3, 0.0)
    session, body = written(["scaled"], samples)
    fed = feeds(2)
    bent, scaled = inner(fed)
    expected = sum(2 * f * scaled * bent * W.sum(1) for f in samples.fractions) / 3
    np.testing.assert_allclose(session.run(None, fed)[0], expected, rtol=1e-4, atol=1e-5)
    assert not {"Tanh", "Exp"} & {node.op_type for node in body}


def test_a_step_holds_what_lies_between_the_moved_tensor_and_the_scores_and_nothing_else():
    _, body = written(["x"], midpoints(3, 0.0))
    forward = Counter(n.op_type for n in body)
    assert forward["Tanh"] == 1  # once: the copy, which the gradient reads as well
    assert forward["Exp"] == 1  # of the slope of tanh
    assert not {"Sin", "Neg"} & set(forward)  # what stays is read, a head left out
    inside = {v.name for node in body for v in node.outputs} | {v.name for v in body.inputs}
    outside = {v.name for node in body for v in inputs_of(node)} - inside - set(body.initializers)
    assert "fixed" in outside
    assert not {"bent", "scaled", "squared", "scores"} & outside


def test_masks_are_those_of_the_value_itself():
    samples = midpoints(4, 1.0)
    session, body = written(["x"], samples, MASKED)
    x = np.array([[0, 2, -1, 0, 0.5], [3, 0, 0, -2, 1], [0, 0, 1, 1, 1]], np.float32)
    there = x != 0
    points = [1 + f * (x.astype(float) - 1) for f in samples.fractions]
    expected = sum(2 * (p + 1) * there * W.sum(1) for p in points) / 4
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)
    made_inside = {n.op_type for n in body}
    assert not {"Equal", "Not", "Cast"} & made_inside


def test_conditions_on_what_is_computed_are_those_of_each_point():
    samples = midpoints(4, 1.0)
    session, body = written(["x"], samples, CONDITIONAL)
    x = np.array([[0, 2, -1, 0.5, -0.5], [3, 0, 4, -2, 1], [9, -7, 2.5, 1, 3]], np.float32)
    points = [1 + f * (x.astype(float) - 1) for f in samples.fractions]
    kept = [(np.floor(p) != 0) & (p != np.floor(p)) for p in points]
    expected = sum(2 * p * there * W.sum(1) for p, there in zip(points, kept, strict=True)) / 4
    found = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert Counter(n.op_type for n in body)["Equal"] == 2


def test_what_is_marked_as_a_mask_is_that_of_the_value_itself():
    samples = midpoints(4, 1.0)
    session, body = written(["x"], samples, MARKED)
    x = np.array([[0, 2, -1, 0.5, -0.5], [3, -3, 4, -2, 1], [-9, -7, 2.5, 1, 3]], np.float32)
    points = [1 + f * (x.astype(float) - 1) for f in samples.fractions]
    assert any(((p > 0) != (x > 0)).any() for p in points)
    expected = sum(2 * p * (x > 0) * W.sum(1) for p in points) / 4
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)
    assert not {"Tanh", "Greater"} & {n.op_type for n in body}
