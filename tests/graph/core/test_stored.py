"""Weights that are stored in whole numbers, against what onnxruntime makes of them."""

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.marks import MARK_DOMAIN, STRAIGHT_THROUGH
from probegen.graph.core.stored import is_stored, stored_array
from tests.sources.onnx.support import add_weights, parse, run

rng = np.random.default_rng(2)
WHOLE = rng.integers(-128, 128, (3, 6)).astype(np.int8)
FLOATS = (rng.normal(size=(3, 6)) * 3).astype(np.float32)
ROWS, COLUMNS = (rng.uniform(0.01, 0.1, n).astype(np.float32) for n in (3, 6))
#: Nodes that make w, and the arrays they read.
CASES = {
    "one scale": ("w = DequantizeLinear(q, s, z)", {"s": ROWS[0], "z": np.int8(-3)}),
    "a scale a row": ("w = DequantizeLinear<axis = 0>(q, s)", {"s": ROWS}),
    "a scale a column": (
        "w = DequantizeLinear<axis = -1>(q, s, z)", {"s": COLUMNS, "z": WHOLE[0]}),
    "blocks": ("w = DequantizeLinear<axis = 1, block_size = 4>(q, s)",
               {"s": rng.uniform(0.1, 1, (3, 2)).astype(np.float32)}),
    "turned": (
        "a = DequantizeLinear<axis = 0>(q, s) b = Identity(a) w = Transpose(b)", {"s": ROWS}),
    "rounded floats": (
        "a = QuantizeLinear<axis = 0>(f, s, z) w = DequantizeLinear<axis = 0>(a, s, z)",
        {"s": ROWS, "z": np.zeros(3, np.int8)}),
}  # fmt: skip


def model_of(body, given):
    """A model with the body, whose output is w."""
    model = parse(f"net (float[n] x) => (float[a, b] w) {{ {body} }}", 21, 10)
    used = {name for node in model.graph.node for name in node.input}
    stored = {"q": WHOLE, "f": FLOATS} | given
    return add_weights(model, **{k: v for k, v in stored.items() if k in used})


@pytest.mark.parametrize("case", CASES)
def test_what_a_layer_multiplies_by(case):
    model = model_of(*CASES[case])
    expected = run(model, {"x": np.zeros(1, np.float32)})["w"]
    graph = ir.from_proto(model).graph
    for node in graph:
        for value in node.outputs:
            value.dtype = ir.DataType.INT8 if node.op_type == "QuantizeLinear" else None
    value = graph.outputs[0]
    assert is_stored(value)
    np.testing.assert_allclose(stored_array(value), expected, rtol=1e-6)
    mark = ir.node(STRAIGHT_THROUGH, [value], domain=MARK_DOMAIN)
    np.testing.assert_allclose(stored_array(mark.outputs[0]), expected, rtol=1e-6)


def test_what_is_made_of_the_request_is_not_stored():
    model = parse(
        """net (float[3, 4] x, float[3] s) => (float[3, 4] y) {
          a = Transpose(x)  b = DequantizeLinear<axis = 0>(q, s)  y = Add(x, b) }"""
    )
    graph = ir.from_proto(add_weights(model, q=WHOLE[:, :4])).graph
    for value in (None, graph.inputs[0], graph[0].outputs[0], graph[1].outputs[0]):
        assert not is_stored(value)
        assert stored_array(value) is None
    assert is_stored(graph.initializers["q"])
