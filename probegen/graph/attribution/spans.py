"""Which part of an axis a window reaches, for every place that the window may have.

A part is as long at all places, so that what computes it has fixed sizes: it begins earlier than
it has to where it would reach beyond the end of its axis, or would be shorter than elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Places = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """A part of one axis.

    Attributes:
        starts: where it begins, whole numbers `[places]`.
        size: how long it is, at all places.
    """

    starts: _Places
    size: int

    @property
    def stops(self) -> _Places:
        """Behind which position it ends, `[places]`."""
        return self.starts + self.size

    def __eq__(self, other: object) -> bool:
        """Tells whether another part is the same at all places."""
        if not isinstance(other, Span):
            return NotImplemented
        return self.size == other.size and np.array_equal(self.starts, other.starts)

    __hash__ = None  # type: ignore[assignment]

    def covers(self, other: Span) -> bool:
        """Tells whether another part lies within this one, at all places."""
        return bool(np.all((self.starts <= other.starts) & (self.stops >= other.stops)))

    def moved(self, by: int) -> Span:
        """Returns the part as many positions later."""
        return Span(self.starts + by, self.size)


def span_of(starts: _Places, stops: _Places, length: int) -> Span:
    """Returns the shortest part of an axis that reaches from starts to stops.

    Args:
        starts: the first positions, `[places]`.
        stops: behind the last ones; one position at least is taken.
        length: of the axis.
    """
    size = max(1, int(np.max(stops - starts)))
    return Span(np.clip(starts, 0, length - size), size)


def hull(spans: Sequence[Span], length: int) -> Span:
    """Returns the shortest part of an axis that covers several."""
    starts = np.min([s.starts for s in spans], axis=0)
    return span_of(starts, np.max([s.stops for s in spans], axis=0), length)


def whole(length: int, like: Span) -> Span:
    """Returns all of an axis, at the places that another part has."""
    return Span(np.zeros_like(like.starts), length)


def sliding_over(span: Span, extent: int, stride: int, count: int) -> Span:
    """Returns which windows of a convolution or a pooling read a part of an axis.

    Args:
        span: the part, counted from the first padded position.
        extent: positions from the first to the last that a window reads.
        stride: between windows.
        count: of windows.
    """
    first = np.maximum(0, -((extent - 1 - span.starts) // stride))
    return span_of(first, np.minimum(count, (span.stops - 1) // stride + 1), count)


def read_by(windows: Span, extent: int, stride: int) -> Span:
    """Returns which part of an axis windows read, counted from the first padded position."""
    return Span(windows.starts * stride, (windows.size - 1) * stride + extent)
