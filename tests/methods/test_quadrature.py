"""Quadrature rules: weights that sum to 1, and polynomials that they integrate exactly."""

import numpy as np
import pytest

from probegen.methods.quadrature import AT_LEAST, RULES


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_weights_and_points(rule, steps):
    points, weights = RULES[rule](steps)
    assert len(points) == len(weights) == steps
    assert sum(weights) == pytest.approx(1)
    assert list(points) == sorted(points)
    assert 0 <= points[0] < points[-1] <= 1
    np.testing.assert_allclose(points, 1 - np.array(points[::-1]), atol=1e-15)


DEGREES = {
    "midpoint": lambda _: 1,
    "trapezoid": lambda _: 1,
    "gauss_legendre": lambda steps: 2 * steps - 1,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_exact_for_polynomials_of_a_degree_and_no_further(rule, steps):
    points, weights = RULES[rule](steps)
    highest = DEGREES[rule](steps)

    def integral(degree):
        return float(np.dot(weights, np.array(points) ** degree))

    for degree in range(highest + 1):
        assert integral(degree) == pytest.approx(1 / (degree + 1), abs=1e-13)
    assert abs(integral(highest + 1) - 1 / (highest + 2)) > 1e-7


def test_the_trapezoid_rule_has_both_ends():
    assert RULES["trapezoid"](3) == ((0.0, 0.5, 1.0), (0.25, 0.5, 0.25))
    assert AT_LEAST["trapezoid"] == 2


def test_the_midpoint_rule_converges_quadratically():
    def missing(steps):
        points, weights = RULES["midpoint"](steps)
        return abs(np.dot(weights, np.exp(points)) - (np.e - 1))

    assert missing(16) / missing(32) == pytest.approx(4, rel=0.01)
