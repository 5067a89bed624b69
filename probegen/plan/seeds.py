"""The seed of a target by numpy: which entries of the scores are summed up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import TargetSpec

Array = npt.NDArray[Any]


def seed(scores: Array, target: TargetSpec, request: Array | None = None) -> Array:
    """Returns ones where an entry of `scores` is summed up, zeros elsewhere, in float64.

    Args:
        scores: `[batch, ..., classes]`, or `[batch]` for one number a sample.
        target: which entries.
        request: int `[batch]`, -1 meaning argmax, for mode `"input"`.
    """
    if target.mode == "callable" or scores.ndim == 1:
        return np.ones(scores.shape)
    if target.mode == "index":
        picked = np.ones(scores.shape)
        for axis, index in enumerate(target.index or (), start=1):
            if index is not None:
                form = [1] * scores.ndim
                form[axis] = -1
                size = scores.shape[axis]
                picked = picked * (np.arange(size) == index % size).reshape(form)
        return picked
    values = scores.astype(np.float64)
    # What is not a number is larger than all numbers, as runtimes have it.
    classes = np.argmax(np.where(np.isnan(values), np.inf, values), axis=-1)
    if target.mode == "input" and request is not None:
        asked = np.asarray(request).reshape(-1, *[1] * (scores.ndim - 2))
        classes = np.where(asked < 0, classes, asked)
    chosen: Array = np.arange(scores.shape[-1]) == classes[..., None]
    return chosen.astype(np.float64)
