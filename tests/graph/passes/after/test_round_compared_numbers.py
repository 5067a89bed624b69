"""Comparisons of float16 with what was made of it, against numpy, in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.passes.after.round_compared_numbers import round_compared_numbers
from tests.graph.passes.harness import onnxruntime_of, operators, parsed

INPUTS = "float16[n, 7] x, float16[n, 7] z"


#: Comparisons of a number with a choice of a choice: one alone is made in float32 as well.
COMPARISONS = {
    "Equal": lambda a, m: a == m,
    "LessOrEqual": lambda a, m: a <= m,
    "GreaterOrEqual": lambda a, m: a >= m,
}


@pytest.mark.parametrize("kind", COMPARISONS)
@pytest.mark.parametrize("choice", ["Min(o, most)", "Clip(o, none, most)"])
def test_a_number_is_equal_to_what_was_chosen_as_it(kind, choice):
    body = f"a = Mul(x, third) o = Max(z, a) m = {choice} f = {kind}(a, m) y = Cast<to = 1>(f)"
    numbers = {"third": np.float16(1 / 3), "most": np.float16(0.7), "none": np.float16(-9)}
    model = parsed(body, inputs=INPUTS, **numbers)
    runs = []
    for rows in (40, 3):
        rng = np.random.default_rng(rows)
        x, z = (rng.normal(size=(rows, 7)).astype(np.float16) for _ in range(2))
        x[0, 0] = np.inf
        a = x * numbers["third"]
        chosen = np.minimum(np.maximum(a, z), numbers["most"])
        runs.append(({"x": x, "z": z}, COMPARISONS[kind](a, chosen)))
    (feed, expected), *_ = runs
    assert (onnxruntime_of(model)(feed)[0] != expected).any()
    round_compared_numbers(model)
    for feed, expected in runs:
        np.testing.assert_array_equal(onnxruntime_of(model)(feed)[0], expected.astype(np.float32))


def test_other_comparisons_stay():
    body = "a = Mul(x, z) m = Max(x, z) f = Greater(a, m) y = Cast<to = 1>(f)"
    model = parsed(body, inputs=INPUTS)
    round_compared_numbers(model)
    assert operators(model) == ["Mul", "Max", "Greater", "Cast"]
    wide = parsed(body.replace("Greater(a", "Greater(x"), inputs="float[n, 7] x, float[n, 7] z")
    round_compared_numbers(wide)
    assert operators(wide) == ["Mul", "Max", "Greater", "Cast"]
