"""More values than pixels: each pixel shows the strongest of those that fall on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.text import plural

Array = npt.NDArray[Any]

#: Columns and rows that a picture of usual size can show apart.
MOST = 900


def strongest(values: Array, axis: int, most: int = MOST) -> Array:
    """Joins neighbours along an axis until at most `most` are left.

    Of those that are joined the value with the largest magnitude stays, with its sign, so that a
    single peak among thousands of steps is still seen. What is not finite counts least.

    Args:
        values: any shape.
        axis: the axis to shorten.
        most: its greatest length afterwards.
    """
    size = values.shape[axis]
    if size <= most:
        return values
    moved = np.moveaxis(values, axis, -1)
    starts = edges(size, most)[:-1]
    clean = np.nan_to_num(moved, nan=0.0, posinf=np.inf, neginf=-np.inf)
    top = np.maximum.reduceat(clean, starts, axis=-1)
    bottom = np.minimum.reduceat(clean, starts, axis=-1)
    return np.moveaxis(np.where(np.abs(bottom) > np.abs(top), bottom, top), -1, axis)


def extremes(row: Array, most: int = MOST) -> tuple[Array, Array]:
    """Returns for each group of neighbours its largest and its smallest value, `[group]` each."""
    starts = edges(len(row), most)[:-1]
    return np.maximum.reduceat(row, starts), np.minimum.reduceat(row, starts)


def edges(size: int, most: int = MOST) -> npt.NDArray[np.int64]:
    """Returns where groups of neighbours begin, and `size` at the end: at most `most` groups."""
    return np.linspace(0, size, min(size, most) + 1).round().astype(np.int64)


def spread(
    count: int, most: int, what: str, with_index: int | None = None
) -> tuple[list[int], tuple[str, ...]]:
    """Returns at most `most` evenly spread indices, and a note where some are left out.

    Args:
        count: how many there are.
        most: how many are returned.
        what: what one of them is called.
        with_index: one that must be among them; it takes the place of its neighbour.
    """
    if count <= most:
        return list(range(count)), ()
    indices = np.unique(np.linspace(0, count - 1, most).round().astype(int))
    notes = (f"showing {len(indices)} of {count} {plural(what)}",)
    if with_index is not None and with_index not in indices:
        indices[int(np.argmin(np.abs(indices - with_index)))] = with_index
        notes = (f"{notes[0]}, with the strongest, {what} {with_index}",)
    return [int(i) for i in indices], notes
