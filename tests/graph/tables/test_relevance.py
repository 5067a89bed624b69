"""What relevance is divided by, where it is a product."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.core.builder import Builder
from probegen.graph.tables.layer_relevance import over

Z = np.array([[-8.0, -1e-3, 0.0, 1e-3, 2.0, 6.5]], np.float32)
G = np.array([[1.0, -2.0, 3.0, 0.5, -0.25, 4.0]], np.float32)
H = np.array([[0.5, 2.0, -1.0, 1.5, 3.0, -2.0]], np.float32)
READERS = {
    "": (lambda z: z),
    "x = Relu(z)": (lambda z: np.maximum(z, 0)),
    "x = Clip(z, low, high)": (lambda z: np.clip(z, 0, 6)),
    "x = Clip(z, below, high)": (lambda z: np.clip(z, -1, 6)),
    "x = Tanh(z)": np.tanh,
}


def written(reader, terms, by_shares):
    """Returns what `over` makes of a sum of products with what reads z, and its operators."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 6] z0, float[n, 6] g, float[n, 6] h) => (float[n, 6] y)
      <float low = {{0}}, float high = {{6}}, float below = {{-1}}>
      {{ z = Identity(z0) {reader} y = Identity({"x" if reader else "z"}) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    graph = model.graph
    z0, g, h = graph.inputs
    for node in graph:
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, z0.shape
    values = {v.name: v for n in graph for v in n.outputs}
    z = values["z"]
    x = values["x" if reader else "z"]
    if not reader:
        graph.outputs.clear()
        graph.remove(values["y"].producer(), safe=True)
    builder = Builder(graph, 18)
    relevance = builder.mul(x, g)
    for _ in range(terms - 1):
        relevance = builder.add(relevance, builder.mul(h, x))
    found = over(builder, relevance, z, 1e-2, by_shares=by_shares)
    builder.attach()
    graph.outputs[:] = [found]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"z0": Z, "g": G, "h": H})[0], found


@pytest.mark.parametrize("by_shares", [False, True])
@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("reader", READERS)
def test_a_product_is_divided_as_any_other_relevance(reader, terms, by_shares):
    found, value = written(reader, terms, by_shares)
    z = Z.astype(np.float64)
    stabilised = z + np.where(z >= 0, 1e-2, -1e-2)
    relevance = READERS[reader](z) * (G + (terms - 1) * H.astype(np.float64))
    np.testing.assert_allclose(found, relevance / stabilised, rtol=1e-5, atol=1e-7)
    assert np.any(found)
    assert value.producer().op_type == "Mul"  # the factor is not part of the quotient
