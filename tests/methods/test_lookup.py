"""Probes as callers pass them: lists, one alone, and what is none."""

import pytest

import probegen as pg
from probegen.errors import SpecError
from probegen.methods.lookup import as_probes

ONE, OTHER = pg.Saliency(), pg.Activations("a")


def test_one_probe_several_or_none():
    assert as_probes(ONE) == (ONE,)
    assert as_probes([ONE, OTHER]) == (ONE, OTHER)
    assert as_probes((OTHER,)) == (OTHER,)
    assert as_probes([]) == ()


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        ("saliency", r"a list of probes such as \[pg.Saliency\(\)\], got 'saliency'"),
        (None, "a list of probes .* got None"),
        (iter([ONE]), "a list of probes"),
        ([ONE, pg.GradCAM], r"GradCAM is a class; write pg.GradCAM\(\.\.\.\)"),
        ([ONE, int], "<class 'int'> is no probe"),
        (["saliency"], "'saliency' is no probe"),
    ],
)
def test_what_is_no_probe(probes, says):
    with pytest.raises(SpecError, match=says):
        as_probes(probes)
