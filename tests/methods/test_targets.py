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
        ("top:0", "asks for no class"),
        ("top:-1", "'top:k' for the k best"),
        ([], "a list of class indices"),
        ([None, 3], r"is a tuple: \(None, 3\)"),
        ([1, True], "a list of class indices"),
        ([2, 1, 2], "names the class 2 twice"),
        ("contrast(3, 3)", "a score from itself"),
        ("contrast(3, best)", "'argmax' or 'runner_up'"),
    ],
)
def test_refusals_say_what_would_work(target, says):
    with pytest.raises(SpecError, match=says):
        pg.Saliency(target=target)


def test_numbers_of_numpy_become_plain_ones():
    assert checked_target((np.int64(2), None)) == (2, None)
    assert type(checked_target(np.int32(3))) is int
    assert checked_target([np.int64(2), 1]) == [2, 1]
    assert checked_target(len) is len


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        (("argmax", "argmax"), "a score from itself"),
        ((np.int64(2), 2), "a score from itself"),
        ((-1, "argmax"), "class indices, 'argmax' or 'runner_up'; got -1"),
        ((1.5, "argmax"), "got 1.5"),
        ((True, 0), "got True"),
        (("input", 0), "got 'input'"),
    ],
)
def test_contrasts_of_what_is_no_two_scores(sides, says):
    with pytest.raises(SpecError, match=says):
        pg.contrast(*sides)


def test_a_target_is_a_copy_of_what_was_given():
    given = [1, 4]
    probe = pg.Saliency(target=given)
    given.append(5)
    assert probe.target == [1, 4]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("argmax", "argmax"),
        ("input", "input"),
        ("all", "all"),
        ("top:5", "top:5"),
        ("top: 05", "top:5"),
        ("7", 7),
        ("(None, 3)", (None, 3)),
        ("[1, 4]", [1, 4]),
        ("contrast(3, argmax)", pg.contrast(3, "argmax")),
        ("contrast( runner_up,0 )", pg.contrast("runner_up", 0)),
    ],
)
def test_parse_target(text, target):
    assert parse_target(text) == target


def test_parse_target_refuses_words():
    with pytest.raises(SpecError, match="'argmax'"):
        parse_target("cat")
