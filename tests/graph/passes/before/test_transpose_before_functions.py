"""Transposes inside of a function of one tensor stand in front of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.elementwise import function_of_one
from probegen.graph.passes.before.transpose_before_functions import transpose_before_functions
from probegen.graph.passes.tidy import remove_unused_nodes
from tests.graph.passes.harness import changed, parsed, weight

#: Slopes of each position, with the channels last, and of each channel.
CONSTANTS = {"slopes": weight(6, 5, 16), "each": weight(16, 1, 1), "one": np.float32(0.3)}
LAST, FIRST = "Transpose<perm=[0, 2, 3, 1]>", "Transpose<perm=[0, 3, 1, 2]>"
PRELU = f"p = Relu(x) n = Neg(x) r = Relu(n) a = {LAST}(r) m = Mul(a, slopes)"


def left_behind(model: ir.Model) -> list[str]:
    def change(_: ir.Model) -> None:
        transpose_before_functions(model)
        remove_unused_nodes(model)

    return changed(model, change, rtol=0)


def of_one(model: ir.Model) -> bool:
    """Tells whether the last node is a function of one tensor, element by element."""
    return function_of_one(list(model.graph)[-1]) is not None


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"{PRELU} b = {LAST}(p) y = Sub(b, m)", ["Transpose", "Relu", "Neg", "Relu", "Mul"]),
        (f"{PRELU} b = {FIRST}(m) y = Sub(p, b)", ["Relu", "Neg", "Relu", "Mul"]),
        (f"s = Mul(x, each) t = {LAST}(s) a = {LAST}(x) y = Max(t, a)", ["Transpose", "Mul"]),
        (f"a = {LAST}(x) s = Sigmoid(x) t = {LAST}(s) y = Mul(a, t)", ["Transpose", "Sigmoid"]),
    ],
    ids=["in both branches", "to and fro", "constants of channels", "a swish"],
)
def test_a_function_in_two_layouts_gets_one(body: str, left: list[str]) -> None:
    model = parsed(body, **CONSTANTS)
    assert not of_one(model)
    assert left_behind(model) == [*left, list(model.graph)[-1].op_type]
    assert of_one(model)


def test_a_reshape_that_moves_an_axis_of_one_element_is_such_a_transpose() -> None:
    body = "a = Reshape(x, last) s = Sigmoid(x) t = Reshape(s, last) y = Mul(a, t)"
    last = np.array([0, 1, 4, 3])
    model = parsed(body, inputs="float[batch, 4, 3, 1] x", last=last)
    assert not of_one(model)
    assert left_behind(model) == ["Transpose", "Sigmoid", "Mul"]
    assert of_one(model)
    joins = body.replace("last", "joined")  # axes of several elements: another matter
    model = parsed(joins, inputs="float[batch, 4, 3, 2] x", joined=np.array([0, 3, 4, 2]))
    assert left_behind(model) == ["Reshape", "Sigmoid", "Reshape", "Mul"]


def test_functions_behind_each_other_get_one_each_and_what_others_read_stays() -> None:
    model = parsed(
        f"""a = {LAST}(x) s = Sigmoid(x) t = {LAST}(s) u = Mul(a, t)
        b = {FIRST}(u) e = Tanh(u) f = {FIRST}(e) y = Mul(b, f)""",
        "y s",
    )
    transposes = ["Transpose", "Sigmoid", "Mul", "Transpose", "Tanh", "Mul"]
    assert sorted(left_behind(model)) == sorted([*transposes, "Sigmoid"])
    assert of_one(model)


@pytest.mark.parametrize(
    "body",
    [
        f"a = {LAST}(x) s = Sigmoid(z) t = {LAST}(s) y = Mul(a, t)",
        "a = Transpose<perm=[0, 1, 3, 2]>(w) s = Sigmoid(w) y = Mul(a, s)",
        f"m = ReduceMax<axes=[1], keepdims=1>(x) a = {LAST}(m) b = {LAST}(x) y = Mul(a, b)",
        f"s = Sigmoid(x) k = probegen.Mark(s) t = {LAST}(k) a = {LAST}(x) y = Mul(a, t)",
        "s = Sigmoid(x) y = Mul(x, s)",
    ],
    ids=["of two tensors", "turned differently", "broadcast", "marked", "in one layout"],
)
def test_others_stay(body: str) -> None:
    square = "float[batch, 16, 6, 5] x, float[batch, 16, 6, 5] z, float[batch, 2, 4, 4] w"
    model = parsed(body, inputs=square, opset=17)
    before = [node.op_type for node in model.graph]
    transpose_before_functions(model)
    assert [node.op_type for node in model.graph] == before
