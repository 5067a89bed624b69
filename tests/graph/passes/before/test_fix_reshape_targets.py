"""Reshapes to a size that is known before a request comes."""

from __future__ import annotations

import pytest

from probegen.graph.core.values import constant_of
from probegen.graph.passes.before.fix_reshape_targets import fix_reshape_targets
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from tests.graph.passes.harness import changed, node_of, parsed

X = "float[batch, 4, 6] x"


def test_a_target_put_together_from_sizes_is_a_constant() -> None:
    model = parsed(
        "n = Shape<start=0, end=1>(x) t = Concat<axis=0>(n, rest) y = Reshape(x, t)",
        inputs=X,
        rest=[3, 8],
    )
    name_open_sizes(model)
    changed(model, fix_reshape_targets, rtol=0)
    assert constant_of(node_of(model, "y").inputs[1]).tolist() == [-1, 3, 8]


def test_an_attribute_that_takes_0_by_its_word_goes() -> None:
    model = parsed(
        "n = Shape<start=0, end=1>(x) t = Concat<axis=0>(n, rest) y = Reshape<allowzero=1>(x, t)",
        inputs=X,
        rest=[24],
    )
    changed(model, fix_reshape_targets, rtol=0)
    assert constant_of(node_of(model, "y").inputs[1]).tolist() == [-1, 24]
    assert not node_of(model, "y").attributes


@pytest.mark.parametrize(
    "body",
    [
        "y = Reshape(x, sizes)",
        "n = Shape(z) y = Reshape(x, n)",
        "n = Shape(z) e = Relu(x) y = Expand(e, n)",
    ],
    ids=["of the request", "two sizes are open", "no Reshape"],
)
def test_others_stay(body: str) -> None:
    inputs = "float[batch, rows, 6] x, float[batch, rows, 6] z, int64[3] sizes"
    model = parsed(body, inputs=inputs)
    before = node_of(model, "y").inputs[1]
    fix_reshape_targets(model)
    assert node_of(model, "y").inputs[1] is before
