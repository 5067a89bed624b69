"""What twins of methods at points share: a function that is no polynomial, and its gradient."""

from __future__ import annotations

import dataclasses

import numpy as np

from probegen.methods.samples import NumpyWalk


@dataclasses.dataclass(frozen=True)
class Bent:
    """A function of rows: a sine and a square of their products with `weights`."""

    weights: np.ndarray

    def score(self, x):
        inner = x.reshape(len(x), -1) @ self.weights
        return np.sin(inner) + inner**2

    def gradient(self, x):
        inner = x.reshape(len(x), -1) @ self.weights
        return ((np.cos(inner) + 2 * inner)[:, None] * self.weights).reshape(x.shape)

    def explained(self, samples, value, place):
        """Returns what a method makes of the gradients at its points."""
        walk = NumpyWalk(samples.of([place]), value, place)
        for point in walk.points():
            walk.add(self.gradient(point.at), point)
        return walk.finished()
