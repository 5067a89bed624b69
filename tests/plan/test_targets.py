"""Targets against the shapes of outputs: what is taken, and what is refused with the bounds."""

import pytest

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError
from probegen.methods.targets import contrast
from probegen.plan.targets import target_index, target_spec

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
    assert target_index(target, shape, "output 'y'", axis) == expected


@pytest.mark.parametrize(
    ("target", "shape", "axis", "says"),
    [
        ("input", (None,), None, "is one number a sample; target='input' has no use"),
        (-1, VECTOR, -1, r"target -1 is out of range: the last axis .* has 3 entries \(0 to 2\)"),
        (3, VECTOR, -1, r"the last axis of output 'y' \(None, 3\) has 3 entries \(0 to 2\)"),
        (5, SEQUENCE, 1, r"the class axis of output 'y' \(None, 5, 3\) has 5 entries \(0 to 4\)"),
        (1, (None, 1), -1, r"has 1 entry \(its single unit is target 0 or 'argmax'\)"),
        (1, (None,), None, r"has 1 entry \(its single unit is target 0 or 'argmax'\)"),
        (-1, OPEN, -1, r"target -1 is out of range: .* is counted from 0\.$"),
        ((1,), SEQUENCE, -1, r"has 1 entry; .* takes one for each axis behind the batch, 2 in all"),
        (
            (1, 2),
            VECTOR,
            -1,
            r"has 2 entries; .* takes one for each axis behind the batch, 1 in all",
        ),
        ((5, 0), SEQUENCE, -1, r"target \(5, 0\) is out of range"),
        ((0, -4), SEQUENCE, -1, r"target \(0, -4\) is out of range"),
    ],
)
def test_what_does_not_fit(target, shape, axis, says):
    with pytest.raises(InstrumentError, match=says):
        target_index(target, shape, "output 'y'", axis)


@pytest.mark.parametrize(
    ("target", "shape", "axis", "expected"),
    [
        ("top:3", VECTOR, -1, TargetSpec("top", count=3)),
        ("top:1", (None, 1), -1, TargetSpec("top", count=1)),
        ("top:7", OPEN, -1, TargetSpec("top", count=7)),
        ("all", VECTOR, -1, TargetSpec("all", count=3)),
        ("all", SEQUENCE, 1, TargetSpec("all", count=5)),
        ("all", OPEN, -1, TargetSpec("all")),
        ([2, 0], VECTOR, -1, TargetSpec("list", count=2, chosen=(2, 0))),
        ([99], OPEN, -1, TargetSpec("list", count=1, chosen=(99,))),
        (contrast(2, "argmax"), VECTOR, -1, TargetSpec("contrast", chosen=(2, "argmax"))),
        (1, VECTOR, -1, TargetSpec("index", (1,))),
        ("argmax", VECTOR, -1, TargetSpec("argmax")),
    ],
)
def test_what_is_differentiated(target, shape, axis, expected):
    assert target_spec(target, shape, "output 'y'", axis) == expected


@pytest.mark.parametrize(
    ("target", "shape", "axis", "says"),
    [
        ("top:4", VECTOR, -1, r"the 4 best classes, and output 'y' \(None, 3\) has 3; 'top:3'"),
        ("top:2", (None, 1), -1, "has 1; 'top:1' or 'all'"),
        ("top:2", (None,), None, "has none: it is one number a sample"),
        ("all", (None,), None, "has none: it is one number a sample"),
        ([0], (None,), None, "has none: it is one number a sample"),
        (contrast(0, "argmax"), (None,), None, "has none"),
        ("all", (None, 5, 4), None, "has none: it has positions alone"),
        ([1, 3], VECTOR, -1, r"names the class 3, .*: legal are 0 to 2"),
        ([-1], OPEN, -1, "names the class -1, .*: legal are 0 or more"),
        (contrast("argmax", 3), VECTOR, -1, "names the class 3"),
        (contrast("argmax", "runner_up"), (None, 1), -1, "compares two classes, .* has one"),
    ],
)
def test_classes_that_are_not_there(target, shape, axis, says):
    with pytest.raises(InstrumentError, match=says):
        target_spec(target, shape, "output 'y'", axis)
