"""How far windows reach: what is computed in part, what whole, and where neither is worth it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.attribution import reach
from probegen.graph.attribution.spans import Span


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Lets small graphs be computed in part."""
    monkeypatch.setattr(reach, "LEAST_A_NODE", 0)
    monkeypatch.setattr(reach, "LEAST_SAVED", 0.01)


def reach_in(steps):
    """Returns what windows of 6 x 6 reach in nodes from x, `[n, 3, 31, 26]`, to y."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 3, 31, 26] x, float[4, 3, 3, 3] k, float[4, 4, 3, 3] l) => (float[n, 4, h, w] y)
      <int64[8] ahead = {{0, 0, 1, 0, 0, 0, 1, 0}}, int64[1] three = {{3}},
       float[4] four = {{1, 2, 3, 4}}> {{
        a = Conv <pads = [1, 1, 1, 1]> (x, k) {steps} }}"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True)
    model = ir.from_proto(proto)
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    spans = tuple(Span(np.arange(0, size - 5, 5), 6) for size in (31, 26))
    return reach.reach_of(model.graph, {x: reach.Part((2, 3), spans)}, y)


#: Why what is behind the convolution is computed whole -> how it is written, and what it reads.
WHOLE = {
    "a gate of the whole image": (
        "g = GlobalAveragePool(a) s = Sigmoid(g) y = Mul(a, s)",
        ["a"],
    ),
    "averages that leave padding out count fewer at the edges": (
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
        ["a"],
    ),
    "a window beyond the end": (
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)",
        ["a"],
    ),
    "a second result of a node": (
        "m, i = MaxPool <kernel_shape = [1, 1]> (a) f = Cast <to = 1> (i) y = Add(m, f)",
        ["a"],
    ),
    "shares along an axis of windows": ("y = Softmax <axis = 3> (a)", ["a"]),
    "a normalisation by all positions": (
        "y, mean, var = BatchNormalization <training_mode = 1> (a, four, four, four, four)",
        ["a"],
    ),
    "samples that are elsewhere": (
        "b = Transpose <perm = [1, 0, 2, 3]> (a) y = Transpose <perm = [1, 0, 2, 3]> (b)",
        ["a"],
    ),
    "an edge that repeats": ('y = Pad <mode = "edge"> (a, ahead)', ["a"]),
    "what is broadcast along an axis of windows": (
        "m = ReduceMax <keepdims = 1> (x, three) y = Add(a, m)",
        ["x", "a"],
    ),
}


@pytest.mark.parametrize("why", WHOLE)
def test_what_is_computed_whole(why):
    steps, ends = WHOLE[why]
    found = reach_in(steps)
    assert [v.name for v in found.ends] == ends
    assert [n.op_type for n in found.nodes] == ["Conv"]


def test_a_convolution_of_which_nearly_all_changes_is_computed_whole(monkeypatch):
    assert len(reach_in("y = Conv(a, l)").nodes) == 2
    monkeypatch.setattr(reach, "MOST", 0.08)
    assert [v.name for v in reach_in("y = Conv(a, l)").ends] == ["a"]


def test_parts_of_about_one_size_are_made_alike(monkeypatch):
    steps = "b = Conv <pads = [1, 1, 1, 1]> (a, l) y = Conv <pads = [1, 1, 1, 1]> (b, l)"

    def sizes():
        found = reach_in(steps)
        parts = [found.parts[n.outputs[0]] for n in found.nodes]
        return [[s.size for s in part.spans] for part in parts]

    assert sizes() == [[8, 8], [10, 10], [12, 12]]
    monkeypatch.setattr(reach, "LEVEL", 1.6)
    assert sizes() == [[10, 10], [10, 10], [12, 12]]


def test_it_is_left_where_it_saves_little(monkeypatch):
    assert reach_in("y = Conv(a, l)") is not None
    with monkeypatch.context() as patched:
        patched.setattr(reach, "LEAST_A_NODE", 1_000_000)
        assert reach_in("y = Conv(a, l)") is None
    monkeypatch.setattr(reach, "LEAST_SAVED", 0.99)
    assert reach_in("y = Conv(a, l)") is None
