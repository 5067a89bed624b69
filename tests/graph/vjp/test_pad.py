"""Gradients of Pad: every mode, cutting as well as filling, sizes open throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, check, uniform, written
from tests.reference_spatial import pad_gradient

X = (2, 4, 5, 3)


def pad(
    name: str,
    widths: list[tuple[int, int]],
    mode: str = "constant",
    x: tuple[int, ...] = X,
    axes: list[int] | None = None,
    **more: Any,
) -> Case:
    """Returns a Pad by `widths`, one pair an axis of `axes`, held against numpy's pad."""
    chosen = range(len(x)) if axes is None else [axis % len(x) for axis in axes]
    full = [(0, 0)] * len(x)
    for axis, pair in zip(chosen, widths, strict=True):
        full[axis] = pair
    before, after = zip(*widths, strict=True)
    inputs = [uniform(*x), np.array([*before, *after])]
    if axes is not None:
        inputs += [None, np.array(axes)]
    return Case(
        op="Pad",
        inputs=inputs,
        attributes={"mode": mode},
        constants=[1, 3],
        twin=lambda dys, x, *_: [pad_gradient(dys[0], x, full, mode)],
        name=f"{mode}, {name}",
        **{"opset": 19, **more},
    )


SPATIAL = [(0, 0), (0, 0), (2, 1), (1, 2)]

CASES = [
    pad("spatial", SPATIAL),
    pad("opset 13", SPATIAL, opset=13),
    pad("one side", [(0, 0), (0, 0), (0, 2), (1, 0)]),
    pad("nothing", [(0, 0)] * 4),
    pad("cut", [(0, 0), (-1, 0), (-1, -2), (0, -1)]),
    pad("cut and fill", [(0, 0), (1, -2), (-1, 2), (0, 0)]),
    pad("axes", [(1, 2), (0, 1)], axes=[-1, 1]),
    pad("vector", [(3, 1)], x=(4,)),
    pad("spatial", SPATIAL, "reflect", opset=13),
    pad("as wide as can be", [(0, 0), (3, 3), (4, 0), (0, 2)], "reflect"),
    pad("axes", [(2, 2), (1, 0)], "reflect", axes=[2, -1]),
    pad("spatial", SPATIAL, "edge", opset=13),
    pad("wide", [(0, 0), (5, 1), (0, 7), (3, 0)], "edge"),
    pad("spatial", SPATIAL, "wrap"),
    pad("as wide as can be", [(0, 0), (4, 4), (5, 0), (0, 3)], "wrap"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_that_of_numpy_pad(case: Case) -> None:
    check(case)


def test_the_value_to_fill_with_gets_the_rest() -> None:
    check(
        Case(
            op="Pad",
            inputs=[uniform(*X), np.array([0, 1, 0, 0, 2, 0, -1, 1]), np.array(0.5)],
            constants=[1],
            batch={0: {0: "batch"}},
            rtol=1e-8,
        )
    )


def test_widths_may_be_computed_at_run_time() -> None:
    check(
        Case(
            op="Pad",
            inputs=[uniform(2, 4, 3), np.array([0, 1, 0, 0, -2, 2])],
            batch={0: {0: "batch"}},
            ranks={0: 3},
            open_all=False,
        )
    )


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_zero_padding_is_one_cut(mode: str) -> None:
    found = written(pad("", SPATIAL, mode))
    assert (found == ["Slice"]) == (mode == "constant")


def test_widths_at_run_time_are_refused_where_elements_move() -> None:
    case = Case(
        op="Pad",
        inputs=[uniform(2, 4, 3), np.array([0, 1, 0, 0, 2, 2])],
        attributes={"mode": "reflect"},
        ranks={0: 3},
    )
    with pytest.raises(UnsupportedOpsError, match="widths are computed at run time"):
        written(case)


def test_cutting_and_reflecting_at_once_is_refused() -> None:
    case = pad("", [(0, 0), (0, 0), (2, 0), (0, -1)], "reflect")
    with pytest.raises(UnsupportedOpsError, match="both cuts and fills in mode 'reflect'"):
        written(case)


def test_wrapping_around_more_than_once_is_refused() -> None:
    whole = pad("", [(0, 0), (0, 0), (5, 0), (0, 3)], "wrap")
    assert written(whole)
    case = pad("", [(0, 0), (0, 0), (0, 0), (0, 4)], "wrap")
    with pytest.raises(UnsupportedOpsError, match="an axis of 3 entries around more than once"):
        written(case)
