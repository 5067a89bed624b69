"""Factors, scales and shifts in stored matrices: what is merged, what stays, and the gradient."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.passes.after.drop_identities import drop_identities
from probegen.graph.passes.before.merge_into_matrices import merge_into_matrices
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp.harness import run, uniform

CONSTANTS = {
    "single": (7, 1),
    "w": (7, 5),
    "w2": (7, 3),
    "bias": (5,),
    "bias2": (3,),
    "factor": (5,),
    "scale": (7,),
    "shift": (7,),
    "row": (1, 4, 1),
}


def model(body: str, outputs: str = "y") -> ir.Model:
    """Returns a model over `x`, `[batch, 4, 7]`, with the constants above."""
    results = ", ".join(f"float[batch, a_{name}, b_{name}] {name}" for name in outputs.split())
    text = f"""<ir_version: 9, opset_import: ["" : 18, "probegen" : 1]>
      g (float[batch, 4, 7] x) => ({results}) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    read = {name for node in proto.graph.node for name in node.input}
    for seed, (name, shape) in enumerate(CONSTANTS.items()):
        if name in read:
            array = uniform(*shape, low=0.5, seed=seed).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    made = ir.from_proto(proto)
    for value in made.graph.outputs:
        value.shape = None
    common.ShapeInferencePass(data_prop=True)(made)
    return made


def merged(made: ir.Model) -> list[str]:
    """Merges, compares the outputs, and returns the operators that are left."""
    x = uniform(3, 4, 7, seed=20).astype(np.float32)
    marks = [n for n in made.graph if n.domain == "probegen"]

    def outputs() -> dict[str, np.ndarray]:
        for node in marks:
            node.domain, node.op_type = "", "Identity"
        found = run(ir.to_proto(made), {"x": x})
        for node in marks:
            node.domain, node.op_type = "probegen", "Mark"
        return found

    before = outputs()
    merge_into_matrices(made)
    common.RemoveUnusedNodesPass()(made)
    for name, found in outputs().items():
        np.testing.assert_allclose(found, before[name], rtol=1e-5, atol=1e-5)
    drop_identities(made)
    return [n.op_type for n in made.graph if n.op_type != "Constant"]


FLAT = "f = Constant<value_ints = [-1, 7]>() r = Reshape(x, f)"
BACK = "k = Constant<value_ints = [-1, 4, 5]>()"

# -- behind --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("p = MatMul(x, w) y = Mul(p, factor)", ["MatMul"]),
        ("p = MatMul(x, w) y = Mul(factor, p)", ["MatMul"]),
        ("p = MatMul(x, w) s = Add(p, bias) y = Mul(s, factor)", ["MatMul", "Add"]),
        ("p = MatMul(x, w) s = Add(bias, p) y = Mul(s, factor)", ["MatMul", "Add"]),
        (
            f"{FLAT} {BACK} p = MatMul(r, w) s = Reshape(p, k) t = Add(s, bias) y = Mul(t, factor)",
            ["Reshape", "MatMul", "Reshape", "Add"],
        ),
        (
            f"{FLAT} {BACK} p = MatMul(r, w) t = Add(p, bias) s = Reshape(t, k) y = Mul(s, factor)",
            ["Reshape", "MatMul", "Add", "Reshape"],
        ),
    ],
)
def test_a_factor_a_unit_goes_into_the_matrix(body: str, left: list[str]) -> None:
    assert merged(model(body)) == left


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("p = MatMul(x, w) y = Mul(p, row)", "y"),
        ("p = MatMul(x, w) e = Exp(p) y = Mul(e, factor)", "y"),
        ("p = MatMul(x, w) e = Exp(p) f = Mul(p, factor) y = Add(e, f)", "y"),
        ("p = MatMul(x, w) y = Mul(p, factor)", "p y"),
        ("p = MatMul(x, w) m = probegen.Mark(p) y = Mul(m, factor)", "y"),
        ("p = MatMul(x, w) q = MatMul(x, w) f = Mul(p, factor) y = Add(f, q)", "y"),
        ("p = MatMul(x, w) s = Add(p, bias) t = Add(s, bias) y = Mul(t, factor)", "y"),
    ],
    ids=["rows", "a function between", "read twice", "output", "mark", "shared", "two biases"],
)
def test_factors_that_stay(body: str, outputs: str) -> None:
    made = model(body, outputs)
    before = [n.op_type for n in made.graph]
    assert merged(made) == before


# -- before --------------------------------------------------------------------------------

NORMAL = "n = LayerNormalization<axis = -1, epsilon = 0.01>(x, scale, shift)"
UNSHIFTED = "n = LayerNormalization<axis = -1, epsilon = 0.01>(x, scale)"
DENSE = "p = MatMul(n, w) y = Add(p, bias)"


def normalised(made: ir.Model) -> ir.Node:
    (node,) = (n for n in made.graph if n.op_type == "LayerNormalization")
    return node


@pytest.mark.parametrize(
    "body",
    [
        f"{NORMAL} {DENSE}",
        f"{UNSHIFTED} {DENSE}",
        f"{UNSHIFTED} y = MatMul(n, w)",
        f"{NORMAL} {DENSE} q = MatMul(n, w2) z = Add(bias2, q)",
        f"{NORMAL} f = Constant<value_ints = [-1, 7]>() r = Reshape(n, f) {BACK} "
        "p = MatMul(r, w) s = Reshape(p, k) y = Add(s, bias)",
    ],
    ids=["Dense", "no shift", "no bias", "two", "reshaped"],
)
def test_scale_and_shift_go_into_the_matrices(body: str) -> None:
    made = model(body, "y z" if " z = " in body else "y")
    before = [n.op_type for n in made.graph if n.op_type != "Constant"]
    assert merged(made) == before
    node = normalised(made)
    assert len(node.inputs) == 2
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), np.ones(7))
    for product in (n for n in made.graph if n.op_type == "MatMul"):
        sums = product.inputs[1].const_value.numpy().sum(axis=0)
        np.testing.assert_allclose(sums, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (f"{NORMAL} y = MatMul(n, w)", "y"),
        (f"{NORMAL} {DENSE} z = Exp(n)", "y z"),
        (f"{NORMAL} {DENSE}", "y n"),
        (f"{NORMAL} m = probegen.Mark(n) p = MatMul(m, w) y = Add(p, bias)", "y"),
        (f"{NORMAL} {DENSE} q = MatMul(x, w) z = Exp(q)", "y z"),
    ],
    ids=["no bias", "another reader", "output", "mark", "shared"],
)
def test_normalisations_that_stay(body: str, outputs: str) -> None:
    made = model(body, outputs)
    merged(made)
    assert [v.name for v in normalised(made).inputs] == ["x", "scale", "shift"]


def gradient(made: ir.Model) -> tuple[onnx.ModelProto, list[str]]:
    graph = made.graph
    y = graph.outputs[0]
    dy = ir.Value(name="dy", type=y.type, shape=y.shape)
    graph.inputs.append(dy)
    b = Builder(graph, 18)
    (dx,) = gradients(b, {y: dy}, [graph.inputs[0]], RULES, BLOCKING)
    assert dx is not None
    dx.name = "dx"
    graph.outputs.append(dx)
    written = [n.op_type for n in b.nodes]
    b.attach()
    graph.opset_imports.pop("probegen")
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    return proto, written


def test_the_gradient_needs_neither_scale_nor_the_mean_of_itself() -> None:
    feeds = {"x": uniform(3, 4, 7, seed=20), "dy": uniform(3, 4, 5, seed=21)}
    feeds = {k: v.astype(np.float32) for k, v in feeds.items()}
    before, in_full = gradient(model(f"{NORMAL} {DENSE}"))
    made = model(f"{NORMAL} {DENSE}")
    merged(made)
    after, short = gradient(made)
    assert in_full.count("ReduceMean") == 2
    assert short == ["Transpose", "MatMul", "Mul", "ReduceMean", "Mul", "Sub", "Mul"]
    expected = run(before, feeds)["dx"]
    np.testing.assert_allclose(run(after, feeds)["dx"], expected, rtol=1e-4, atol=1e-5)


# -- both ----------------------------------------------------------------------------------


def test_one_unit_that_a_factor_makes_many_stays() -> None:
    made = model("p = MatMul(x, single) y = Mul(p, factor)")
    assert merged(made) == ["MatMul", "Mul"]


@pytest.mark.parametrize("constant", ["factor", "bias"])
def test_a_constant_that_adds_an_axis_stays(constant: str) -> None:
    made = model("p = MatMul(x, w) s = Add(p, bias) y = Mul(s, factor)")
    value = made.graph.initializers[constant]
    array = value.const_value.numpy().reshape(1, 1, 1, 5)
    value.const_value, value.shape = ir.Tensor(array, name=constant), ir.Shape(array.shape)
    for node in made.graph:
        node.outputs[0].shape = None
    common.ShapeInferencePass(data_prop=True)(made)
    assert merged(made) == ["MatMul", "Add", "Mul"]


def test_an_infinite_factor_stays() -> None:
    made = model("p = MatMul(x, w) y = Mul(p, factor)")
    made.graph.initializers["factor"].const_value = ir.Tensor(np.full(5, np.inf, np.float32))
    assert merged(made) == ["MatMul", "Mul"]


def test_a_scale_of_one_number_for_all_stays() -> None:
    made = model(f"{UNSHIFTED} {DENSE}")
    scale = made.graph.initializers["scale"]
    scale.const_value, scale.shape = ir.Tensor(np.ones(1, np.float32)), ir.Shape([1])
    merge_into_matrices(made)
    assert normalised(made).inputs[1] is scale


def test_a_matrix_takes_what_is_before_and_what_is_behind() -> None:
    made = model(
        "n = LayerNormalization(x, scale, shift) p = MatMul(n, w) a = Add(p, bias)"
        " y = Mul(a, factor)"
    )
    assert merged(made) == ["LayerNormalization", "MatMul", "Add"]
