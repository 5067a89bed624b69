"""Baselines: what is one, what fits a tensor, and what it comes to."""

import numpy as np
import pytest

from probegen.errors import InstrumentError, SpecError
from probegen.methods.arrays import ByName, StoredArray
from probegen.methods.baselines import (
    baseline_of,
    blurred,
    check_baseline,
    checked_baseline,
    count_of,
    described,
    is_several,
    written,
)
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import Place

OPS = NumpyOperations()
RNG = np.random.default_rng(2)
IMAGE = Place("image", ("batch", "height", "width", "channel"), ("image",))
AGE = Place("age", ("batch", "feature"), ("age",), 1)
FIRST = Place("x", ("time", "batch", "feature"))
SIZES = {"image": (None, 6, 5, 3), "age": (None, 4), "x": (7, None, 2)}


def places(*which):
    return [(place, SIZES[place.name]) for place in which]


@pytest.mark.parametrize("value", [0, 0.5, np.float32(1), "blur", "blur:2.5"])
def test_numbers_and_words(value):
    found = checked_baseline(value, "baseline")
    assert found == value
    assert checked_baseline(found, "baseline") is found
    assert isinstance(found, str | float)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "mean", "blur:0", "blur:x", None, True, {}, {1: 0}]
)
def test_what_is_none(value):
    with pytest.raises(SpecError, match="baseline= takes"):
        checked_baseline(value, "baseline")


def test_tables_do_not_nest():
    with pytest.raises(SpecError, match="not tables within"):
        checked_baseline({"a": {"b": 0}}, "baseline")


def test_tables_by_name():
    found = checked_baseline({"image": "blur", "age": [1, 2, 3, 4]}, "baseline")
    assert isinstance(found, ByName)
    assert baseline_of(found, IMAGE) == "blur"
    assert isinstance(baseline_of(found, AGE), StoredArray)
    assert baseline_of(found, FIRST) is None
    assert baseline_of(0.5, FIRST) == 0.5
    check_baseline(found, "b", places(IMAGE, AGE))
    assert described(found) == {"image": {"blur": 10.0}, "age": {"shape": [4]}}


FITTING = {
    "one": (IMAGE, (6, 5, 3), False),
    "of each channel": (IMAGE, (1, 1, 3), False),
    "several": (IMAGE, (2, 6, 5, 3), True),
    "several of each channel": (IMAGE, (4, 1, 1, 3), True),
    "a vector": (AGE, (4,), False),
    "several vectors": (AGE, (9, 4), True),
    "the batch within": (FIRST, (7, 2), False),
    "several with the batch within": (FIRST, (3, 7, 2), True),
}


@pytest.mark.parametrize("case", FITTING)
def test_arrays_that_fit(case):
    place, shape, several = FITTING[case]
    array = RNG.normal(size=shape)
    baseline = checked_baseline(array, "baseline")
    check_baseline(baseline, "b", places(place))
    assert is_several(baseline, place) == several
    assert count_of(baseline, [place]) == (shape[0] if several else None)
    value = np.zeros([3 if n is None else n for n in SIZES[place.name]])
    found = written(OPS, baseline, value, place)
    behind = array if several else array[None]
    at = place.axes.index("batch")
    for row, one in zip(found if several else found[None], behind, strict=True):
        expected = np.broadcast_to(np.expand_dims(one, at), value.shape)
        np.testing.assert_array_equal(np.broadcast_to(row, value.shape), expected)


@pytest.mark.parametrize(
    ("value", "which", "says"),
    [
        (np.ones((5, 6, 3)), [IMAGE], r"has the shape \(5, 6, 3\) for 'image'.* \(6, 5, 3\)"),
        (np.ones((6, 5)), [IMAGE], r"Expected \(6, 5, 3\), or \(n, 6, 5, 3\) for several"),
        (np.ones((2, 1, 6, 5, 3)), [IMAGE], r"Expected \(6, 5, 3\)"),
        (np.ones(3), [AGE], r"Expected \(4,\), or \(n, 4\) for several; an axis of size 1"),
        (np.ones(4), [IMAGE, AGE], r"one array, and several .* 'image' \[6, 5, 3\], 'age' \[4\]"),
        ({"image": 0.0}, [IMAGE, AGE], "says nothing for 'age'"),
        ({"imag": 0.0}, [IMAGE], r"names 'imag', which is not .* Did you mean 'image'\?"),
        (
            {"image": np.ones((2, 6, 5, 3)), "age": np.ones((3, 4))},
            [IMAGE, AGE],
            r"as many arrays for each tensor, got \{'image': 2, 'age': 3\}",
        ),
        ("blur", [AGE], "blurs over positions, and 'age' has the axes batch, feature"),
    ],
)
def test_arrays_that_do_not_fit(value, which, says):
    baseline = checked_baseline(value, "baseline")
    with pytest.raises(InstrumentError, match=says):
        check_baseline(baseline, "b", places(*which))


def test_open_sizes_take_arrays_of_size_1_alone():
    place = Place("x", ("batch", "time", "feature"))
    check_baseline(checked_baseline(np.ones((1, 4)), "b"), "b", [(place, (None, None, 4))])
    with pytest.raises(InstrumentError, match=r"\(\?, 4\).*takes any size \(\?\), only 1 fits"):
        check_baseline(checked_baseline(np.ones((9, 4)), "b"), "b", [(place, (None, None, 4))])


def test_a_background_is_several():
    check_baseline(checked_baseline(np.ones((2, 4)), "b"), "b", places(AGE), several=True)
    with pytest.raises(InstrumentError, match=r"Expected \(n, 4\)"):
        check_baseline(checked_baseline(np.ones(4), "b"), "b", places(AGE), several=True)
    both = checked_baseline({"age": 0.0, "image": np.ones((2, 6, 5, 3))}, "b")
    with pytest.raises(InstrumentError, match=r"takes an array for 'age', got 0\.0"):
        check_baseline(both, "b", places(IMAGE, AGE), several=True)


def blurred_line(line, sigma):
    """One line, an element after the other."""
    found = []
    for i in range(len(line)):
        weights = [
            np.exp(-((i - j) ** 2) / (2 * sigma**2)) * (abs(i - j) <= np.ceil(3 * sigma))
            for j in range(len(line))
        ]
        found.append(np.dot(weights, line) / np.sum(weights))
    return np.array(found)


@pytest.mark.parametrize("sigma", [0.4, 1.5, 10.0])
@pytest.mark.parametrize(
    ("axes", "over"),
    [
        (("batch", "height", "width", "channel"), (1, 2)),
        (("batch", "channel", "time"), (2,)),
        (("batch", "height", "width"), (1, 2)),
    ],
)
def test_blur_is_over_positions(axes, over, sigma):
    value = RNG.normal(size=(2, 7, 5, 3)[: len(axes)])
    expected = value
    for axis in over:
        expected = np.apply_along_axis(blurred_line, axis, expected, sigma)
    found = blurred(OPS, value, axes, sigma)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    even = np.full((1, 7, 5, 3)[: len(axes)], 2.5)
    np.testing.assert_allclose(blurred(OPS, even, axes, sigma), even)
