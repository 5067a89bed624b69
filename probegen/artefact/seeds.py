"""The seed of a backward pass in numpy: the gradient of a target by the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import TargetSpec

Array = npt.NDArray[Any]


def seeds(
    scores: Array, target: TargetSpec, request: Array | None = None, region: Array | None = None
) -> list[Array]:
    """Returns what `seed` does for each class or step that is explained: one, or several."""
    if not target.several:
        return [seed(scores, target, request, region)]
    if target.step is not None:
        whole, at = seed(scores, target, request, region), target.step
        return [
            whole * np.expand_dims(np.arange(scores.shape[at]) == step, _others(scores, at))
            for step in range(scores.shape[at])
        ]
    weights = 1.0 if region is None else region
    return [one_hot(scores, chosen) * weights for chosen in choices(scores, target, region)]


def _others(scores: Array, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(scores.ndim) if i != axis)


def choices(scores: Array, target: TargetSpec, region: Array | None = None) -> Array:
    """Returns the classes that a target of several explains, best first.

    `[k]`, or with mode `"top"` `[k, batch, ...positions]`, of which those of a layer are 1. Of
    equal scores the lower index is better.
    """
    if target.mode == "top":
        return np.moveaxis(_best(_ranked(scores, target, region), target.count or 1), -1, 0)
    return np.asarray(target.chosen if target.mode == "list" else range(scores.shape[-1]))


def one_hot(scores: Array, classes: Any) -> Array:
    """Returns ones of the shape of `scores` where the last axis is at a class, zeros elsewhere.

    Args:
        scores: `[batch, ..., classes]`.
        classes: one for all, or one for each of the other axes' entries.
    """
    chosen: Array = np.arange(scores.shape[-1]) == np.asarray(classes)[..., None]
    return np.broadcast_to(chosen, scores.shape).astype(np.float64)


def seed(
    scores: Array, target: TargetSpec, request: Array | None = None, region: Array | None = None
) -> Array:
    """Returns ones where an entry of `scores` is summed up, zeros elsewhere, in float64.

    Minus ones where it is taken away, as a contrast does. With a region they are its weights.

    Args:
        scores: `[batch, ..., classes]`, or `[batch]` for one number a sample.
        target: which entries; of one class.
        request: int `[batch]`, -1 meaning argmax, for mode `"input"`.
        region: what each position counts, with an axis of size 1 for the classes.
    """
    picked = _picked(scores, target, request, region)
    return picked if region is None else picked * region


def _picked(
    scores: Array, target: TargetSpec, request: Array | None, region: Array | None
) -> Array:
    """Returns the seed without the weights of a region."""
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
    if target.mode == "contrast":
        ranked = _ranked(scores, target, region)
        ahead, behind = (one_hot(scores, _side(ranked, side)) for side in target.chosen or ())
        return ahead - behind
    classes = _best(_ranked(scores, target, region), 1)[..., 0]
    if target.mode == "input" and request is not None:
        asked = np.asarray(request).reshape(-1, *[1] * (scores.ndim - 2))
        classes = np.where(asked < 0, classes, asked)
    return one_hot(scores, classes)


def _ranked(scores: Array, target: TargetSpec, region: Array | None) -> Array:
    """Returns what tells which class is the best: of a layer the sums over its positions."""
    if target.layer is None or target.step is not None:
        return scores
    weighed = scores.astype(np.float64) * (1.0 if region is None else region)
    sums: Array = weighed.sum(tuple(range(1, scores.ndim - 1)), keepdims=True)
    return sums


def _side(scores: Array, side: int | str) -> Any:
    """Returns the class of one side of a contrast, of each sample where it is told by scores."""
    if isinstance(side, int):
        return side
    return _best(scores, 2)[..., int(side == "runner_up")]


def _best(scores: Array, count: int) -> Array:
    """Returns the classes with the largest scores, best first, along the last axis."""
    values = scores.astype(np.float64)
    # What is not a number is larger than all numbers, as runtimes have it.
    found = np.argsort(-np.where(np.isnan(values), np.inf, values), axis=-1, kind="stable")
    return found[..., :count]
