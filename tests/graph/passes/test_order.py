"""The order of passes, and what all of them together leave."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from probegen.graph.passes import AFTER, BEFORE, clean, prepare
from tests.graph.passes.harness import changed, operators, parsed, weight


def test_each_pass_is_documented_by_what_it_makes_of_a_graph() -> None:
    for change in (*BEFORE, *AFTER):
        text = change.__doc__ or ""
        assert text[0].isupper(), change
        if change.__module__.startswith("probegen.graph.passes"):
            assert "->" in text, f"{change.__name__} shows no before -> after"


def test_marks_and_repeated_computations_go() -> None:
    model = parsed(
        """a = Transpose<perm=[0, 2, 1, 3]>(x) m = probegen.Mark(a)
        b = Transpose<perm=[0, 2, 1, 3]>(m) s = probegen.StopGradient(b)
        c = Exp(s) d = Exp(s) unused = Sin(c) y = Add(c, d)"""
    )
    assert changed(model, clean) == ["Exp", "Add"]
    assert set(model.graph.opset_imports) == {""}


def test_a_gelu_is_joined_before_and_written_out_after() -> None:
    model = parsed(
        """half = Constant<value_float = 0.5>() one = Constant<value_float = 1.0>()
        root = Constant<value_float = 0.70710678>()
        u = Mul(x, root) e = Erf(u) p = Add(one, e) a = Mul(x, half) y = Mul(a, p)"""
    )
    prepare(model)
    assert operators(model) == ["Gelu"]
    clean(model)
    assert operators(model) == ["Mul", "Erf", "HardSigmoid", "Mul"]


@pytest.mark.parametrize("change", [prepare, clean])
def test_a_network_keeps_its_outputs_in_order(change) -> None:
    model = parsed(
        """p = Pad(x, pads) c = Conv(p, w) s = Mul(c, scale) t = Add(s, shift) r = Relu(t)
        m = ReduceMean<axes=[2, 3], keepdims=0>(r) y = MatMul(m, matrix) same = Identity(x)
        again = Identity(y)""",
        "y r same again",
        opset=17,
        pads=[0, 0, 1, 0, 0, 0, 0, 2],
        w=weight(8, 16, 3, 3),
        scale=weight(1, 8, 1, 1),
        shift=weight(8, 1, 1),
        matrix=weight(8, 5),
    )
    changed(model, change)
    assert len(set(model.graph.outputs)) == len({v.name for v in model.graph.outputs}) == 4


def test_passes_change_a_model_in_place() -> None:
    model = parsed("y = Relu(x)")
    for change in (*BEFORE, *AFTER):
        assert change(model) is None
    assert isinstance(model, ir.Model)
