"""One name for each open size."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.core.values import shape_of
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from tests.graph.passes.harness import changed, parsed

X = "float[batch, 16, time] x"


def shapes(body: str, inputs: str = X, **constants: object) -> dict[str, tuple[object, ...]]:
    """Returns the shapes of all values once sizes are named."""
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    model = parsed(body, inputs=inputs, **arrays)
    before = [n.op_type for n in model.graph if n.op_type != "Constant"]
    assert changed(model, name_open_sizes, rtol=0) == before
    return {v.name: shape_of(v) for n in model.graph for v in n.outputs}


def test_the_size_a_reshape_works_out_is_the_one_that_was_left() -> None:
    found = shapes(
        """mean = ReduceMean<keepdims=0>(x, last) image = Reshape(mean, wide)
        gate = Sigmoid(image) row = Reshape(gate, flat) column = Unsqueeze(row, last)
        y = Mul(x, column)""",
        last=[2],
        wide=[-1, 16, 1, 1],
        flat=[-1, 16],
    )
    assert found["image"] == found["gate"] == ("batch", 16, 1, 1)
    assert found["y"] == ("batch", 16, "time")


def test_a_reshape_that_copies_one_open_size_works_out_the_other() -> None:
    assert shapes("y = Reshape(x, heads)", heads=[0, 4, 4, -1])["y"] == ("batch", 4, 4, "time")


def test_sizes_worked_out_are_numbers_where_nothing_is_open() -> None:
    found = shapes(
        "m = ReduceMax<keepdims=0>(x, ends) y = Reshape(m, halves)",
        ends=[0, 2],
        halves=[2, -1],
    )
    assert found["y"] == (2, 8)


def test_a_product_of_stacks_keeps_the_names_of_both() -> None:
    found = shapes(
        "a = Reshape(x, flat) b = MatMul(a, w) y = Reshape(b, wide)",
        flat=[-1, 4, 4],
        w=np.ones((4, 3), np.float32),
        wide=[-1, 12],
    )
    assert found["b"][1:] == (4, 3)
    assert found["b"][0] == found["a"][0]


def test_joined_sizes_are_products_that_come_apart_again() -> None:
    found = shapes(
        "a = Reshape(x, flat) b = Reshape(a, whole) y = Reshape(b, back)",
        flat=[-1, 16],
        whole=[8, -1],
        back=[0, 2, -1],
    )
    assert found == {
        "a": ("batch * time", 16),
        "b": (8, "2 * batch * time"),
        "y": (8, 2, "batch * time"),
    }


@pytest.mark.parametrize("target", [[-1, 8], [-1], [16, -1]], ids=str)
def test_products_of_sizes_keep_a_name_of_their_own(target: list[int]) -> None:
    found = shapes("y = Reshape(x, target)", target=target)
    assert not {"batch", "time"} & set(found["y"])


def test_two_names_that_meet_stay_two() -> None:
    found = shapes("y = Add(x, z)", f"{X}, float[rows, 16, time] z")
    assert found["y"][0] not in ("batch", "rows")
