"""The axes of what is reshaped, as products of sizes and of the batch."""

from __future__ import annotations

import pytest

from probegen.graph.core.axis_factors import SAMPLES, regrouped


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        # Heads: split off, joined with the samples, told apart again.
        ([(SAMPLES,), ("t",), (12,)], ("n", "t", 3, 4), [(SAMPLES,), ("t",), (3,), (4,)]),
        ([(SAMPLES,), (3,), ("t",), (4,)], (None, "t", 4), [(SAMPLES, 3), ("t",), (4,)]),
        ([(SAMPLES, 3), ("t",), (4,)], (None, 3, "t", 4), [(SAMPLES,), (3,), ("t",), (4,)]),
        # torch's: time in front, samples joined with heads behind it.
        ([("t",), (SAMPLES,), (12,)], ("t", None, 4), [("t",), (SAMPLES, 3), (4,)]),
        # Windows of an image.
        (
            [(SAMPLES,), (6,), (10,), (8,)],
            (None, 3, 2, 2, 5, 8),
            [(SAMPLES,), (3,), (2,), (2,), (5,), (8,)],
        ),
        ([(SAMPLES,), (3,), (2,), (7,), (8,)], (None, 7, 8), [(SAMPLES, 3, 2), (7,), (8,)]),
        # Sizes that are regrouped across one another.
        ([(SAMPLES,), (6,), (4,)], (None, 8, 3), [(SAMPLES,), (8,), (3,)]),
        # An open size that the file was traced at.
        ([("t",), (SAMPLES,), (12,)], (7, None, 4), [(7,), (SAMPLES, 3), (4,)]),
        ([(SAMPLES,), (1,), (5,)], ("n", 5), [(SAMPLES,), (5,)]),
        ([(SAMPLES,), (5,)], ("n", 1, 5), [(SAMPLES,), (1,), (5,)]),
        ([(SAMPLES,), ("t",), (4,)], (None, None, 4), [(SAMPLES,), ("t",), (4,)]),
        # Two open sizes, and one way of joining whole factors.
        ([(SAMPLES,), (4,), (16,), (9,)], (None, 16, None), [(SAMPLES, 4), (16,), (9,)]),
        ([(SAMPLES,), (2, 2), (4, 4), (9,)], (None, 16, None), [(SAMPLES, 2, 2), (4, 4), (9,)]),
        # Sizes that are products, and cut out of what is there.
        ([(SAMPLES,), (3,), ("t",), (4,)], ("3 * n", "t", 4), [(SAMPLES, 3), ("t",), (4,)]),
        ([(SAMPLES,), (6,), (4,)], ("2 * n", 3, None), [(SAMPLES, 2), (3,), (4,)]),
        ([("t",), (SAMPLES,), (4,)], ("n * t", 4), [("t", SAMPLES), (4,)]),
        ([(SAMPLES,), (5,), ("t",), (4,)], (None, 5, "4 * t"), [(SAMPLES,), (5,), ("t", 4)]),
        # All in one.
        ([(SAMPLES,), ("t",), (4,)], (None, 4), [(SAMPLES, "t"), (4,)]),
    ],
)
def test_reshapes(source, shape, expected) -> None:
    assert regrouped(tuple(source), shape, "n") == tuple(expected)


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        ([(SAMPLES,), (5,), (4,)], (3, None)),  # samples are cut into threes
        ([(SAMPLES,), (2,), ("t",), (9,)], ("2 * t", None)),  # time is joined, samples are not
        ([(SAMPLES,), (4,), (4,), (9,)], (None, 4, None)),  # which of the fours is it
    ],
)
def test_reshapes_that_cannot_be_told(source, shape) -> None:
    assert regrouped(tuple(source), shape, "n") is None


def test_one_sample_that_is_fixed_keeps_its_axis() -> None:
    fixed = ((SAMPLES,), (6,), (4,))
    assert regrouped(fixed, (1, 24), 1) == ((SAMPLES,), (6, 4))
    assert regrouped(fixed, (1, 4, 6), 1) == ((SAMPLES,), (4,), (6,))
    assert regrouped(((7,), (SAMPLES,), (4,)), (7, 1, 2, 2), 1) == ((7,), (SAMPLES,), (2,), (2,))
    assert regrouped(((SAMPLES,), (6,)), (18,), 3) == ((SAMPLES, 6),)
