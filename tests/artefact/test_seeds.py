"""The seed of a target, entry by entry."""

import numpy as np
import pytest

from probegen.artefact.manifest import TargetSpec
from probegen.artefact.seeds import choices, seed, seeds

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


def test_the_best_classes_the_lower_index_first():
    best = TargetSpec("top", count=3)
    np.testing.assert_array_equal(choices(SCORES, best), [[1, 1], [2, 0], [0, 2]])
    first, second, _ = seeds(SCORES, best)
    np.testing.assert_array_equal(first, seed(SCORES, TargetSpec("argmax")))
    np.testing.assert_array_equal(second, [[0, 0, 1], [1, 0, 0]])


def test_the_best_class_is_another_at_each_position():
    found = choices(STEPS, TargetSpec("top", count=2))
    np.testing.assert_array_equal(found, [[[1, 0], [1, 1]], [[2, 1], [0, 2]]])
    first, _ = seeds(STEPS, TargetSpec("top", count=2))
    np.testing.assert_array_equal(first, seed(STEPS, TargetSpec("argmax")))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (TargetSpec("all", count=3), [0, 1, 2]),
        (TargetSpec("all"), [0, 1, 2]),
        (TargetSpec("list", count=2, chosen=(2, 0)), [2, 0]),
    ],
)
def test_classes_are_summed_over_positions(target, classes):
    found = seeds(STEPS, target)
    assert len(found) == len(classes)
    for one, index in zip(found, classes, strict=True):
        np.testing.assert_array_equal(one, seed(STEPS, TargetSpec("index", (None, index))))


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((0, "argmax"), [[1, -1, 0], [1, -1, 0]]),
        (("runner_up", 0), [[-1, 0, 1], [0, 0, 0]]),
        (("argmax", "runner_up"), [[0, 1, -1], [-1, 1, 0]]),
        ((2, 1), [[0, -1, 1], [0, -1, 1]]),
    ],
)
def test_a_contrast(sides, expected):
    found = seed(SCORES, TargetSpec("contrast", chosen=sides))
    np.testing.assert_array_equal(found, expected)


def test_channels_of_a_layer_are_summed_before_the_best_is_told():
    """At no position is channel 2 the best, in sum it is."""
    layer = np.array([[[5.0, 0.0, 4.0], [0.0, 5.0, 4.0]], [[1.0, 0.0, 0.0], [0.0, 2.0, 2.0]]])
    best = TargetSpec("argmax", layer="conv")
    np.testing.assert_array_equal(seed(layer, best)[..., 2], [[1, 1], [0, 0]])
    np.testing.assert_array_equal(seed(layer, best)[..., 1], [[0, 0], [1, 1]])
    two = TargetSpec("top", count=2, layer="conv")
    np.testing.assert_array_equal(choices(layer, two)[..., 0], [[2, 1], [0, 2]])
    np.testing.assert_array_equal(seeds(layer, two)[0], seed(layer, best))
    asked = TargetSpec("input", layer="conv")
    np.testing.assert_array_equal(
        seed(layer, asked, np.array([-1, 0])).sum(1), [[0, 0, 2], [2, 0, 0]]
    )
    contrast = TargetSpec("contrast", chosen=("argmax", 0), layer="conv")
    np.testing.assert_array_equal(seed(layer, contrast).sum(1), [[-2, 0, 2], [-2, 2, 0]])
