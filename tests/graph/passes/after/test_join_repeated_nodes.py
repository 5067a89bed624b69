"""What is computed twice in the same way."""

from __future__ import annotations

import pytest

from probegen.graph.passes.after.join_repeated_nodes import join_repeated_nodes
from tests.graph.passes.harness import IMAGES, changed, operators, parsed

JOINED = {
    "one and the same": ("a = Exp(x) b = Exp(x) y = Add(a, b)", "y", ["Exp", "Add"]),
    "of what is joined": (
        "a = Exp(x) b = Exp(x) c = Sin(a) d = Sin(b) y = Add(c, d)",
        "y",
        ["Exp", "Sin", "Add"],
    ),
    "equal attributes in any order": (
        """a = LRN<size=3, alpha=0.5>(x) b = LRN<alpha=0.5, size=3>(x) y = Add(a, b)""",
        "y",
        ["LRN", "Add"],
    ),
    "an output": ("a = Exp(x) s = Sin(a) b = Exp(x)", "s b", ["Exp", "Sin"]),
    "two outputs": ("a = Exp(x) b = Exp(x)", "a b", ["Exp", "Identity"]),
    "constants": (
        """k = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]>()
        l = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]>()
        a = Mul(x, k) b = Mul(x, l) y = Add(a, b)""",
        "y",
        ["Mul", "Add"],
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined(name: str) -> None:
    body, outputs, left = JOINED[name]
    model = parsed(body, outputs)
    assert changed(model, join_repeated_nodes, rtol=0) == left
    assert [v.name for v in model.graph.outputs[:1]] == outputs.split()[:1]


@pytest.mark.parametrize(
    "body",
    [
        "a = Exp(x) b = Exp(z) y = Add(a, b)",
        "a = Elu<alpha=0.5>(x) b = Elu<alpha=0.25>(x) y = Add(a, b)",
        "a = Sub(x, z) b = Sub(z, x) y = Add(a, b)",
        "a = ReduceSum<keepdims=1>(x) b = ReduceSum<keepdims=0>(x) y = Add(a, b)",
    ],
    ids=["other inputs", "other attributes", "another order", "other numbers"],
)
def test_others_stay(body: str) -> None:
    model = parsed(body)
    before = operators(model)
    assert changed(model, join_repeated_nodes, rtol=0) == before


@pytest.mark.parametrize(
    "draw",
    ["Bernoulli(h)", "Dropout(h, half, yes)", "RandomNormalLike(h)", "RandomUniformLike(h)"],
)
def test_draws_stay_two(draw: str) -> None:
    model = parsed(
        f"""half = Constant<value_float=0.5>() yes = Cast<to=9>(half) h = Sigmoid(x)
        a = {draw} b = {draw} y = Sub(a, b)"""
    )
    before = operators(model)
    join_repeated_nodes(model)
    assert operators(model) == before


def test_branches_stay() -> None:
    choice = """If (on) <then_branch = yes () => (float[batch, 16, 6, 5] t) { t = Neg(x) },
      else_branch = no () => (float[batch, 16, 6, 5] e) { e = Exp(x) }>"""
    model = parsed(f"a = {choice} b = {choice} y = Add(a, b)", inputs=f"{IMAGES}, bool on")
    assert changed(model, join_repeated_nodes, rtol=0) == ["If", "If", "Add"]
