"""What artefacts of ONNX files are held against: errors planted in one rule each are refused.

The gradient is written twice by the same rules, so that differences of the file's own scores alone
can tell that a rule is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.graph import vjp
from probegen.parity.report import DIFFERENCES
from probegen.plan.making import make_plan
from probegen.sources import open_source
from probegen.sources.onnx.moved_scores import original_with
from tests.sources.onnx.support import add_weights, parse

#: Operator -> a graph from `x [N,3,6,5]` to `t` in which the gradient passes it.
_BODIES = {
    "Conv": "t = Conv(x, k)",
    "ConvTranspose": "t = ConvTranspose<strides=[2,1]>(x, kt)",
    "MatMul": "t = MatMul(x, m)",
    "Gemm": "f = Flatten(x) t = Gemm<transB=1>(f, big, bias)",
    "Softmax": "t = Softmax<axis=1>(x)",
    "Tanh": "t = Tanh(x)",
    "Sigmoid": "t = Sigmoid(x)",
    "Relu": "t = Relu(x)",
    "Mul": "s = Sin(x) t = Mul(x, s)",
    "Div": "a = Abs(x) b = Add(a, one) t = Div(x, b)",
    "Add": "s = Sin(x) t = Add(x, s)",
    "Sub": "s = Sin(x) t = Sub(x, s)",
    "MaxPool": "t = MaxPool<kernel_shape=[2,2], strides=[2,1]>(x)",
    "AveragePool": "t = AveragePool<kernel_shape=[3,2]>(x)",
    "ReduceMean": "t = ReduceMean<keepdims=0>(x, third)",
    "LayerNormalization": "t = LayerNormalization(x, five)",
    "Transpose": "t = Transpose<perm=[0,3,1,2]>(x)",
    "Concat": "s = Sin(x) t = Concat<axis=1>(x, s)",
    "Erf": "t = Erf(x)",
    "Pow": "a = Abs(x) b = Add(a, one) t = Pow(b, three)",
}


def _model(body: str):
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    text = f"""
        g (float[N,3,6,5] x) => (float[N,4] y) {{
          {body}
          c = Cos(t)
          r = Add(c, t)
          flat = Flatten(r)
          q = ReduceSum<keepdims=1>(flat, axis)
          w = Mul(flat, flat)
          p = ReduceSum<keepdims=1>(w, axis)
          both = Concat<axis=1>(q, p)
          bent = Tanh(head_in)
          y = MatMul(both, head)
        }}"""
    return add_weights(
        parse(text.replace("          bent = Tanh(head_in)\n", "")),
        k=weights(4, 3, 3, 2),
        kt=weights(3, 2, 2, 3),
        m=weights(5, 7),
        big=weights(7, 90),
        bias=weights(7),
        one=np.float32(1.5),
        third=np.array([2]),
        five=weights(5),
        nought=np.float32(0),
        three=np.float32(1.7),
        axis=np.array([1]),
        head=weights(2, 4),
    )


def _scaled(rule: vjp.Rule, factor: float = 1.5) -> vjp.Rule:
    """Returns a rule that is wrong by a factor."""

    def wrong(walk: Any, node: ir.Node, seeds: Any) -> Iterable[tuple[ir.Value, ir.Value]]:
        for value, gradient in rule(walk, node, seeds):
            b = walk.builder
            yield value, b.op("Mul", gradient, b.const(factor, gradient.dtype), shape=gradient)

    return wrong


def _first_alone(rule: vjp.Rule) -> vjp.Rule:
    """Returns a rule that forgets all operands but the first."""

    def wrong(walk: Any, node: ir.Node, seeds: Any) -> Iterable[tuple[ir.Value, ir.Value]]:
        yield from list(rule(walk, node, seeds))[:1]

    return wrong


def _shifted(rule: vjp.Rule) -> vjp.Rule:
    """Returns a rule that gives each element the gradient of its neighbour along the last axis."""

    def wrong(walk: Any, node: ir.Node, seeds: Any) -> Iterable[tuple[ir.Value, ir.Value]]:
        for value, gradient in rule(walk, node, seeds):
            b = walk.builder
            last = b.op("Slice", gradient, b.ints(-1), b.ints(9999), b.ints(-1))
            rest = b.op("Slice", gradient, b.ints(0), b.ints(-1), b.ints(-1))
            yield value, b.op("Concat", last, rest, axis=-1, shape=gradient)

    return wrong


def _compiled(body: str, tmp_path, probe: Any = None):
    return pg.compile(_model(body), [probe or pg.InputGradient(target=2)], tmp_path / "m.onnx")


@pytest.mark.parametrize("op_type", _BODIES)
def test_differences_confirm_right_rules(op_type: str, tmp_path) -> None:
    report = _compiled(_BODIES[op_type], tmp_path).report
    assert report["input_gradient/x"].witness.endswith(DIFFERENCES)


@pytest.mark.parametrize("wrong", [_scaled, _shifted])
@pytest.mark.parametrize("op_type", _BODIES)
def test_a_wrong_rule_is_refused(
    op_type: str, wrong: Callable[[vjp.Rule], vjp.Rule], tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(vjp.RULES, op_type, wrong(vjp.RULES[op_type]))
    with pytest.raises(VerificationError, match=f"{DIFFERENCES}, which refute"):
        _compiled(_BODIES[op_type], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("op_type", ["Tanh", "MatMul"])
def test_a_gradient_of_zeros_is_refused(op_type: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(vjp.RULES, op_type, _scaled(vjp.RULES[op_type], 0.0))
    with pytest.raises(VerificationError, match=f"{DIFFERENCES}, which refute"):
        _compiled(_BODIES[op_type], tmp_path)


def test_a_gradient_that_is_zero_is_confirmed(tmp_path) -> None:
    report = _compiled("t = Mul(x, nought)", tmp_path).report
    assert report["input_gradient/x"].witness.endswith(DIFFERENCES)


@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div", "Concat"])
def test_a_forgotten_operand_is_refused(op_type: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(vjp.RULES, op_type, _first_alone(vjp.RULES[op_type]))
    with pytest.raises(VerificationError, match=f"{DIFFERENCES}, which refute"):
        _compiled(_BODIES[op_type], tmp_path)


@pytest.mark.parametrize("op_type", ["Conv", "Sigmoid", "MaxPool", "MatMul"])
def test_sums_of_gradients_on_a_line_have_a_witness_too(
    op_type: str, tmp_path, monkeypatch
) -> None:
    body, probe = _BODIES[op_type], pg.IntegratedGradients(steps=5, target=2, baseline=0.25)
    report = _compiled(body, tmp_path, probe).report
    assert report["integrated_gradients/x"].witness.endswith(DIFFERENCES)
    monkeypatch.setitem(vjp.RULES, op_type, _scaled(vjp.RULES[op_type]))
    with pytest.raises(VerificationError, match=f"{DIFFERENCES}, which refute"):
        _compiled(body, tmp_path, probe)


def test_all_witnesses_of_a_path_hold_masks(tmp_path) -> None:
    """As Keras exports `Masking(0.0)`, verified on samples of which most is padding."""
    model = parse("""
      g (float[N,T,2] x) => (float[N,3] y) {
        there = Equal(x, zero)
        absent = Not(there)
        each = Cast<to = 1>(absent)
        some = ReduceMax<axes = [2]>(each)
        mask = Greater(some, zero)
        factor = Cast<to = 1>(mask)
        h = MatMul(x, w)
        t = Tanh(h)
        kept = Mul(t, factor)
        y = ReduceSum<keepdims = 0>(kept, one)
      }""", opset=17)  # fmt: skip
    w = np.random.default_rng(4).normal(size=(2, 3)).astype(np.float32)
    model = add_weights(model, w=w, zero=np.float32(0), one=np.array([1], np.int64))
    x = np.random.default_rng(5).normal(size=(3, 4, 2)).astype(np.float32)
    x[0, 2:] = x[1, 1:] = x[2, 3:] = 0
    probe = pg.IntegratedGradients(2, baseline=0.5, target=1)
    art = pg.compile(model, probe, tmp_path / "m.onnx", samples=x)
    assert art.report["integrated_gradients/x"].witness.endswith(DIFFERENCES)
    points = [0.5 + a * (x - 0.5) for a in (0.25, 0.75)]
    slopes = np.mean([(1 - np.tanh(p @ w[:, 1]) ** 2) for p in points], 0)[..., None] * w[:, 1]
    mask = (x != 0).any(-1, keepdims=True)
    found = runtime.load(tmp_path / "m.onnx").run(x)["integrated_gradients/x"].array
    np.testing.assert_allclose(found, (x - 0.5) * slopes * mask, rtol=1e-5, atol=1e-6)


def test_maps_have_a_witness_too(tmp_path, monkeypatch) -> None:
    body, probe = "a = Conv(x, k) t = Tanh(a)", pg.GradCAM("a", target=2)
    assert _compiled(body, tmp_path, probe).report["grad_cam/a"].witness.endswith(DIFFERENCES)
    monkeypatch.setitem(vjp.RULES, "Tanh", _scaled(vjp.RULES["Tanh"]))
    with pytest.raises(VerificationError, match=f"{DIFFERENCES}, which refute"):
        _compiled(body, tmp_path, probe)


@pytest.mark.parametrize(
    ("last", "near"),
    [
        ("y = Sigmoid(x)", 4.0),
        ("s = Sigmoid(x) y = Transpose<perm=[1,0]>(s)", 4.0),
        ("y = Softmax(x)", 1.0),
        ("s = Sigmoid(x) y = Mul(s, x)", 0.0),
        ("y = Relu(x)", 0.0),
    ],
)
def test_what_the_last_function_is_uncertain_of(last: str, near: float) -> None:
    source = open_source(parse(f"g (float[N,3] x) => (float[P,Q] y) {{ {last} }}"))
    plan = make_plan(source.view, [], None)
    assert source.reference(plan).computed_near("y") == near


def test_infinite_masks_are_no_fault_of_the_weights() -> None:
    model = parse(
        "g (float[N,3] x) => (float[N,3] y) { a = Add(x, mask) b = Add(a, w) y = Log(b) }"
    )
    mask = np.array([0, -np.inf, 0], np.float32)
    feed = {"x": np.zeros((2, 3), np.float32)}
    for w, said in ((np.zeros(3), "first arise in node"), (np.array([0, np.nan, 0]), "weight 'w'")):
        source = open_source(
            add_weights(
                onnx.ModelProto.FromString(model.SerializeToString()), mask=mask, w=w.astype("f")
            )
        )
        reference = source.reference(make_plan(source.view, [], None))
        assert said in reference.where_not_finite(feed)


def test_a_weight_is_moved_in_the_original_file() -> None:
    """Not in the prepared graph, in which it stands for less."""
    source = open_source(_model(_BODIES["Gemm"]))
    made = original_with(source._read, ["big", "flat"])
    assert made is not None
    assert [n.op_type for n in made.graph][:2] == ["Flatten", "Gemm"]
    assert original_with(source._read, ["nothing of this name"]) is None
