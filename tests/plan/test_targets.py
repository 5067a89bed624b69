"""Targets against the shapes of outputs: what is taken, and what is refused with the bounds."""

import pytest

from probegen.errors import InstrumentError
from probegen.plan.targets import target_index

VECTOR, SEQUENCE, OPEN = (None, 3), (None, 5, 3), (None, None, None)


@pytest.mark.parametrize(
    ("target", "shape", "axis", "expected"),
    [
        ("argmax", VECTOR, -1, ("argmax", None)),
        ("argmax", (None,), None, ("argmax", None)),
        ("input", VECTOR, -1, ("input", None)),
        (0, VECTOR, -1, ("index", (0,))),
        (2, VECTOR, -1, ("index", (2,))),
        (2, SEQUENCE, -1, ("index", (None, 2))),
        (4, SEQUENCE, 1, ("index", (4, None))),
        (2, SEQUENCE, None, ("index", (None, 2))),
        (99, OPEN, -1, ("index", (None, 99))),
        (0, (None,), None, ("index", ())),
        ((1,), VECTOR, -1, ("index", (1,))),
        ((-3,), VECTOR, -1, ("index", (-3,))),
        ((None, 2), SEQUENCE, -1, ("index", (None, 2))),
        ((-5, 0), SEQUENCE, -1, ("index", (-5, 0))),
        ((77, None), OPEN, -1, ("index", (77, None))),
    ],
)
def test_what_fits(target, shape, axis, expected):
    assert target_index(target, shape, "y", axis) == expected


@pytest.mark.parametrize(
    ("target", "shape", "axis", "says"),
    [
        ("input", (None,), None, "is one number a sample; target='input' has no use"),
        (-1, VECTOR, -1, r"target -1 is out of range: the last axis .* has 3 entries \(0 to 2\)"),
        (3, VECTOR, -1, r"the last axis of output 'y' \(None, 3\) has 3 entries \(0 to 2\)"),
        (5, SEQUENCE, 1, r"the class axis of output 'y' \(None, 5, 3\) has 5 entries \(0 to 4\)"),
        (1, (None, 1), -1, r"has 1 entries \(its single unit is target 0 or 'argmax'\)"),
        (1, (None,), None, r"has 1 entries \(its single unit is target 0 or 'argmax'\)"),
        (-1, OPEN, -1, "target -1 is out of range"),
        ((1,), SEQUENCE, -1, r"has 1 entries; .* takes one for each of its 2 axes"),
        ((1, 2), VECTOR, -1, r"has 2 entries; .* takes one for each of its 1 axes"),
        ((5, 0), SEQUENCE, -1, r"target \(5, 0\) is out of range"),
        ((0, -4), SEQUENCE, -1, r"target \(0, -4\) is out of range"),
    ],
)
def test_what_does_not_fit(target, shape, axis, says):
    with pytest.raises(InstrumentError, match=says):
        target_index(target, shape, "y", axis)
