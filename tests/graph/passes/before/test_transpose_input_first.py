"""Scales and shifts of the input, and the Transpose behind them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.passes.before.transpose_input_first import transpose_input_first
from probegen.graph.passes.tidy import remove_unused_nodes
from tests.graph.passes.harness import IMAGES, RNG, changed, parsed, weight

CONSTANTS = {
    "w": weight(8, 5, 3, 3),
    "half": np.array(0.5, np.float32),
    "none": np.array(0.0, np.float32),
    "tiny": np.array(1e-42, np.float32),
    "huge": np.array(3e38, np.float32),
    "each": weight(5) + 2,
    "wide": weight(1, 1, 1, 5),
    "rows": weight(6, 1),
}


def preprocessed(steps: str, outputs: str = "y") -> ir.Model:
    """Returns a model of steps from `x` to `last`, a Transpose to channels first, and a Conv."""
    body = f"{steps} t = Transpose<perm=[0, 3, 1, 2]>(last) y = Conv<pads=[1, 1, 1, 1]>(t, w)"
    return parsed(body, outputs, **CONSTANTS)


def left_behind(model: ir.Model) -> list[str]:
    def change(_: ir.Model) -> None:
        transpose_input_first(model)
        remove_unused_nodes(model)

    return changed(model, change)


def test_scales_and_shifts_of_the_input_become_one_of_each() -> None:
    model = preprocessed("a = Mul(half, x) b = Sub(a, wide) c = Div(b, each) last = Sub(half, c)")
    assert left_behind(model) == ["Transpose", "Add", "Mul", "Conv"]


@pytest.mark.parametrize(
    "step",
    ["Div(half, x)", "Mul(x, rows)", "Mul(x, x)", "Sin(x)", "Mul(x, none)"],
    ids=["reciprocal", "rows", "square", "function", "nothing"],
)
def test_other_steps_stay_before_the_transpose(step: str) -> None:
    left = left_behind(preprocessed(f"last = {step}"))
    assert left == [step.split("(", maxsplit=1)[0], "Transpose", "Conv"]


def test_a_shift_beyond_32_bits_stays() -> None:
    model = preprocessed("a = Mul(x, tiny) last = Add(a, huge)")
    assert left_behind(model) == ["Mul", "Add", "Transpose", "Conv"]


def test_64_bit_numbers_stay() -> None:
    model = parsed(
        "d = Cast<to=11>(x) last = Mul(d, two) y = Transpose<perm=[0, 3, 1, 2]>(last)",
        two=np.array(2.0),
    )
    assert left_behind(model) == ["Cast", "Mul", "Transpose"]


def test_what_others_read_stays_before_the_transpose() -> None:
    model = preprocessed("a = Mul(x, half) last = Add(a, wide)", "y a")
    assert left_behind(model) == ["Mul", "Transpose", "Add", "Mul", "Conv"]


def test_the_transposed_value_keeps_its_place_among_the_outputs() -> None:
    model = preprocessed("a = Mul(x, half) last = Add(a, wide)", "t y")
    assert left_behind(model) == ["Transpose", "Add", "Mul", "Conv"]


def test_a_mean_large_beside_the_deviation_cancels_as_before() -> None:
    model = parsed(
        "a = Sub(x, mean) last = Div(a, each) y = Transpose<perm=[0, 3, 1, 2]>(last)",
        inputs=IMAGES,
        mean=np.float32(30001),
        each=np.array([0.3, 0.7, 0.9, 1.1, 0.6], np.float32),
    )
    near = {"draw": lambda shape: 30001 + RNG.uniform(-1, 1, shape)}
    assert changed(model, transpose_input_first, rtol=1e-6, **near)[-1] == "Mul"
