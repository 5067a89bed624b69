"""Slices that share an axis out become a Split."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.values import shape_of
from probegen.graph.passes.before.join_slices import join_slices
from tests.graph.passes.harness import changed, operators, parsed

X = "float[batch, 9, 3] x"


def sliced(*intervals: tuple[int, int], axis: int = 1, opset: int = 18) -> ir.Model:
    lines, constants = [], {"axis": np.array([axis])}
    for k, (start, end) in enumerate(intervals):
        lines.append(f"y{k} = Slice(x, s{k}, e{k}, axis)")
        constants |= {f"s{k}": np.array([start]), f"e{k}": np.array([end])}
    outputs = " ".join(f"y{k}" for k in range(len(intervals)))
    return parsed(" ".join(lines), outputs, inputs=X, opset=opset, **constants)


@pytest.mark.parametrize(
    ("intervals", "axis"),
    [
        ([(0, 2), (2, 5), (5, 9)], 1),
        ([(5, 2**31 - 1), (0, 5)], -2),
        ([(0, -7), (-7, 9)], 1),
        ([(0, 1), (1, 3)], -1),
    ],
)
def test_slices_that_share_an_axis_out_are_a_split(
    intervals: list[tuple[int, int]], axis: int
) -> None:
    model = sliced(*intervals, axis=axis)
    described = {v.name: shape_of(v) for v in model.graph.outputs}
    assert changed(model, join_slices, rtol=0) == ["Split"]
    assert {v.name: shape_of(v) for v in model.graph.outputs} == described


@pytest.mark.parametrize(
    "intervals",
    [
        [(0, 2), (2, 5)],
        [(0, 5), (4, 9)],
        [(0, 4), (5, 9)],
        [(0, 9)],
        [(0, 4), (0, 4), (4, 8)],
        [(0, 5), (5, 5), (5, 9)],
    ],
)
def test_other_slices_stay(intervals: list[tuple[int, int]]) -> None:
    model = sliced(*intervals)
    left = changed(model, join_slices, rtol=0)
    # An empty Slice is no part of a Split; those around it may be one.
    assert left == (["Split", "Slice"] if (5, 5) in intervals else ["Slice"] * len(intervals))


def test_an_older_opset_has_no_split_of_given_sizes() -> None:
    model = sliced((0, 4), (4, 9), opset=12)
    join_slices(model)
    assert operators(model) == ["Slice", "Slice"]


def test_slices_of_an_open_axis_stay() -> None:
    model = parsed(
        "a = Slice(x, zero, one, zero) b = Slice(x, one, end, zero)",
        "a b",
        inputs=X,
        zero=[0],
        one=[1],
        end=[2**31 - 1],
    )
    assert changed(model, join_slices) == ["Slice", "Slice"]


def test_slices_of_a_slice_are_a_split_of_a_split() -> None:
    model = parsed(
        """part = Slice(x, zero, four, axis) a = Slice(x, four, nine, axis)
        b = Slice(part, zero, two, axis) c = Slice(part, two, four, axis)""",
        "a b c",
        inputs=X,
        axis=[1],
        zero=[0],
        two=[2],
        four=[4],
        nine=[9],
    )
    assert changed(model, join_slices, rtol=0) == ["Split", "Split"]
