"""Functions are written out where they are called, branches whose condition is known taken."""

import numpy as np
import pytest

from probegen.errors import SourceError
from probegen.graph.core.values import shape_of
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse, run

LOCAL = ', "local" : 1'
NESTED = """
<domain: "local", opset_import: ["" : 18, "local" : 1]>
scaled <factor: float = 2.0> (x) => (y) {
  f = Constant<value_float : float = @factor>()
  y = Mul(x, f)
}
<domain: "local", opset_import: ["" : 18, "local" : 1]>
block (x, w) => (y) {
  h = MatMul(x, w)
  s = local.scaled<factor = 3.0>(h)
  t = local.scaled(s)
  y = Relu(t)
}
"""


def test_functions_that_call_functions() -> None:
    model = parse(
        """
        g (float[N,3] x, float[3,3] w) => (float[N,3] y) {
          a = local.block(x, w)
          y = local.block(a, w)
        }"""
        + NESTED,
        more=LOCAL,
    )
    model.graph.node[0].name = "layer1"
    read = assert_same(model, *({"x": hard(n, 3), "w": hard(3, 3, seed=1)} for n in (2, 5)))
    assert operators(read) == ["MatMul", "Mul", "Mul", "Relu"] * 2
    names = list(read.node_names)
    assert names[0] == "layer1/h"
    assert names[1] == "layer1/scaled/y"
    assert all(name.startswith("block/") for name in names[4:])
    assert read.node_names["layer1/h"] == ("layer1/h",)
    values = [v.name for n in read.model.graph for v in n.outputs]
    assert len(set(values)) == len(values)
    assert "a" in values
    assert "y" in values


def test_inputs_left_out_outputs_handed_on_and_other_opsets() -> None:
    """A function of opset 11 in a file of opset 18: each node is read as it was written."""
    model = parse(
        """
        g (float[N,3] x) => (float[N] y, float[N,3] z) {
          y, z = local.f(x)
        }
        <domain: "local", opset_import: ["" : 11]>
        f (x, missing) => (y, x) {
          h = Softmax(x)
          c = Clip(h, missing)
          y = ReduceSum<axes = [1], keepdims = 0>(c)
        }""",
        more=LOCAL,
    )
    read = read_onnx(model)
    assert operators(read)[:3] == ["Softmax", "Clip", "ReduceSum"]
    x = hard(4, 3)
    found = run(read.model, {"x": x})
    np.testing.assert_allclose(found["y"], np.ones(4), atol=1e-6)
    np.testing.assert_array_equal(found["z"], x)


def test_functions_within_branches() -> None:
    model = parse(
        """
        g (float[N,3] x, bool c) => (float[N,3] y) {
          y = If (c) <
            then_branch = a () => (float[N,3] r) { r = local.scaled(x) },
            else_branch = b () => (float[N,3] r) { r = local.scaled<factor = -1.5>(x) }
          >
        }"""
        + NESTED,
        more=LOCAL,
    )
    feeds = [{"x": hard(2, 3), "c": np.array(c)} for c in (True, False)]
    read = assert_same(model, *feeds)
    assert operators(read) == ["If", "Mul", "Mul"]


def test_a_function_that_calls_itself_is_refused() -> None:
    model = parse(
        """
        g (float[N] x) => (float[N] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        f (x) => (y) { y = local.f(x) }""",
        more=LOCAL,
    )
    with pytest.raises(SourceError, match="calls itself"):
        read_onnx(model)


@pytest.mark.parametrize("size", [1, 2])
def test_branches_that_a_size_decides(size: int) -> None:
    """As torch writes a squeeze; the other branch would not even be valid."""
    model = parse(
        f"""
        g (float[N,{size},3] x) => (float y) {{
          shape = Shape<start = 1, end = 2>(x)
          one = Constant<value_ints = [1]>()
          is = Equal(shape, one)
          h = If (is) <
            then_branch = a () => (float r) {{
              axes = Constant<value_ints = [1]>()
              r = Squeeze(x, axes)
            }},
            else_branch = b () => (float r) {{ r = Identity(x) }}
          >
          y = Relu(h)
        }}"""
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for attribute in model.graph.node[3].attribute:
        attribute.g.output[0].type.tensor_type.ClearField("shape")
    read = read_onnx(model)
    assert operators(read) == (["Squeeze", "Relu"] if size == 1 else ["Relu"])
    for n in (2, 4):
        x = hard(n, size, 3)
        expected = np.maximum(x, 0).reshape((n, 3) if size == 1 else (n, size, 3))
        np.testing.assert_array_equal(run(read.model, {"x": x})["y"], expected)


def test_values_of_branches_may_share_names_with_each_other() -> None:
    model = parse(
        """
        g (float[N,3] x, bool c) => (float[N,3] y) {
          yes = Constant<value = bool {1}>()
          y = If (c) <
            then_branch = a () => (float[N,3] r) { h = Abs(x)
              r = Neg(h) },
            else_branch = b () => (float[N,3] r) {
              r = If (yes) <
                then_branch = d () => (float[N,3] q) { h = Exp(x)
                  q = Neg(h) },
                else_branch = e () => (float[N,3] q) { q = Identity(x) }
              >
            }
          >
        }"""
    )
    feeds = [{"x": hard(2, 3), "c": np.array(c)} for c in (True, False)]
    read = assert_same(model, *feeds)
    assert operators(read) == ["If", "Abs", "Neg", "Exp", "Neg"]


def test_nodes_have_names_of_their_own() -> None:
    model = parse(
        """
        g (float[N,3] x) => (float[N,3] y) {
          a = Abs(x)
          b = Neg(a)
          y = Exp(b)
        }"""
    )
    for node in model.graph.node[:2]:
        node.name = "same"
    read = read_onnx(model)
    assert dict(read.node_names) == {"same": ("same",), "b": ("same",), "y": ("y",)}
    assert [n.name for n in model.graph.node] == ["same", "same", ""]


def test_a_squeeze_of_an_open_size_that_what_follows_decides() -> None:
    """With any other size than 1 a run fails: what follows takes one rank alone."""
    model = add_weights(
        parse(
            """
            g (float[N,K,3] x) => (float y) {
              one = Constant<value_ints = [1]>()
              shape = Shape<start = 1, end = 2>(x)
              is = Equal(shape, one)
              h = If (is) <
                then_branch = a () => (float r) { r = Squeeze(x, one) },
                else_branch = b () => (float r) { r = Identity(x) }
              >
              zero = Constant<value_ints = [0]>()
              u = Unsqueeze(h, zero)
              y, last = RNN<hidden_size = 4>(u, w, v)
            }"""
        ),
        w=hard(1, 4, 3, seed=1),
        v=hard(1, 4, 4, seed=2),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for attribute in model.graph.node[3].attribute:
        attribute.g.output[0].type.tensor_type.ClearField("shape")
    read = assert_same(model, {"x": hard(2, 1, 3)}, {"x": hard(5, 1, 3)})
    assert operators(read) == ["Squeeze", "Unsqueeze", "RNN"]


def test_shapes_within_branches_are_known() -> None:
    """The axes stand in the graph around, of whose content inference knows nothing inside."""
    model = parse(
        """
        g (float[N,3] x, bool c) => (float[N,M,3] y) {
          axes = Constant<value_ints = [1]>()
          y = If (c) <
            then_branch = a () => (float[N,M,3] r) {
              h = Abs(x)
              r = Unsqueeze(h, axes)
            },
            else_branch = b () => (float[N,M,3] r) { r = Unsqueeze(x, axes) }
          >
        }"""
    )
    for attribute in model.graph.node[1].attribute:
        attribute.g.output[0].type.tensor_type.ClearField("shape")
    feeds = [{"x": hard(2, 3), "c": np.array(c)} for c in (True, False)]
    read = assert_same(model, *feeds)
    for node in read.model.graph.all_nodes():
        if node.op_type == "Unsqueeze":
            assert shape_of(node.outputs[0]) == ("N", 1, 3)
