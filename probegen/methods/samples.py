"""The points at which a method takes gradients, where that is not at the input itself alone.

A method's `samples` returns one of these. The engines run the model and its gradient at each
point, in a loop, and hand the weighted sum of the gradients to the method's `combine`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.operations import Operations, T


class Samples(abc.ABC):
    """Points around the value of a tensor, each with a weight.

    The class that is explained, and the masks, are those of the value itself at every point.

    Attributes:
        weights: a number for each point: what its gradient counts.
    """

    weights: Sequence[float]

    @abc.abstractmethod
    def entries(self) -> tuple[Any, ...]:
        """Returns arrays with one entry a point (the first axis), which `point` gets one of."""

    @abc.abstractmethod
    def once(self, ops: Operations[T], value: T) -> tuple[T, ...]:
        """Returns what all points share, computed once."""

    @abc.abstractmethod
    def point(self, ops: Operations[T], value: T, once: Sequence[T], entry: Sequence[T]) -> T:
        """Returns one point.

        Args:
            ops: the array operations.
            value: the tensor's own value.
            once: what `once` returned.
            entry: this point's entry of each array of `entries`, of the element type of `value`.
        """


@dataclasses.dataclass(frozen=True)
class Line(Samples):
    """Points on the straight line from a baseline to the value.

    Attributes:
        fractions: where each point lies: 0 is the baseline, 1 the value.
        weights: of the points.
        baseline: the value of every element of the baseline.
    """

    fractions: tuple[float, ...]
    weights: tuple[float, ...]
    baseline: float = 0.0

    def entries(self) -> tuple[Any, ...]:
        """Returns the fractions."""
        return (self.fractions,)

    def once(self, ops: Operations[T], value: T) -> tuple[T, ...]:
        """Returns the way from the baseline to the value."""
        return (ops.sub(value, self.baseline),)

    def point(
        self,
        ops: Operations[T],
        value: T,  # noqa: ARG002
        once: Sequence[T],
        entry: Sequence[T],
    ) -> T:
        """Returns the baseline plus a fraction of the way."""
        return ops.add(ops.mul(once[0], entry[0]), self.baseline)


def midpoints(steps: int, baseline: float) -> Line:
    """Returns the points of the midpoint rule: the middles of `steps` equal pieces of the line."""
    fractions = tuple((k + 0.5) / steps for k in range(steps))
    return Line(fractions, (1.0 / steps,) * steps, baseline)


def shifts_of(samples: Samples, value: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[Any]]:
    """Yields by what each point differs from the value, computed by numpy in float64."""
    ops = NumpyOperations()
    once = samples.once(ops, value)
    entries = [np.asarray(e, np.float64) for e in samples.entries()]
    for k in range(len(samples.weights)):
        yield np.asarray(samples.point(ops, value, once, [e[k] for e in entries]) - value)
