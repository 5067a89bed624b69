"""The forward pass at other values: what is copied, folded, and computed once."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.attribution.forward_at import (
    ALL_ACTIVATIONS,
    CACHED_ACTIVATIONS,
    LARGEST_ACTIVATION,
    Fold,
    forward_at,
    usual_count,
)
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import remove_marks
from probegen.graph.loops.step_writer import StepWriter

#: `scores = (tanh(x) * exp(side) where x is not 0, else side)^2 W`, `sized` reads the batch.
TEXT = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[batch, 5] x, float[batch, 5] side, float[1] scale) => (float[batch, 3] scores)
  <float[5, 3] w = {%s}, float zero = {0}>
  {
    padded = Equal(x, zero)
    bent = Tanh(x)
    fixed = Exp(side)
    near = Mul(fixed, scale)
    scaled = Mul(bent, near)
    kept = Where(padded, side, scaled)
    sized = Shape(kept)
    again = Reshape(kept, sized)
    squared = Mul(again, again)
    scores = MatMul(squared, w)
  }"""
W = (np.arange(15).reshape(5, 3) % 7 - 3).astype(np.float32) / 3


def scores_of(x, side, scale, padded):
    kept = np.where(padded, side, np.tanh(x) * np.exp(side) * scale)
    return (kept**2) @ W


def graph():
    model = ir.from_proto(onnx.parser.parse_model(TEXT % ", ".join(map(str, W.reshape(-1)))))
    names = {v.name: v for n in model.graph for v in n.outputs}
    return model, {**names, **{v.name: v for v in model.graph.inputs}}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_points_lie_behind_each_other_in_the_batch(held, count):
    model, values = graph()
    builder = Builder(model.graph, 18)
    loop = StepWriter(builder)
    factors = builder.const(np.arange(4 * count).reshape(4, count), ir.DataType.FLOAT)
    now = loop.read(factors, backwards=False)
    body, x = loop.body, values["x"]
    wide = body.mul(body.unsqueeze(now, [1, 2]), body.unsqueeze(x, [0]))
    point = body.reshape(wide, [-1, 5])
    samples = {values["x"]: 0, values["side"]: 0}
    fold = Fold(count, samples) if count > 1 else None
    skip = [values["padded"].producer()] if held else []
    copies = forward_at(builder, loop, {x: point}, [values["scores"]], fold, skip)
    apart = body.reshape(copies[values["scores"]], [count, -1, 3])
    total = loop.carry(builder.zeros_like(values["scores"]))
    sums, _ = loop.finish([body.add(total, body.reduce_sum(apart, [0], keepdims=False))])
    builder.attach()
    model.graph.outputs[:] = sums
    inside = Counter(
        n.op_type
        for node in model.graph
        if node.op_type == "Scan"
        for n in node.attributes["body"].as_graph()
    )
    assert inside["MatMul"] == 1
    assert inside["Exp"] == 0  # computed once, outside
    assert inside["Equal"] == (0 if held else 1)
    remove_marks(model)
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (2, 5):
        rng = np.random.default_rng(batch)
        x, side = rng.normal(size=(2, batch, 5)).astype(np.float32)
        x[:, 1] = 0
        scale = np.array([1.5], np.float32)
        expected = sum(
            scores_of(k * x, side, 1.5, (x if held else k * x) == 0) for k in range(4 * count)
        )
        found = session.run(None, {"x": x, "side": side, "scale": scale})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_fixed_number_of_samples_is_not_folded():
    model, values = graph()
    assert usual_count(model.graph, [values["x"]], [values["scores"]], {}) == 1


def test_the_usual_number_of_points_keeps_the_largest_activation_below_its_bound():
    for width, expected in ((10, 16), (2**20, 8), (2**24, 1)):
        text = f"""<ir_version: 9, opset_import: ["" : 18]>
          g (float[n, 4] x) => (float[n, 4] y) <float[4, {width}] a, float[{width}, 4] b>
          {{ wide = MatMul(x, a) y = MatMul(wide, b) }}"""
        model = ir.from_proto(onnx.parser.parse_model(text))
        x, y = model.graph.inputs[0], model.graph.outputs[0]
        for node in model.graph:
            node.outputs[0].dtype = ir.DataType.FLOAT
        model.graph[0].outputs[0].shape = ir.Shape(["n", width])
        found = usual_count(model.graph, [x], [y], {x: 0})
        assert found == expected
        assert found == 1 or found * width * 4 <= LARGEST_ACTIVATION


#: A file that says it takes any number of samples, and reshapes to one.
BOUND = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[n, 4, 5] x) => (float[k, 3] y)
  <float[20, 3] w = {%s}, int64[2] sh = {1, 20}>
  { bent = Tanh(x) row = Reshape(bent, sh) scores = MatMul(row, w) y = Softmax(scores) }"""


def test_a_reshape_to_one_sample_runs_one_point_at_a_time(tmp_path):
    weights = ((np.arange(60).reshape(20, 3) * 5 % 7 - 3) / 3).astype(np.float32)
    model = onnx.parser.parse_model(BOUND % ", ".join(map(str, weights.reshape(-1))))
    x = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    pg.compile(model, pg.FeatureAblation(chunk=3), tmp_path / "m.onnx", samples=x)
    found = runtime.load(tmp_path / "m.onnx").run(x)["feature_ablation/x"].array
    score = lambda v: np.tanh(v).reshape(1, 20) @ weights  # noqa: E731
    best = score(x).argmax()
    hidden = [np.where(np.arange(4)[:, None] == i, 0, x) for i in range(4)]
    expected = [score(x)[0, best] - score(h)[0, best] for h in hidden]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("rows", "expected"), [(6, 1), ("rows", 16)])
@pytest.mark.parametrize("backward", [False, True])
def test_a_reshape_that_fixes_the_batch_is_not_folded(backward, rows, expected):
    """Two samples of three tokens are six rows, as a layer of experts may have it."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 3, 4] x, int64[2] to) => (float[rows, 4] y) { y = Reshape(x, to) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    y.shape = ir.Shape([rows, 4])
    assert usual_count(model.graph, [x], [y], {x: 0}, backward=backward) == expected


@pytest.mark.parametrize(
    ("size", "weights", "expected"),
    [
        (2**10, 1, 16),  # all stays in the cache
        (2**18, 1, 1),
        (2**18, 2**22, 7),  # 16 MiB of weights, which are read once a run
        (2**22, 2**30, 7),
        (2**27, 2**30, 1),
    ],
)
def test_the_usual_number_of_points_with_a_backward_pass(size, weights, expected):
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, {size}] x) => (float[n, 1] y) <float[1] w = {{1}}>
      {{ bent = Mul(x, w) y = ReduceSum<keepdims = 1>(bent) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    model.graph[0].outputs[0].dtype = ir.DataType.FLOAT
    model.graph[0].outputs[0].shape = ir.Shape(["n", 0])  # x alone counts
    model.graph.initializers["w"].shape = ir.Shape([weights])
    found = usual_count(model.graph, [x], [y], {x: 0}, backward=True)
    assert found == expected
    taken = found * 2 * size * 4
    assert found == 1 or taken <= min(max(CACHED_ACTIVATIONS, 4 * weights), ALL_ACTIVATIONS)
