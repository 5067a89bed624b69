"""What is known of bounds whose middle is at 0."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.marks import HARD_SIGMOID
from probegen.graph.passes.before.mark_hard_sigmoids import mark_hard_sigmoids
from tests.graph.passes.harness import changed, parsed

NUMBERS = {"zero": 0.0, "half": 0.5, "one": 1.0, "three": 3.0, "six": 6.0}


def told(text: str) -> set[str]:
    """Returns the operators of the nodes that are marked; the graph computes what it did."""
    known = {n: np.float32(v) for n, v in NUMBERS.items() if n in text}
    model = parsed(text, "y", inputs="float[batch, 9] x", **known)
    changed(model, mark_hard_sigmoids, rtol=0)
    return marked(model)


def marked(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph if node.meta.get(HARD_SIGMOID, False)}


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("a = Add(three, x) y = Clip(a, zero, six)", {"Clip"}),
        ("h = Mul(x, half) a = Add(h, half) r = Relu(a) y = Min(one, r)", {"Relu", "Min"}),
        ("a = Add(x, half) m = Min(a, one) y = Max(m, zero)", {"Max", "Min"}),
    ],
)
def test_bounds_around_half_of_the_upper_one(text: str, operators: set[str]) -> None:
    assert told(text) == operators


@pytest.mark.parametrize(
    "text",
    [
        "y = Clip(x, zero, six)",
        "a = Add(x, one) y = Clip(a, zero, six)",
        "a = Add(x, three) y = Clip(a, half, six)",
        "a = Add(x, three) y = Relu(a)",
        "a = Add(x, x) y = Clip(a, zero, six)",
    ],
)
def test_rectifiers_stay_what_they_are(text: str) -> None:
    assert told(text) == set()
