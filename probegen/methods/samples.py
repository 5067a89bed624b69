"""The points at which a method takes gradients, where that is not at the input itself alone.

A method's `gradients_at` returns one of these. The engines run the model and its gradient at each
point, in a loop that carries sums from point to point: `start` says what they are before the first
point, `step` what a gradient adds to them, `finish` what is made of them in the end. By default
that is one sum: of the gradients, each times what it counts.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from probegen.methods.axes import Axes
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.operations import Operations, T


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor that is explained, as far as a method has to know which one it is.

    Attributes:
        name: what its explanation is called after: an input, or a layer and its call.
        axes: its axes.
        inputs: names of the model inputs that it stands for; none for a layer's output.
        number: which one it is of the tensors that the probe explains, from 0.
    """

    name: str = ""
    axes: Axes = ()
    inputs: tuple[str, ...] = ()
    number: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What fields that give something for each tensor may call it."""
        return tuple(dict.fromkeys((self.name, *self.inputs)))


@dataclasses.dataclass(frozen=True)
class Point(Generic[T]):
    """A point, and what a method may need of it.

    Attributes:
        place: which tensor is moved.
        value: the tensor as it is.
        once: what `Samples.once` returned for it.
        entry: this point's entry of each array of `Samples.entries`.
        at: the tensor at this point.
        weight: what the point's gradient counts; None where all count the same.
    """

    place: Place
    value: T
    once: Sequence[T]
    entry: Sequence[T]
    at: T
    weight: T | None = None


class Samples(abc.ABC):
    """Points around the value of a tensor, each with a weight.

    The class that is explained, and the masks, are those of the value itself at every point.

    Attributes:
        weights: a number for each point: what its gradient counts.
    """

    weights: Sequence[float]

    def of(self, places: Sequence[Place]) -> Samples:
        """Returns the points for tensors that move together.

        What else is asked of points is asked of what this returns: how many there are may depend
        on the tensors.
        """
        del places
        return self

    # -- where -----------------------------------------------------------------------------

    @abc.abstractmethod
    def entries(self) -> tuple[Any, ...]:
        """Returns arrays with one entry a point (the first axis), which `point` gets one of."""

    @abc.abstractmethod
    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns what all points share, computed once."""

    @abc.abstractmethod
    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns one point.

        Args:
            ops: the array operations.
            value: the tensor's own value.
            place: which tensor that is.
            once: what `once` returned.
            entry: this point's entry of each array of `entries`: of its own element type where
                that is an array of numpy, else of that of `value`.
        """

    # -- what is made of the gradients -----------------------------------------------------

    def factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns what a point's gradient is multiplied by, element by element; None for 1."""
        del ops, point
        return None

    def whole_factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns what a point's gradient is multiplied by, `finish` included, with `is_sum`."""
        return self.factor(ops, point)

    def line_start(self, ops: Operations[T], value: T, place: Place) -> T | None:
        """Returns where the straight line starts that all points lie on, of the value's shape.

        Their first entry is then the fraction of the way from there to the value, and what comes
        out is what `of_sum` makes of the weighted sum of the gradients, without factors. None where
        the points lie on no line, or more is made of the gradients.
        """
        del ops, value, place
        return None

    @property
    def is_sum(self) -> bool:
        """Whether what comes out is the weighted sum of the gradients times `whole_factor`."""
        return True

    def start(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns the sums before the first point."""
        del place
        return (ops.zeros_like(value),)

    def step(
        self, ops: Operations[T], sums: Sequence[T], gradient: T, point: Point[T]
    ) -> tuple[T, ...]:
        """Returns the sums after a point."""
        factor = self.factor(ops, point)
        if factor is not None:
            gradient = ops.mul(factor, gradient)
        if point.weight is not None:
            gradient = ops.mul(gradient, point.weight)
        return (ops.add(sums[0], gradient),)

    def finish(
        self, ops: Operations[T], sums: Sequence[T], value: T, place: Place, once: Sequence[T]
    ) -> T:
        """Returns what comes out after the last point."""
        total = ops.mul(sums[0], self.weights[0]) if self.equal_weights else sums[0]
        made = self.of_sum(ops, total, value, place, once)
        return total if made is None else made

    def of_sum(
        self, ops: Operations[T], total: T, value: T, place: Place, once: Sequence[T]
    ) -> T | None:
        """Returns what comes out, of the weighted sum of the gradients times their factors.

        None where that sum does not tell.
        """
        del ops, value, place, once
        return total

    @property
    def equal_weights(self) -> bool:
        """Whether all points count the same."""
        return all(w == self.weights[0] for w in self.weights)


@dataclasses.dataclass(frozen=True)
class SumAt(Samples):
    """The points of a method, with the weighted sum of the gradients times their factors itself.

    Attributes:
        samples: the points.
    """

    samples: Samples

    def of(self, places: Sequence[Place]) -> Samples:
        """Returns the sum at the points for some tensors."""
        return SumAt(self.samples.of(places))

    @property
    def weights(self) -> Sequence[float]:  # type: ignore[override]
        """What the points count."""
        return self.samples.weights

    def entries(self) -> tuple[Any, ...]:
        """Returns those of the points."""
        return self.samples.entries()

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns what the points share."""
        return self.samples.once(ops, value, place)

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns the point."""
        return self.samples.point(ops, value, place, once, entry)

    def line_start(self, ops: Operations[T], value: T, place: Place) -> T | None:
        """Returns where the line of the points starts."""
        return self.samples.line_start(ops, value, place)

    def factor(self, ops: Operations[T], point: Point[T]) -> T | None:
        """Returns the point's factor."""
        return self.samples.factor(ops, point)


# -- by numpy ----------------------------------------------------------------------------------


class NumpyWalk:
    """The points around one tensor, and sums over them, computed by numpy in float64."""

    def __init__(self, samples: Samples, value: npt.NDArray[Any], place: Place) -> None:
        self._ops: NumpyOperations = NumpyOperations()
        self._samples, self._place = samples, place
        self._value = value.astype(np.float64)
        self._once = samples.once(self._ops, self._value, place)
        self._entries = [_in_double(e) for e in samples.entries()]
        self._sums = samples.start(self._ops, self._value, place)

    def points(self) -> Iterator[Point[npt.NDArray[Any]]]:
        """Yields the points."""
        for k, weight in enumerate(self._samples.weights):
            entry = [e[k] for e in self._entries]
            at = self._samples.point(self._ops, self._value, self._place, self._once, entry)
            counts = None if self._samples.equal_weights else np.asarray(weight)
            yield Point(self._place, self._value, self._once, entry, np.asarray(at), counts)

    def factor(self, point: Point[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        """Returns what a point's gradient is multiplied by."""
        return self._samples.factor(self._ops, point)

    def add(self, gradient: npt.NDArray[Any], point: Point[npt.NDArray[Any]]) -> None:
        """Adds the gradient at a point to the sums."""
        self._sums = self._samples.step(self._ops, self._sums, gradient, point)

    def finished(self) -> npt.NDArray[Any]:
        """Returns what is made of the sums."""
        return np.asarray(
            self._samples.finish(self._ops, self._sums, self._value, self._place, self._once)
        )

    def of_sum(self, total: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Returns what is made of a sum of gradients; None where it does not tell."""
        return self._samples.of_sum(self._ops, total, self._value, self._place, self._once)


def _in_double(entries: Any) -> npt.NDArray[Any]:
    """Returns entries in float64; whole numbers, which are indices, as they are."""
    array = np.asarray(entries)
    return array if array.dtype.kind in "iu" else array.astype(np.float64)
