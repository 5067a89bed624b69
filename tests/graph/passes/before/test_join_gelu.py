"""The Gaussian error linear unit as one operator: what is joined, and its gradient."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.passes.after.write_gelu import write_gelu
from probegen.graph.passes.before.join_gelu import join_gelu
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp.harness import named_values, run, seeds_of, tape, tf, uniform

NUMBERS = """
  half = Constant<value_float = 0.5>()
  one = Constant<value_float = 1.0>()
  root = Constant<value_float = 1.4142135623730951>()
  root_half = Constant<value_float = 0.7071067811865476>()
"""
TANH_NUMBERS = """
  c = Constant<value_float = 0.7978845608028654>()
  cubic = Constant<value_float = 0.044715>()
  three = Constant<value_float = 3.0>()
"""

#: As tf.nn.gelu has it, with Erfc written as 1 - Erf.
BY_KERAS = """
  a = Mul(half, x)
  n = Neg(x)
  u = Mul(n, root_half)
  e = Erf(u)
  p = Sub(one, e)
  y = Mul(a, p)
"""
AS_IN_THE_PAPER = """
  u = Div(x, root)
  e = Erf(u)
  p = Add(e, one)
  a = Mul(x, p)
  y = Mul(a, half)
"""
BY_POWER = """
  a = Mul(half, x)
  k = Pow(x, three)
  s = Mul(cubic, k)
  v = Add(x, s)
  u = Mul(c, v)
  t = Tanh(u)
  p = Add(one, t)
  y = Mul(a, p)
"""
BY_PRODUCTS = """
  q = Mul(x, x)
  k = Mul(q, x)
  s = Mul(k, cubic)
  v = Add(s, x)
  u = Mul(v, c)
  t = Tanh(u)
  p = Add(t, one)
  h = Mul(p, half)
  y = Mul(x, h)
"""
FORMS = {
    "Keras": (BY_KERAS, "none"),
    "the paper's": (AS_IN_THE_PAPER, "none"),
    "tanh by a power": (BY_POWER, "tanh"),
    "tanh by products": (BY_PRODUCTS, "tanh"),
    "of a multiple": ("m = Mul(x, three)" + BY_KERAS.replace("x)", "m)"), "none"),
}
EXACT = ["Mul", "Erf", "HardSigmoid", "Mul"]
TANH = ["Mul", "Mul", "Add", "Mul", "Tanh", "HardSigmoid", "Mul"]


def model(body: str, kind: str = "float") -> ir.Model:
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      m ({kind}[batch, 3, 5] x) => ({kind}[batch, 3, 5] y) {{ {NUMBERS} {TANH_NUMBERS} {body} }}"""
    proto = onnx.parser.parse_model(text)
    if kind == "double":
        numbers = re.findall(r"value_float = ([\d.]+)", text)  # the parser keeps 32 bits
        constants = [node for node in proto.graph.node if node.op_type == "Constant"]
        for node, number in zip(constants, numbers, strict=True):
            value = onnx.numpy_helper.from_array(np.array(float(number)))
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", value))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def ops(made: ir.Model) -> list[str]:
    common.RemoveUnusedNodesPass()(made)
    return [n.op_type for n in made.graph if n.op_type != "Constant"]


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_joined_and_written_out_shorter(name: str) -> None:
    body, approximate = FORMS[name]
    made = model(body)
    x = uniform(2, 3, 5, low=-4, high=4).astype(np.float32)
    before = run(ir.to_proto(made), {"x": x})["y"]
    y = made.graph.outputs[0]
    join_gelu(made)
    assert made.graph.outputs[0] is y
    *others, joined = ops(made)
    assert (others, joined) == ([] if name != "of a multiple" else ["Mul"], "Gelu")
    (gelu,) = (n for n in made.graph if n.op_type == "Gelu")
    assert gelu.attributes["approximate"].as_string() == approximate
    write_gelu(made)
    assert ops(made)[len(others) :] == (TANH if approximate == "tanh" else EXACT)
    assert set(made.graph.opset_imports) == {""}
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_allclose(run(proto, {"x": x})["y"], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        (BY_KERAS, "u = Mul(n, root_half)", "u = Mul(n, half)"),
        (BY_KERAS, "n = Neg(x)", "n = Identity(x)"),
        (BY_KERAS, "a = Mul(half, x)", "a = Identity(x)"),
        (BY_KERAS, "a = Mul(half, x)", "o = Exp(x) a = Mul(half, o)"),
        (BY_KERAS, "p = Sub(one, e)", "p = Sub(e, one)"),
        (BY_POWER, "k = Pow(x, three)", "k = Pow(x, half)"),
        (BY_POWER, "s = Mul(cubic, k)", "s = Mul(half, k)"),
        (BY_POWER, "u = Mul(c, v)", "u = Mul(half, v)"),
    ],
)
def test_others_stay(form: str, old: str, new: str) -> None:
    made = model(form.replace(old, new))
    before = ops(made)
    join_gelu(made)
    assert ops(made) == before


def test_a_constant_that_adds_an_axis_keeps_its_pieces() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float x) => (float[1] y)
    <float[1] half = {0.5}, float one = {1.0}, float root = {0.70710678}>
    { u = Mul(x, root) e = Erf(u) p = Add(one, e) a = Mul(x, half) y = Mul(a, p) }"""
    made = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    join_gelu(made)
    assert "Gelu" not in ops(made)


def test_pieces_that_something_else_reads_stay() -> None:
    made = model(BY_KERAS)
    made.graph.outputs.append(named_values(made.graph)["p"])
    join_gelu(made)
    assert {"Erf", "Sub", "Gelu"} <= set(ops(made))


def test_other_than_32_bits_have_no_hard_sigmoid() -> None:
    made = model(AS_IN_THE_PAPER, "double")
    join_gelu(made)
    write_gelu(made)
    assert ops(made) == ["Mul", "Erf", "Add", "Mul", "Mul"]


@pytest.mark.parametrize(("kind", "joined"), [("float", True), ("double", False)])
def test_a_coefficient_of_32_bits_is_another_number_in_64(kind: str, joined: bool) -> None:
    given = "coarse = Constant<value_float = 0.04471499845385551>()"
    made = model(given + BY_PRODUCTS.replace("cubic", "coarse"), kind)
    join_gelu(made)
    assert ("Gelu" in ops(made)) is joined


def differentiated(body: str, kind: str) -> tuple[onnx.ModelProto, list[str]]:
    """Returns a model with its gradient, through the operator, and what the rule wrote."""
    made = model(body, kind)
    graph = made.graph
    join_gelu(made)
    x, y = graph.inputs[0], graph.outputs[0]
    dy = ir.Value(name="dy/y", type=y.type, shape=y.shape)
    graph.inputs.append(dy)
    b = Builder(graph, 18)
    (dx,) = gradients(b, {y: dy}, [x], RULES, BLOCKING)
    assert dx is not None
    written = [n.op_type for n in b.nodes]
    dx.name = "dx"
    graph.outputs.append(dx)
    b.attach()
    write_gelu(made)
    common.RemoveUnusedNodesPass()(made)
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    return proto, written


@pytest.mark.parametrize("element", [np.float32, np.float64])
@pytest.mark.parametrize("body", [BY_KERAS, BY_PRODUCTS], ids=["exact", "tanh"])
def test_gradient(body: str, element: type) -> None:
    kind, tolerance = ("float", 2e-6) if element == np.float32 else ("double", 1e-7)
    proto, _ = differentiated(body, kind)
    x, dy = uniform(2, 3, 5, low=-6, high=6), uniform(2, 3, 5, seed=1)
    found = run(proto, {"x": x.astype(element), **seeds_of(proto, {"y": dy})})["dx"]
    approximate = body == BY_PRODUCTS
    (expected,) = tape(
        lambda x: tf("nn.gelu")(x, approximate=approximate), [x.astype(element)], [dy], [0]
    )
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_the_gradient_takes_six_passes_and_shares_the_rest() -> None:
    proto, written = differentiated(BY_KERAS, "float")
    assert written == ["Mul", "Exp", "Div", "Mul", "Add", "Mul"]
    everything = [n.op_type for n in proto.graph.node if n.op_type != "Constant"]
    assert sorted(everything) == sorted([*EXACT, *written])


@pytest.mark.parametrize("body", [BY_KERAS, BY_POWER])
def test_far_from_zero_the_slope_is_0_or_1(body: str) -> None:
    proto, _ = differentiated(body, "float")
    x = np.array([-1e4, -40, -15, 0, 15, 40, 1e4] + 8 * [0.0], np.float32).reshape(1, 3, 5)
    found = run(proto, {"x": x, "dy/y": np.ones_like(x)})["dx"].ravel()
    np.testing.assert_allclose(found[:7], [0, 0, 0, 0.5, 1, 1, 1], atol=1e-6)
