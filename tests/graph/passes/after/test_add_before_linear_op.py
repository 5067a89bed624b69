"""Sums come before what both terms go through."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.passes.after.add_before_linear_op import add_before_linear_op
from tests.graph.passes.harness import changed, operator, parsed, weight

X = "float[batch, 16, 6, 5] x, float[batch, 16, 6, 5] z, float[rows, 16, 6, 5] r"
CONSTANTS = {
    "matrix": weight(5, 10),
    "other": weight(5, 10),
    "shape": np.array([-1, 16, 12, 5]),
    "pads": np.array([0, 0, 1, 0, 0, 2, 0, 0]),
    "one": np.array(1, np.float32),
    "axes": np.array([2, 3]),
    "start": np.array([1]),
    "end": np.array([4]),
    "axis": np.array([2]),
    "wide": np.array([2, 1, 1, 1, 1]),
}


def test_sums_come_first() -> None:
    model = parsed(
        """a = MatMul(x, matrix) b = MatMul(z, matrix) c = Reshape(a, shape)
        d = Reshape(b, shape) y = Add(c, d)""",
        inputs=X,
        **CONSTANTS,
    )
    assert changed(model, add_before_linear_op) == ["Add", "MatMul", "Reshape"]


@pytest.mark.parametrize(
    "form",
    [
        "Pad({}, pads)",
        'Pad<mode="reflect">({}, pads, one)',
        "ReduceSum({}, axes)",
        "Slice({}, start, end, axis)",
        "Transpose<perm=[0, 2, 3, 1]>({})",
        "Expand({}, wide)",
    ],
)
def test_linear_operators(form: str) -> None:
    body = f"a = {form.format('x')} b = {form.format('z')} y = Add(a, b)"
    model = parsed(body, inputs=X, **CONSTANTS)
    assert changed(model, add_before_linear_op) == ["Add", operator(form)]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("a = MatMul(x, matrix) b = MatMul(z, other) y = Add(a, b)", "y"),
        ("a = MatMul(x, matrix) b = MatMul(z, matrix) y = Add(a, b)", "y b"),
        ("a = Pad(x, pads, one) b = Pad(z, pads, one) y = Add(a, b)", "y"),
        ("a = MatMul(x, matrix) b = MatMul(r, matrix) y = Add(a, b)", "y"),
        ("a = Softmax(x) b = Softmax(z) y = Add(a, b)", "y"),
        ("a = ReduceMax(x, axes) b = ReduceMax(z, axes) y = Add(a, b)", "y"),
        ("a = ReduceSum(x, axes) b = ReduceSum<keepdims=0>(z, axes) y = Add(a, b)", "y"),
    ],
    ids=[
        *("differently", "read by others", "filled with ones", "of another size"),
        *("not linear", "a maximum", "other attributes"),
    ],
)
def test_other_sums_stay(body: str, outputs: str) -> None:
    model = parsed(body, outputs, inputs=X, **CONSTANTS)
    before = [n.op_type for n in model.graph]
    add_before_linear_op(model)
    assert [n.op_type for n in model.graph] == before
