"""The seed of a target, entry by entry."""

import numpy as np
import pytest

from probegen.artefact.manifest import TargetSpec
from probegen.plan.seeds import seed

#: Ties, and the largest of a row of negative numbers.
SCORES = np.array([[1.0, 3.0, 3.0], [-2.0, -1.0, -4.0]])
#: `[2, 2, 3]`.
STEPS = np.stack([SCORES, SCORES[:, ::-1]], axis=1)


def test_the_first_of_the_largest():
    found = seed(SCORES, TargetSpec("argmax"))
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 1, 0]])
    assert found.dtype == np.float64
    expected = [[[0, 1, 0], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]]
    np.testing.assert_array_equal(seed(STEPS, TargetSpec("argmax")), expected)


def test_what_is_no_number_is_larger_than_all():
    scores = np.array([[1.0, 3.0, np.nan], [5.0, -np.inf, 4.0]], np.float32)
    np.testing.assert_array_equal(seed(scores, TargetSpec("argmax")), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("mode", ["argmax", "callable"])
def test_one_number_a_sample(mode):
    np.testing.assert_array_equal(seed(np.array([2.0, -1.0, 0.0]), TargetSpec(mode)), np.ones(3))


def test_what_a_callable_gives_is_summed_up():
    np.testing.assert_array_equal(seed(SCORES, TargetSpec("callable")), np.ones((2, 3)))


def test_a_class_of_the_request():
    asked = TargetSpec("input")
    found = seed(SCORES, asked, np.array([0, -1]))
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 1, 0]])
    found = seed(STEPS, asked, np.array([-1, 2]))
    expected = [[[0, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 0, 1]]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(seed(SCORES, asked), [[0, 1, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ((None, 2), [[0, 0, 1], [0, 0, 1]]),
        ((None, -1), [[0, 0, 1], [0, 0, 1]]),
        ((1, None), [[0, 0, 0], [1, 1, 1]]),
        ((-2, 0), [[1, 0, 0], [0, 0, 0]]),
        ((None, None), [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_a_fixed_entry(index, expected):
    found = seed(STEPS, TargetSpec("index", index))
    np.testing.assert_array_equal(found, [expected, expected])
