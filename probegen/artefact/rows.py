"""Where the samples of an array lie: along the axis called `batch`, which is not always the first.

A recurrent model may take `[time, batch, feature]`, a state is `[layer, batch, unit]`, a rate of
sampling has no batch at all. Code that works sample by sample brings arrays to rows first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BATCH = "batch"
#: What the axis is called along which the steps of a series, or the tokens of a text, lie.
TIME = "time"
#: What an axis of channels is called, by what the tensor is.
CHANNELS = ("channel", "unit", "feature", "embedding", "class")


class Described(Protocol):
    """An input or output of a manifest."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The size of each of its axes, None where it is open."""

    @property
    def axes(self) -> tuple[str, ...]:
        """A name for each of its axes."""


def batch_axis(axes: Sequence[str]) -> int | None:
    """Returns which axis the samples lie along, None where there is none."""
    return axes.index(BATCH) if BATCH in axes else None


def fixed_batch(specs: Sequence[Described]) -> int | None:
    """Returns the batch size that an artefact with such inputs is bound to, None where any will do.

    1 where no input has a batch axis.
    """
    places = [(spec.shape, batch_axis(spec.axes)) for spec in specs]
    sizes = [shape[at] for shape, at in places if at is not None]
    if not sizes:
        return 1
    return next((size for size in sizes if size is not None), None)


def rows_first(array: Array, axes: Sequence[str], rows: int = 1) -> Array:
    """Returns an array with the samples along its first axis.

    Args:
        array: any.
        axes: a name for each of its axes.
        rows: how often what has no batch axis is repeated.
    """
    at = batch_axis(axes)
    if at is None:
        return np.broadcast_to(array, (rows, *array.shape))
    return np.moveaxis(array, at, 0)


def as_described(array: Array, axes: Sequence[str]) -> Array:
    """Returns an array with rows first in the order of `axes`; the reverse of `rows_first`."""
    at = batch_axis(axes)
    return np.asarray(array[0] if at is None else np.moveaxis(array, 0, at), order="C")


def one_row(array: Array, axes: Sequence[str], row: int) -> Array:
    """Returns one sample, without the batch axis; what has none belongs to every sample."""
    at = batch_axis(axes)
    return array if at is None else np.take(array, row, axis=at)


def some_rows(array: Array, axes: Sequence[str], rows: slice) -> Array:
    """Returns some of the samples; what has no batch axis belongs to every sample."""
    at = batch_axis(axes)
    return array if at is None else array[(slice(None),) * at + (rows,)]


def count_rows(arrays: Mapping[str, Array], specs: Sequence[Described]) -> int:
    """Returns the number of samples in arrays: 1 where none of them has a batch axis."""
    for spec in specs:
        at = batch_axis(spec.axes)
        if at is not None:
            return int(arrays[spec.name].shape[at])
    return 1


def without_batch(values: Sequence[Any], axes: Sequence[str]) -> tuple[Any, ...]:
    """Returns the entries of `values`, one an axis, that are not the batch's."""
    return tuple(v for v, axis in zip(values, axes, strict=True) if axis != BATCH)
