"""Linear resampling, since numpy has none beyond one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.preprocessing import Preprocessing

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


def over_picture(heat: Array, size: tuple[int, int], how: Preprocessing | None = None) -> Array:
    """Brings a map of what a model sees to the size of the picture that arrived.

    Args:
        heat: `[height, width, ...]`, of any size.
        size: of the picture.
        how: what the graph makes of the picture; None where the model sees it as it is. Where it
            sees a middle part, the rest gets zeros; what lies over borders is cut away.

    Returns:
        `size + heat.shape[2:]`.
    """
    (top, high), (left, wide) = ((0, size[0]), (0, size[1])) if how is None else how.window(*size)
    seen = resize(heat, (high, wide))
    whole = np.zeros((*size, *heat.shape[2:]), seen.dtype)
    rows, columns = slice(max(0, top), top + high), slice(max(0, left), left + wide)
    shown = whole[rows, columns]
    shown[:] = seen[max(0, -top) :, max(0, -left) :][: shown.shape[0], : shown.shape[1]]
    return whole


def at_model(labels: Array, how: Preprocessing) -> Array:
    """Brings labels of a picture's pixels to the size that a model sees, by the nearest pixel.

    Args:
        labels: `[batch, height, width]`.
        how: what the graph makes of the picture. Borders get the labels of the pixels beside them.

    Returns:
        `[batch, *how.size]`.
    """
    for axis, (part, wanted) in enumerate(
        zip(how.window(*labels.shape[1:]), how.size, strict=True), start=1
    ):
        if wanted is not None:
            start, length = part
            rows = np.floor((np.arange(wanted) + 0.5) * length / wanted).astype(np.intp) + start
            labels = np.take(labels, np.clip(rows, 0, labels.shape[axis] - 1), axis)
    return labels


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
