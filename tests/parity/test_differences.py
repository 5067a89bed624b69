"""What differences of scores say of a claim: confirmed, refuted, or nothing."""

import numpy as np
import pytest

from probegen.parity.differences import CONFIRMED, OPEN, REFUTED, Slopes, verdict


def _slopes(*pairs, rounding=1e-6):
    """Slopes ahead and behind, from the largest step to the smallest."""
    return [
        Slopes(np.array([ahead]), np.array([behind]), np.array([rounding * 10**i]))
        for i, (ahead, behind) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("claim", "pairs", "said"),
    [
        (2.0, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], CONFIRMED),
        (-2.0, [(-2.02, -1.98), (-2.002, -1.998), (-2.0, -2.0)], CONFIRMED),
        # Half as much again, the wrong sign, nothing at all.
        (3.0, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], REFUTED),
        (-2.0, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], REFUTED),
        (0.0, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], REFUTED),
        (2.0, [(0.0, 0.0)] * 3, REFUTED),
        # A little off counts where slopes are sharp, not where they move from step to step.
        (2.2, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], REFUTED),
        (2.2, [(2.6, 2.5), (2.1, 2.05), (2.02, 2.0)], CONFIRMED),
        (2.09, [(2.02, 1.98), (2.002, 1.998), (2.0, 2.0)], CONFIRMED),
        (2.4, [(3.0, 3.0), (2.2, 2.15), (2.01, 1.95)], OPEN),
        # A kink: the slopes to both sides differ.
        (2.0, [(2.0, 0.0)] * 3, OPEN),
        (1.0, [(2.0, 0.0)] * 3, OPEN),
        # The next larger step does not agree that the claim is wrong.
        (3.0, [(3.0, 3.0), (3.0, 3.0), (2.0, 2.0)], OPEN),
        # That nothing changes.
        (0.0, [(0.0, 0.0)] * 3, CONFIRMED),
        (0.0, [(0.5, 0.0), (0.0, 0.0), (0.0, 0.0)], OPEN),
        (np.nan, [(2.0, 2.0)] * 3, OPEN),
    ],
)
def test_claims(claim, pairs, said):
    assert verdict(claim, _slopes(*pairs), 0) == said


@pytest.mark.parametrize("claim", [2.0, 3.0, -2.0])
def test_slopes_that_are_rounding_say_nothing(claim):
    assert verdict(claim, _slopes((2.0, 2.0), (2.0, 2.0), (2.0, 2.0), rounding=1.0), 0) == OPEN


def test_a_large_step_decides_where_the_smaller_ones_are_rounding():
    """Steps of 1e-2 stand above rounding, those of 1e-4 do not, and say what comes."""
    slopes = _slopes((2.01, 1.99), (2.2, 1.7), (9.0, -7.0), rounding=0.05)
    assert verdict(2.0, slopes, 0) == CONFIRMED
    assert verdict(3.0, slopes, 0) == REFUTED
