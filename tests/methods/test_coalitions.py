"""The matrices of KernelSHAP and LIME against plain definitions, on random games."""

import math

import numpy as np
import pytest

from probegen.errors import InstrumentError
from probegen.methods import coalitions
from tests.methods.games import constrained_fit, ridge_fit, values_over_orders


def game(players, seed):
    """A random game: the worth of each coalition by its bits."""
    return np.random.default_rng(seed).normal(size=2**players)


def worth_of(worth, kept):
    return worth[np.asarray(kept) @ (1 << np.arange(kept.shape[1]))]


def values(found, worth):
    return found.weights.T @ (worth_of(worth, found.kept) - worth[-1])


@pytest.mark.parametrize("players", [1, 2, 3, 5, 6])
def test_all_coalitions_give_the_values_over_all_orders(players):
    worth = game(players, players)
    expected = values_over_orders(
        lambda some: np.array([worth[sum(1 << i for i in some)]]), players
    )[0]
    found = values(coalitions.all_coalitions(players), worth)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert math.isclose(found.sum(), worth[-1] - worth[0], abs_tol=1e-12)


@pytest.mark.parametrize(("players", "samples"), [(5, 12), (6, 40), (7, 30), (9, 120)])
def test_drawn_coalitions_give_the_constrained_fit(players, samples):
    chosen = coalitions._chosen(players, samples, 3)
    assert len(chosen) <= samples
    kept = np.array([[i in some for i in range(players)] for some in chosen])
    worth = game(players, samples)
    expected = constrained_fit(
        kept, np.array(list(chosen.values())), worth_of(worth, kept), worth[-1], worth[0]
    )
    found = values(coalitions.kernel_coalitions(players, samples, 3), worth)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert math.isclose(found.sum(), worth[-1] - worth[0], abs_tol=1e-9)


def test_drawn_coalitions_come_with_their_complements_and_are_distinct():
    chosen = coalitions._chosen(8, 60, 1)
    everybody = frozenset(range(8))
    # Half of everybody has no complement of another size.
    assert all(everybody - some in chosen for some in chosen if len(some) != 4)
    assert math.isclose(sum(chosen.values()), 1.0)
    assert all(0 < len(some) < 8 for some in chosen)
    # Sizes 1 and 7 are taken whole: they have most of the weight.
    assert sum(len(some) in (1, 7) for some in chosen) == 16


def test_a_linear_game_is_found_exactly_by_few_coalitions():
    slopes = np.random.default_rng(5).normal(size=9)
    found = coalitions.kernel_coalitions(9, 40, 0)
    scores = found.kept @ slopes - slopes.sum()
    np.testing.assert_allclose(found.weights.T @ scores, slopes, atol=1e-9)


@pytest.mark.parametrize("samples", [2, 5])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(InstrumentError, match=rf"samples={samples} are too few .* of 9 groups"):
        coalitions.kernel_coalitions(9, samples, 0)


@pytest.mark.parametrize("seed", [0, 4])
def test_lime_is_a_ridge_regression(seed):
    players, samples, width, ridge = 5, 60, 0.4, 0.7
    found = coalitions.lime(players, samples, width, ridge, seed)
    assert found.kept.shape == (samples - 1, players)
    kept = np.vstack([np.ones((1, players), bool), found.kept])
    worth = game(players, seed)
    distance = 1 - np.sqrt(kept.sum(1) / players)
    weights = np.sqrt(np.exp(-(distance**2) / width**2))
    expected = ridge_fit(kept, weights, worth_of(worth, kept), ridge)
    np.testing.assert_allclose(values(found, worth), expected, atol=1e-9)


def test_lime_of_more_groups_than_points_is_the_same_regression():
    players, samples, width, ridge = 9, 6, 0.4, 0.7
    found = coalitions.lime(players, samples, width, ridge, 3)
    kept = np.vstack([np.ones((1, players), bool), found.kept])
    worth = game(players, 3)
    weights = np.sqrt(np.exp(-((1 - np.sqrt(kept.sum(1) / players)) ** 2) / width**2))
    expected = ridge_fit(kept, weights, worth_of(worth, kept), ridge)
    np.testing.assert_allclose(values(found, worth), expected, atol=1e-9)


def test_a_kernel_in_which_no_point_counts_is_refused():
    with pytest.raises(InstrumentError, match=r"kernel_width=1e-09 is so small .* 4 groups"):
        coalitions.lime(4, 30, 1e-9, 1.0, 0)


def test_seeds_say_what_is_drawn():
    def drawn(seed):
        return coalitions.lime(4, 30, 0.25, 1.0, seed).kept

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
