"""The affine part at the beginning of a model is left out of the loop over points."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.attribution.affine_start import behind_affine_start
from probegen.graph.attribution.sampled import Moved, sampled_gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.held_masks import held_masks
from probegen.graph.shape_inference import infer_shapes
from probegen.graph.tables import backward_pass
from probegen.methods.arrays import StoredArray
from probegen.methods.axes import BATCH
from probegen.methods.paths import Line
from probegen.methods.quadrature import RULES
from probegen.methods.samples import Place, SumAt

RNG = np.random.default_rng(4)
STORED = {
    "k": RNG.normal(size=(4, 2, 3)).round(2),
    "bias": np.array([1, -1, 0.5, 0]),
    "v": RNG.normal(size=(6, 5)).round(2),
    "w": RNG.normal(size=(8, 2)).round(2),
    "many": RNG.normal(size=(40, 2, 1)).round(2),
    "two": np.array(2.0),
    "lowest": np.array(-np.inf),
    "mask": np.array([0] * 7 + [-np.inf]),
    "zeros": np.array([1] * 7 + [0]),
    "pads": np.array([0, 0, 0, 0, 0, 2]),
    "flat": np.array([0, -1]),
}


def model(nodes):
    """Returns a model from x [batch, 2, 8] to scores, with stored arrays."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float[batch, 2, 8] x, float[batch, 2, 8] side) => (float[batch, n] scores) {{{nodes}}}"""
    proto = onnx.parser.parse_model(text)
    read = {name for node in proto.graph.node for name in node.input}
    for name, array in STORED.items():
        if name not in read:
            continue
        kind = np.int64 if name in ("pads", "flat") else np.float32
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    found = ir.from_proto(proto)
    infer_shapes(found)
    return found


@pytest.mark.parametrize(
    ("nodes", "behind"),
    [
        ("y = Conv(x, k, bias) z = Relu(y) scores = Flatten(z)", ["y"]),
        (
            "h = Mul(x, two) y = Conv(h, k) d = Div(y, two) q = MatMul(d, v) z = Tanh(q) "
            "scores = Flatten(z)",
            ["q"],
        ),
        ("y = Conv(x, k) a = Relu(y) b = Neg(y) c = Mul(a, b) scores = Flatten(c)", ["b", "y"]),
        (
            "y = Conv(x, k) a = Relu(y) b = Tanh(x) c = Flatten(a) d = Flatten(b) "
            "scores = Concat<axis = 1>(c, d)",
            ["x", "y"],
        ),
        (
            "y = Conv(x, k) n = Shape(x) r = Reshape(y, flat) e = Exp(r) m = Cast<to = 1>(n) "
            "t = ReduceSum<keepdims = 0>(m) scores = Mul(e, t)",
            ["r"],
        ),
        ("p = Pad(x, pads) y = Conv(p, k) f = Flatten(y) scores = Neg(f)", ["scores"]),
        # A mask of x stays as it is: it is asked for once, and does not move.
        (
            "no = Equal(x, two) m = Cast<to = 1>(no) r = ReduceSum<keepdims = 1>(m) "
            "y = MatMul(x, w) z = Tanh(y) s = Mul(z, r) scores = Flatten(s)",
            ["y"],
        ),
    ],
)
def test_it_ends_where_something_bends(nodes, behind):
    assert starts(nodes) == behind


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Neg(x) z = Relu(y) scores = Flatten(z)",  # nothing costly
        "y = Mul(x, x) q = MatMul(y, w) z = Exp(q) scores = Flatten(z)",  # bends at once
        "y = Conv(x, many) z = Relu(y) scores = Flatten(z)",  # sums over twenty times as much
        "m = Add(x, side) q = MatMul(m, w) z = Exp(q) scores = Flatten(z)",  # side may be infinite
        "m = Add(x, mask) q = MatMul(m, w) z = Exp(q) scores = Flatten(z)",
        "m = Div(x, zeros) q = MatMul(m, w) z = Exp(q) scores = Flatten(z)",
        "p = Pad(x, pads, lowest) y = Conv(p, k) z = Relu(y) scores = Flatten(z)",
        # Of y itself, apart from b, no gradient is there.
        "y = Conv(x, k) a = Floor(y) b = Neg(y) c = Mul(a, b) scores = Flatten(c)",
    ],
)
def test_it_is_not_taken_where_it_does_not_help_or_may_be_infinite(nodes):
    assert starts(nodes) == []


def starts(nodes):
    """Returns what lies behind the affine start of a graph."""
    graph = model(nodes).graph
    x, scores = graph.inputs[0], graph.outputs[0]
    return sorted(v.name for v in behind_affine_start(graph, [x], [scores], held_masks(graph, [x])))


#: A convolution, a product, and x itself bent beside it, summed up.
BENT = """
  h = Mul(x, two) y = Conv(h, k, bias) q = MatMul(y, v) z = Tanh(q) c = Flatten(z)
  t = Sin(x) d = Flatten(t) scores = Concat<axis = 1>(c, d)
"""
ARRAY = StoredArray(RNG.normal(size=(2, 8)).round(1))
LINES = {
    "midpoint": Line(*RULES["midpoint"](5), 0.5),
    "trapezoid": Line(*RULES["trapezoid"](4), -1.0),
    "array": Line(*RULES["gauss_legendre"](3), ARRAY),
}


def integrated(x, line, product):
    """The weighted sum of the gradients of all scores, in float64; with a factor at each."""
    x = x.astype(float)
    start = ARRAY.values.astype(float) if line.baseline is ARRAY else line.baseline
    total = np.zeros_like(x)
    for fraction, weight in zip(line.fractions, line.weights, strict=True):
        at = start + fraction * (x - start)
        padded = np.stack([2 * at[:, :, i : i + 3] for i in range(6)], 2)  # [b, 2, 6, 3]
        y = np.einsum("bcpi,oci->bop", padded, STORED["k"]) + STORED["bias"][:, None]
        slope = 1 - np.tanh(y @ STORED["v"]) ** 2
        of_y = slope @ STORED["v"].T
        gradient = np.cos(at)
        for i in range(6):
            gradient[:, :, i : i + 3] += 2 * np.einsum("bo,oci->bci", of_y[:, :, i], STORED["k"])
        total += weight * gradient
    return (x - start) * total if product else total


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("line", LINES)
def test_the_sums_are_those_of_all_points(line, chunk, batch):
    written = model(BENT)
    graph = written.graph
    x, scores = graph.inputs[0], graph.outputs[0]
    builder = Builder(graph, 18)
    seeds = {scores: builder.expand(builder.const(np.ones((1, 1), np.float32)), scores)}
    place = Place("x", (BATCH, "channel", "time"))
    moved = [Moved(x, place, s) for s in (LINES[line], SumAt(LINES[line]))]
    holding = dict.fromkeys(graph.inputs, 0)
    found = sampled_gradients(builder, seeds, moved, backward_pass(None), holding, chunk)
    builder.attach()
    graph.outputs[:] = found
    proto = ir.to_proto(written)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    fed = np.random.default_rng(batch).normal(size=(batch, 2, 8)).astype(np.float32)
    made = session.run(None, {"x": fed, "side": fed})
    for product, array in zip((True, False), made, strict=True):
        expected = integrated(fed, LINES[line], product)
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)
    loop = next(node for node in graph if node.op_type in ("Scan", "Loop"))
    inside = Counter(node.op_type for node in loop.attributes["body"].as_graph())
    assert inside["Cos"] == 1
    assert not {"Conv", "ConvTranspose", "MatMul", "Gemm"} & set(inside)
