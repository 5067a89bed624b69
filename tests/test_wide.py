"""The list of tests that take long names tests that are there."""

from pathlib import Path

import pytest

from tests.wide import TABLES, WIDE, wide

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [*WIDE, *sorted(TABLES)])
def test_it_is_there(name):
    file, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}" in (ROOT / file).read_text()


def test_every_fourth_case_of_a_table_is_tried_in_the_short_run():
    table = min(TABLES)
    others = [f"{table}[{letter}]" for letter in "abcdefg"]
    names = [others[0], "tests/test_wide.py::test_it", *others[1:]]
    short = [name for name, is_wide in zip(names, wide(names), strict=True) if not is_wide]
    assert short == [others[0], "tests/test_wide.py::test_it", others[4]]
