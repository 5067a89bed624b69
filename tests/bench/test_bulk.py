"""Rates of bulk runs: the arithmetic; `make bench` runs the rest."""

import pytest

from bench.bulk import core_hours


def test_hours_of_a_core():
    assert core_hours(100) == pytest.approx(10_000_000 / 100 / 3600)
    assert core_hours(2, samples=7200) == 1
