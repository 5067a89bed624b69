"""Layer normalisations in pieces: what is joined, what is not, and that values stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from probegen.graph.core.values import attribute
from probegen.graph.passes.before.join_layer_normalisation import join_layer_normalisation
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.shape_inference import infer_shapes
from tests.graph.vjp.harness import run, uniform

EPSILON = 0.01
#: Seeds and names of the constants.
WITHIN = ((1, "scale"), (2, "shift"))


def model(
    shape: tuple[int, ...],
    axes: list[int],
    *,
    before: str = "x = Identity(given)",
    scale: str = "m = Mul(i, scale)",
    shift: str = "w = Add(b, shift)",
    mean: str = "same = Identity(mean)",
    deviation: str = "d = Sub(x, mean)",
    kind: str = "float",
    over: str = "ReduceMean(%s, axes)",
) -> ir.Model:
    """Returns a normalisation as Keras has it; some of its lines can be replaced."""
    sizes = ", ".join(map(str, shape[1:]))
    along = [n if i in axes else 1 for i, n in enumerate(shape)]
    constants = [f"{kind}{along} {name} = {{{_numbers(along, i)}}}" for i, name in WITHIN]
    text = f"""<ir_version: 9, opset_import: ["" : 18, "probegen" : 1]>
      g ({kind}[batch, {sizes}] given) => ({kind}[batch, {sizes}] y)
      <{", ".join(constants)}, {kind}[1] epsilon = {{{EPSILON}}},
       int64[{len(axes)}] axes = {{{", ".join(map(str, axes))}}}>
      {{
        {before}
        mean = {over % "x"}
        {mean}
        n = Neg(mean)
        {deviation}
        q = Mul(d, d)
        v = {over % "q"}
        t = Add(v, epsilon)
        s = Sqrt(t)
        i = Reciprocal(s)
        {scale}
        a = Mul(x, m)
        b = Mul(n, m)
        {shift}
        y = Add(a, w)
      }}"""
    made = ir.from_proto(onnx.parser.parse_model(text))
    for node in list(made.graph):
        if node.op_type == "Identity":  # stands in the text for what is left out
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            made.graph.remove(node, safe=True)
    infer_shapes(made)
    name_open_sizes(made)
    return made


def _numbers(shape: list[int], seed: int) -> str:
    return ", ".join(map(str, uniform(int(np.prod(shape)), low=0.5, seed=seed).round(3)))


def ops(made: ir.Model) -> list[str]:
    common.RemoveUnusedNodesPass()(made)
    return [n.op_type for n in made.graph]


def expected(made: ir.Model, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Returns the normalisation of x in 64 bits, by the constants of the model."""
    constants = {k: v.const_value.numpy() for k, v in made.graph.initializers.items()}
    x = x.astype(np.float64)
    variance = x.var(axes, keepdims=True)
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(variance + EPSILON)
    return normal * constants.get("scale", 1.0) + constants.get("shift", 0.0)


def without(made: ir.Model, *names: str) -> ir.Model:
    for name in names:
        made.graph.initializers.pop(name)
    return made


def torch_model(square: str) -> ir.Model:
    """Returns a normalisation as torch has it, over the last axis."""
    text = f"""<ir_version: 9, opset_import: ["" : 18, "probegen" : 1]>
      g (float[batch, 4, 7] given) => (float[batch, 4, 7] y)
      <float[7] scale = {{{_numbers([7], 1)}}}, float[7] shift = {{{_numbers([7], 2)}}},
       float epsilon = {{{EPSILON}}}, float two = {{2}}, float four = {{4}}, int64[1] axes = {{2}}>
      {{
        mean = ReduceMean(given, axes)
        d = Sub(given, mean)
        q = {square}
        v = ReduceMean(q, axes)
        t = Add(v, epsilon)
        s = Sqrt(t)
        n = Div(d, s)
        a = Mul(n, scale)
        y = Add(a, shift)
      }}"""
    made = ir.from_proto(onnx.parser.parse_model(text))
    infer_shapes(made)
    name_open_sizes(made)
    return made


@pytest.mark.parametrize("power", ["Pow(d, four)", "Pow(two, d)"])
def test_another_power_than_the_square_stays(power: str) -> None:
    made = torch_model(power)
    join_layer_normalisation(made)
    assert "LayerNormalization" not in ops(made)


LAST = ((3, 4, 7), [2])
CASES = {
    "as Keras has it": (lambda: model(*LAST), ["LayerNormalization"]),
    "without a shift": (
        lambda: without(model(*LAST, shift="w = Identity(b)"), "shift"),
        ["LayerNormalization"],
    ),
    "without a scale": (
        lambda: without(model(*LAST, scale="m = Identity(i)"), "scale"),
        ["LayerNormalization"],
    ),
    "a stopped gradient within": (
        lambda: model(*LAST, mean="p = probegen.StopGradient(mean)", deviation="d = Sub(x, p)"),
        ["LayerNormalization"],
    ),
    "as tf2onnx writes means over the last axis": (
        lambda: model(*LAST, over="GlobalAveragePool(%s)"),
        ["LayerNormalization"],
    ),
    "as tf2onnx writes means over the last two axes": (
        lambda: model((3, 4, 7, 5), [2, 3], over="GlobalAveragePool(%s)"),
        ["LayerNormalization"],
    ),
    "as torch writes it": (
        lambda: torch_model("Pow(d, two)"),
        ["LayerNormalization"],
    ),
    "the last two axes": (lambda: model((3, 4, 7), [1, 2]), ["LayerNormalization"]),
    "channels of images": (
        lambda: model((3, 7, 4, 5), [1]),
        ["Transpose", "LayerNormalization", "Transpose"],
    ),
    "its mean reshaped and back": (
        lambda: model(
            (3, 7, 4, 5),
            [1],
            mean="""f = Constant<value_ints = [-1, 4, 5, 1]>()
                    k = Constant<value_ints = [-1, 1, 4, 5]>()
                    o = Reshape(mean, f)
                    p = Reshape(o, k)""",
            deviation="d = Sub(x, p)",
        ),
        ["Transpose", "LayerNormalization", "Transpose"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_joined(name: str) -> None:
    make, wanted = CASES[name]
    made = make()
    axes = tuple(made.graph.initializers["axes"].const_value.numpy())
    sizes = [d if isinstance(d, int) else 3 for d in made.graph.inputs[0].shape]
    x = uniform(*sizes, seed=5).astype(np.float32)
    reference = expected(made, x, axes)
    y = made.graph.outputs[0]
    join_layer_normalisation(made)
    assert made.graph.outputs[0] is y
    assert ops(made) == wanted
    made.graph.opset_imports.pop("probegen")
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    found = run(proto, {"given": x}, need_kernels=True)["y"]
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=2e-6)


def test_a_large_mean_costs_less_than_in_pieces() -> None:
    made = model(*LAST)
    x = (uniform(3, 4, 7, seed=5) + 300).astype(np.float32)
    reference = expected(made, x, (2,))
    made.graph.opset_imports.pop("probegen")
    pieces = run(ir.to_proto(made), {"given": x})["y"]
    join_layer_normalisation(made)
    joined = run(ir.to_proto(made), {"given": x})["y"]
    assert np.abs(joined - reference).max() < np.abs(pieces - reference).max()


def test_it_knows_scale_shift_and_epsilon() -> None:
    made = model((3, 7, 4, 5), [1])
    join_layer_normalisation(made)
    (node,) = (n for n in made.graph if n.op_type == "LayerNormalization")
    assert attribute(node, "axis") == -1
    assert attribute(node, "epsilon") == pytest.approx(EPSILON)
    for name, value in zip(("scale", "shift"), node.inputs[1:], strict=True):
        original = made.graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(value.const_value.numpy(), original.reshape(-1))


def test_a_sum_before_is_kept_from_being_merged() -> None:
    made = model(*LAST, before="z = Abs(given) x = Add(given, z)")
    join_layer_normalisation(made)
    assert ops(made) == ["Abs", "Sum", "LayerNormalization"]


@pytest.mark.parametrize(
    "lines",
    [
        {"mean": "o = Exp(x) p = ReduceMean(o, axes)", "deviation": "d = Sub(x, p)"},
        {"mean": "o = Exp(x)", "deviation": "d = Sub(o, mean)"},
        {"shift": "o = Neg(b) w = Add(o, shift)"},
        {"scale": "o = Abs(x) m = Mul(i, o)"},
        {"shift": "o = Abs(x) w = Add(b, o)"},
        {"kind": "double"},
    ],
    ids=["other mean", "other deviation", "other sign", "no scale", "no shift", "64 bits"],
)
def test_others_stay(lines: dict[str, str]) -> None:
    made = model(*LAST, **lines)
    before = ops(made)
    join_layer_normalisation(made)
    assert ops(made) == before


def test_a_scale_along_another_axis_stays() -> None:
    made = model(*LAST)
    scale = made.graph.initializers["scale"]
    array = uniform(1, 4, 1).astype(np.float32)
    scale.const_value, scale.shape = ir.Tensor(array, name="scale"), ir.Shape(array.shape)
    before = ops(made)
    join_layer_normalisation(made)
    assert ops(made) == before


def test_an_older_opset_has_no_such_operator() -> None:
    made = model(*LAST)
    made.graph.opset_imports[""] = 16
    before = ops(made)
    join_layer_normalisation(made)
    assert ops(made) == before
