"""A scale and a shift a channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.passes.before.join_batch_normalisation import join_batch_normalisation
from tests.graph.passes.harness import changed, parsed, weight

CONSTANTS = {
    "scale": weight(1, 16, 1, 1),
    "shift": weight(16, 1, 1),
    "wide": weight(1, 16, 1, 5),
    "matrix": weight(5, 7),
    "seven": weight(1, 7, 1, 1),
    "seven_more": weight(7, 1, 1),
    "axis": np.array([1]),
}


@pytest.mark.parametrize("opset", [13, 18])
def test_scale_and_shift_become_a_normalisation(opset: int) -> None:
    model = parsed("m = Mul(x, scale) a = Add(m, shift) y = Relu(a)", opset=opset, **CONSTANTS)
    assert changed(model, join_batch_normalisation) == ["BatchNormalization", "Relu"]


def test_normalisations_of_one_width_share_what_they_do_not_need() -> None:
    model = parsed(
        "m = Mul(x, scale) a = Add(m, shift) r = Relu(a) n = Mul(r, shift) y = Add(n, scale)",
        **CONSTANTS,
    )
    changed(model, join_batch_normalisation)
    first, second = (n for n in model.graph if n.op_type == "BatchNormalization")
    assert list(first.inputs[3:]) == list(second.inputs[3:])


@pytest.mark.parametrize(
    ("outputs", "left"), [("y", ["BatchNormalization"]), ("m y", ["Mul", "Add"])]
)
def test_a_product_that_is_an_output_is_not_normalised(outputs: str, left: list[str]) -> None:
    model = parsed(
        """m = MatMul(x, matrix) t = Transpose<perm=[0, 3, 1, 2]>(m) s = Mul(t, seven)
        y = Add(s, seven_more)""",
        outputs,
        **CONSTANTS,
    )
    assert changed(model, join_batch_normalisation) == ["MatMul", "Transpose", *left]


@pytest.mark.parametrize(
    "body",
    [
        "m = Mul(x, wide) y = Add(m, shift)",
        "m = Mul(x, scale) y = Add(m, m)",
        "o = ReduceSum(x, axis) m = Mul(o, scale) y = Add(m, shift)",
        "m = Mul(x, scale) y = Sub(m, shift)",
    ],
    ids=["other sizes", "itself", "one channel made many", "a difference"],
)
def test_others_stay(body: str) -> None:
    model = parsed(body, **CONSTANTS)
    before = [n.op_type for n in model.graph]
    assert changed(model, join_batch_normalisation) == before
    assert isinstance(model, ir.Model)
