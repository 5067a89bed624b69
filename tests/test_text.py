"""How numbers of things are written."""

import pytest

from probegen.text import amount


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "entry", "1 entry"),
        (3, "entry", "3 entries"),
        (0, "axis", "0 axes"),
        (2, "class", "2 classes"),
        (2, "sample", "2 samples"),
    ],
)
def test_amounts(count, noun, text):
    assert amount(count, noun) == text
