"""The list of tests that take long names tests that are there."""

from pathlib import Path

import pytest

from tests.wide import WIDE

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", WIDE)
def test_it_is_there(name):
    file, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}" in (ROOT / file).read_text()
