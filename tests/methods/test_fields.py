"""Fields of probes are checked where they are given."""

import pytest

import probegen as pg
from probegen.errors import SpecError


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.Saliency(name=""), r"Saliency\(name=\.\.\.\) takes a non-empty string or None"),
        (lambda: pg.Saliency(name="  "), "a non-empty string"),
        (lambda: pg.Saliency(name=3), "a non-empty string"),
        (lambda: pg.Saliency(logits=1), "logits= takes True or False, got 1"),
        (lambda: pg.Activations("a", "median"), r"reduce= takes one of .*'mean'.*got 'median'"),
        (lambda: pg.Activations("a", dtype="int8"), r"dtype= takes one of .*got 'int8'"),
        (lambda: pg.Activations("a", axes=(1,)), "give reduce='mean' too"),
        (lambda: pg.Activations("a", "mean", axes="time"), r"axes= takes one of 'spatial', 'chan"),
        (lambda: pg.Activations("a", "mean", axes=(0, 1)), "axes= holds 0, the batch axis"),
        (lambda: pg.Activations("a", "mean", axes=()), "axes= is empty"),
        (lambda: pg.Activations("a", channels=[]), "channels= is empty"),
        (lambda: pg.Activations("a", channels=[1.5]), r"channels= takes whole numbers, got \[1.5"),
    ],
)
def test_fields_are_checked(make, says):
    with pytest.raises(SpecError, match=says):
        make()


def test_whole_numbers_become_tuples():
    assert pg.Activations("a", channels=3).channels == (3,)
    assert pg.Activations("a", channels=[4, 0]).channels == (4, 0)
    assert pg.Activations("a", "mean", axes=-1).axes == (-1,)
    assert pg.Activations("a", "mean", axes="spatial").axes == "spatial"
    assert pg.Activations("a").channels is None
