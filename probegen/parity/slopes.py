"""One-sided slopes of a model's scores, at one point or summed over the points of a path.

A path may have a point on a kink: integrated gradients by the trapezoid rule begin at the
baseline, and where that is 0 and layers have no biases, all their rectifiers stand on their
kinks. A rule has one slope for all of them, by its convention; a step to any side goes up in some
and down in others. Where they cancel out, the slopes to both sides even agree, and refute a
gradient that is right. Such a point is found along random directions, in which units do not
cancel out. What it adds counts as anything from nothing to twice the mean of both sides: a
rectifier has slope 0 to one side. The other points say as much as before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Random directions and steps in which kinks are looked for, from large to small, and what part of
#: the slopes both sides differ by there.
_DIRECTIONS, _STEPS, _APART = 4, (1e-3, 1e-4), 0.1


@dataclasses.dataclass(frozen=True)
class Slopes:
    """One-sided slopes of the scores of a batch along a direction, at one step.

    Attributes:
        ahead: from the sample on.
        behind: up to the sample.
        rounding: what the slopes are uncertain by.
    """

    ahead: Array
    behind: Array
    rounding: Array


class Points:
    """Where gradients are taken: one point, or those of a path.

    Attributes:
        start: the score of each sample, `[batch]`, summed over the points by their weights.
        noise: what the scores are uncertain by, `[batch]`.

    Args:
        each: what the scores are at each point, times its weight, `[points, batch]`, where the
            tensor is moved by a shift, rows first.
        base: the tensor, rows first.
    """

    def __init__(self, each: Callable[[Array], Array], base: Array) -> None:
        self._each, self._base = each, base
        self._start = each(np.zeros(()))
        self.start: Array = self._start.sum(axis=0)
        self.noise: Array = np.zeros(len(base))

    def __len__(self) -> int:
        return len(self._start)

    def score(self, shift: Array) -> Array:
        """Returns the score of each sample where the tensor is moved, `[batch]`."""
        found: Array = self._each(shift).sum(axis=0)
        return found

    def slopes(self, direction: Array, step: float) -> Slopes:
        """Returns the slopes along a direction.

        Args:
            direction: of unit length in each sample.
            step: relative to the length of the sample.
        """
        ahead, behind = self._sides(direction, step).sum(axis=1)
        return Slopes(ahead, behind, self.noise / self._length_of(step))

    def with_kinks(self, direction: Array, slopes: Mapping[float, Slopes]) -> dict[float, Slopes]:
        """Returns slopes that lie as far apart as the gradients that points on kinks may have.

        Args:
            direction: along which they were taken.
            slopes: step -> the slopes at it.
        """
        found = {}
        for step, at in slopes.items():
            sides = np.where(self._kinked, self._sides(direction, step), 0.0)
            others = np.stack([at.ahead, at.behind]) - sides.sum(axis=1)
            middle = sides.mean(axis=0)
            apart = np.maximum(np.abs(middle), np.abs(sides[0] - sides[1]) / 2)
            found[step] = Slopes(
                ahead=others.max(axis=0) + (middle + apart).sum(axis=0),
                behind=others.min(axis=0) + (middle - apart).sum(axis=0),
                rounding=at.rounding,
            )
        return found

    @functools.cached_property
    def on_kinks(self) -> npt.NDArray[np.bool_]:
        """In which samples some of several points lie on a kink of the score, bool `[batch]`."""
        if len(self) == 1:
            return np.zeros(len(self._base), bool)
        return np.asarray(self._kinked.any(axis=0))

    @functools.cached_property
    def _kinked(self) -> Array:
        """Which points lie on a kink of the score, bool `[points, batch]`.

        The slopes to both sides differ there by a part of themselves, at the smaller step as well.
        """
        found = np.zeros(self._start.shape, bool)
        rng = np.random.default_rng(3)
        for _ in range(_DIRECTIONS):
            direction = rng.normal(size=self._base.shape)
            lengths = np.linalg.norm(direction.reshape(len(direction), -1), axis=1)
            sides = [self._sides(direction / self._by_row(lengths), step) for step in _STEPS]
            larger, smaller = (np.abs(ahead - behind) for ahead, behind in sides)
            seen = np.maximum(
                _APART * np.abs(sides[1]).max(axis=0), 2 * self.noise / self._length_of(_STEPS[1])
            )
            found |= (smaller > seen) & (smaller > larger / 2)
        return found

    def _sides(self, direction: Array, step: float) -> Array:
        """Returns the slopes ahead and behind at each point, `[2, points, batch]`."""
        length = self._length_of(step)
        shift = direction * self._by_row(length)
        sides = [self._each(shift) - self._start, self._start - self._each(-shift)]
        return np.stack(sides) / length

    def _length_of(self, step: float) -> Array:
        """Returns how long a step is in each sample, `[batch]`."""
        sizes = np.linalg.norm(self._base.reshape(len(self._base), -1), axis=1)
        found: Array = step * np.where(sizes > 0, sizes, np.sqrt(self._base[0].size))
        return found

    def _by_row(self, values: Array) -> Array:
        return values.reshape(-1, *[1] * (self._base.ndim - 1))
