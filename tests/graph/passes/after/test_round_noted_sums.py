"""Noted sums of float16, against those of numpy, in onnxruntime, which computes in float32."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.core.marks import ROUNDED
from probegen.graph.passes.after.round_noted_sums import round_noted_sums
from tests.graph.passes.harness import onnxruntime_of, operators, parsed

NUMBERS = np.array([65504.0, 30000.0, 10000.0, -9000.0, 0.3], np.float16)
#: What is behind a sum tells whether it was rounded: it is one number in most places.
BODY = "s = {kind}(x, c) y = Add(s, back)"


@pytest.mark.parametrize("kind", ["Add", "Sub"])
@pytest.mark.parametrize("rows", [1, 4])
def test_sums_are_those_of_float16(kind, rows):
    """Of all sizes: what is added lies far below the number, beside it, and beyond all numbers."""
    sign = -1 if kind == "Sub" else 1
    rng = np.random.default_rng(rows)
    x = (rng.normal(size=(rows, 5)) * [3, 90, 9990, 0.1, 7]).astype(np.float16)
    x[0, 3] = -sign * np.inf
    back = -sign * NUMBERS
    model = parsed(BODY.format(kind=kind), inputs="float16[n, 5] x", c=NUMBERS, back=back)
    with np.errstate(over="ignore"):
        expected = (x + sign * NUMBERS) + back
    before = onnxruntime_of(model)({"x": x})[0]
    model.graph[0].meta[ROUNDED] = True
    round_noted_sums(model)
    after = onnxruntime_of(model)({"x": x})[0]
    np.testing.assert_array_equal(after, expected)
    assert (before != expected).any()
    assert operators(model)[-1] == "Add"  # which nobody noted
    assert "probegen/rounded" not in str(model.graph[-1].outputs[0].name)
