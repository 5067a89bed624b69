"""Linear resampling, since numpy has none beyond one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def resize(array: Array, size: tuple[int, ...]) -> Array:
    """Resamples the leading axes linearly to `size`, with half-pixel centres.

    Element i of n lies at (i + 0.5) / n of the extent, and beyond the outermost centres the
    edge value goes on: what `tf.image.resize(..., "bilinear", antialias=False)` computes.

    Args:
        array: at least `len(size)` axes; further ones are carried along.
        size: the new lengths of the leading axes.

    Returns:
        Floating, shape `size + array.shape[len(size):]`.
    """
    for axis, length in enumerate(size):
        array = _along(array, axis, length)
    return array


def _along(array: Array, axis: int, length: int) -> Array:
    old = array.shape[axis]
    if old == length:
        return array
    position = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, old - 1)
    shape = [1] * array.ndim
    shape[axis] = length
    share = (position - below).reshape(shape)
    lower, upper = np.take(array, below, axis), np.take(array, above, axis)
    return np.asarray(lower * (1 - share) + upper * share)
