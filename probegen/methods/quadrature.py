"""Rules that put an integral over [0, 1] together from values at some points."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

#: Points, and what the value at each counts.
Quadrature = tuple[tuple[float, ...], tuple[float, ...]]


def _midpoint(steps: int) -> Quadrature:
    """The middles of `steps` equal pieces; exact for polynomials of degree 1."""
    return tuple((k + 0.5) / steps for k in range(steps)), (1.0 / steps,) * steps


def _trapezoid(steps: int) -> Quadrature:
    """`steps` points at equal distances, both ends among them; exact for degree 1."""
    inner = 1.0 / (steps - 1)
    weights = (inner / 2, *[inner] * (steps - 2), inner / 2)
    return tuple(k / (steps - 1) for k in range(steps)), weights


def _gauss_legendre(steps: int) -> Quadrature:
    """The zeros of a Legendre polynomial; exact for degree 2 steps - 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return tuple(((points + 1) / 2).tolist()), tuple((weights / 2).tolist())


#: Name of a rule -> points and weights of a number of steps.
RULES: Mapping[str, Callable[[int], Quadrature]] = {
    "midpoint": _midpoint,
    "trapezoid": _trapezoid,
    "gauss_legendre": _gauss_legendre,
}

#: The smallest number of steps of a rule, where that is not 1.
AT_LEAST = {"trapezoid": 2}
