"""Products of open sizes are sizes: one string for the same factors, divided where it goes up."""

from __future__ import annotations

import pytest

from probegen.graph.core.size_products import factors_of, product_of, quotient_of, told_by_equal


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], 1),
        ([3, 7], 21),
        (["n"], "n"),
        ([1, "n", 1], "n"),
        (["t", 3, "n"], "3 * n * t"),
        (["3 * n", "2 * t"], "6 * n * t"),
        (["n", "n"], "n * n"),
        (["n", 0], 0),
        (["n", None], None),
        (["n", -1], None),
    ],
)
def test_products(sizes, expected) -> None:
    assert product_of(sizes) == expected


@pytest.mark.parametrize(
    ("whole", "part", "expected"),
    [
        ("3 * n * t", "n", "3 * t"),
        ("84 * n", "12 * n", 7),
        ("n", "n", 1),
        (21, 7, 3),
        ("6 * n", 4, None),
        ("n", "t", None),
        ("n", "n * n", None),
        (6, "n", None),
        ("n", 0, None),
        (None, 3, None),
    ],
)
def test_quotients(whole, part, expected) -> None:
    assert quotient_of(whole, part) == expected


def test_a_product_is_taken_apart_into_what_it_was_made_of() -> None:
    number, names = factors_of(product_of(["batch", 4, "time", "batch"]))
    assert (number, dict(names)) == (4, {"batch": 2, "time": 1})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("8 * n * t", "48 * n", ("t", 6)),
        ("48 * n", "8 * n * t", ("t", 6)),
        (12, "4 * t", ("t", 3)),
        ("n * t", "n * t", None),
        ("8 * n", "12 * n", None),
        ("3 * t", 4, None),
        ("4 * t", 2, None),
        ("n * n", 4, None),
        ("n", "t", None),
        ("n", 0, None),
        ("n", None, None),
    ],
)
def test_a_name_that_is_a_number_where_two_sizes_are_equal(one, other, expected) -> None:
    assert told_by_equal(one, other) == expected
