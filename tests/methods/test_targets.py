"""Targets: validated when written down, and read from a command line."""

import numpy as np
import pytest

import probegen as pg
from probegen.errors import SpecError
from probegen.methods.targets import checked_target, parse_target


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("max", "'argmax', 'input', a class index"),
        (True, "a class index"),
        ((), "a tuple"),
        (1.0, "got 1.0"),
        ((1, "a"), "a tuple"),
    ],
)
def test_refusals_say_what_would_work(target, says):
    with pytest.raises(SpecError, match=says):
        pg.Saliency(target=target)


def test_numbers_of_numpy_become_plain_ones():
    assert checked_target([np.int64(2), None]) == (2, None)
    assert type(checked_target(np.int32(3))) is int
    assert checked_target(len) is len


@pytest.mark.parametrize(
    ("text", "target"),
    [("argmax", "argmax"), ("input", "input"), ("7", 7), ("(None, 3)", (None, 3))],
)
def test_parse_target(text, target):
    assert parse_target(text) == target


def test_parse_target_refuses_words():
    with pytest.raises(SpecError, match="'argmax'"):
        parse_target("cat")
