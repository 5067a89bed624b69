"""Methods in plain numpy, over what a model says: its scores, and their gradients.

Where a gradient is not known an entry is NaN, and so is what is made of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

import probegen as pg
from probegen.methods.targets import Contrast, count_of_top

Array = npt.NDArray[Any]
#: Changed inputs -> the score of each sample, or its gradient at them.
Score = Callable[[Array], Array]
Gradient = Callable[[Array], Array]

#: Methods that look at an input where it is, and nowhere else.
AT_ONE_POINT = (pg.InputGradient, pg.GradientXInput, pg.Saliency)
#: Scores nearer to each other than this have no order.
_NEAR = 1e-4
#: Features whose coalitions are all tried.
_MOST_PLAYERS = 5


def picks(target: Any, scores: Array, asked: Array | None = None) -> list[Array] | None:
    """Returns for each result the weights of the scores, `[batch, class]`; None if not known.

    Args:
        target: of a probe.
        scores: `[batch, class]`.
        asked: the class of each sample where the target is an input, -1 for the best; None for
            the best of all.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        return None
    order = np.argsort(-scores, axis=1, kind="stable")
    near = np.diff(np.sort(scores, axis=1), axis=1).min(initial=np.inf)
    eye = np.eye(scores.shape[1])
    if target in ("argmax", "input"):
        best = order[:, 0]
        if target == "input" and asked is not None:
            best = np.where(asked < 0, best, asked)
        ranks: list[Any] = [best]
    elif isinstance(target, Contrast):
        of = {"argmax": order[:, 0], "runner_up": order[:, 1]}
        a, b = (
            of[s] if isinstance(s, str) else np.full(len(scores), s) for s in (target.a, target.b)
        )
        return None if near < _NEAR else [eye[a] - eye[b]]
    elif target == "all":
        return [np.broadcast_to(row, scores.shape) for row in eye]
    elif isinstance(target, list):
        return [np.broadcast_to(eye[i], scores.shape) for i in target]
    elif isinstance(target, int):
        return [np.broadcast_to(eye[target], scores.shape)]
    elif isinstance(target, tuple) and len(target) == 1 and isinstance(target[0], int):
        return [np.broadcast_to(eye[target[0]], scores.shape)]
    elif (count := count_of_top(target)) is not None:
        ranks = [order[:, i] for i in range(count)]
    else:
        return None
    return None if near < _NEAR else [eye[best] for best in ranks]


def is_several(target: Any) -> bool:
    """Tells whether a target asks for several results, along an axis of their own."""
    return target == "all" or isinstance(target, list) or count_of_top(target) is not None


def attribution(
    probe: Any, x: Array, score: Score, gradient: Gradient, channel: int | None
) -> Array | None:
    """Returns the attribution of an input that is the only one which moves; None if not known.

    Of a saliency it is the magnitude of each channel.

    Args:
        probe: the probe.
        x: the input, in float64.
        score: of changed inputs.
        gradient: at changed inputs.
        channel: the axis of channels, which are hidden together; None where there is none.
    """
    if isinstance(probe, pg.InputGradient):
        return gradient(x)
    if isinstance(probe, pg.GradientXInput):
        return gradient(x) * x
    if isinstance(probe, pg.Saliency):
        return np.abs(gradient(x))
    if isinstance(probe, pg.IntegratedGradients):
        return _integrated(probe, x, gradient)
    if isinstance(probe, pg.Occlusion):
        return _occluded(probe, x, score, channel)
    if isinstance(probe, pg.FeatureAblation) and probe.groups is None:
        return _ablated(probe, x, score, channel)
    if isinstance(probe, pg.KernelSHAP) and probe.groups is None:
        return _shapley(probe, x, score, channel)
    return None


def _points(rule: str, steps: int) -> tuple[Array, Array]:
    """Returns points between 0 and 1 and their weights, by which an integral is summed."""
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if rule == "trapezoid":
        points = np.linspace(0, 1, steps)
        weights = np.ones(steps)
        weights[[0, -1]] = 0.5
        return points, weights / (steps - 1)
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


def _integrated(probe: Any, x: Array, gradient: Gradient) -> Array | None:
    if not isinstance(probe.baseline, float | int):
        return None
    points, weights = _points(probe.rule, probe.steps)
    total = np.zeros(x.shape)
    for point, weight in zip(points, weights, strict=True):
        total += weight * gradient(probe.baseline + point * (x - probe.baseline))
    return total * (x - probe.baseline)


def _places(x: Array, channel: int | None) -> list[int]:
    """Returns the axes of positions."""
    return [axis for axis in range(1, x.ndim) if x.ndim == 2 or axis != channel]


def _occluded(probe: Any, x: Array, score: Score, channel: int | None) -> Array | None:
    axes = _places(x, channel)
    sizes = [x.shape[axis] for axis in axes]
    window = np.broadcast_to(np.asarray(probe.window), len(sizes))
    stride = np.broadcast_to(np.asarray(probe.stride or probe.window), len(sizes))
    if any(w > s for w, s in zip(window, sizes, strict=True)):
        return None
    base = score(x)
    total, count = np.zeros((len(x), *sizes)), np.zeros(sizes)
    starts = []
    for size, w, step in zip(sizes, window, stride, strict=True):
        if step > w or (size - w) % step:
            return None  # what happens at the edge is the method's own affair
        starts.append(range(0, size - int(w) + 1, int(step)))
    for corner in itertools.product(*starts):
        inside = tuple(slice(c, c + int(w)) for c, w in zip(corner, window, strict=True))
        lost = base - score(_hidden(x, dict(zip(axes, inside, strict=True)), probe.fill))
        total[(slice(None), *inside)] += lost.reshape(-1, *[1] * len(sizes))
        count[inside] += 1
    return total / count


def _ablated(probe: Any, x: Array, score: Score, channel: int | None) -> Array:
    axes = _places(x, channel)
    sizes = [x.shape[axis] for axis in axes]
    base = score(x)
    found = np.zeros((len(x), *sizes))
    for at in np.ndindex(*sizes):
        found[(slice(None), *at)] = base - score(_hidden(x, _one(axes, at), probe.fill))
    return found


def _shapley(probe: Any, x: Array, score: Score, channel: int | None) -> Array | None:
    """Returns exact Shapley values, where all coalitions fit."""
    axes = _places(x, channel)
    sizes = [x.shape[axis] for axis in axes]
    players = list(np.ndindex(*sizes))
    all_fit = probe.samples is None or probe.samples >= 2 ** len(players)
    if len(players) > _MOST_PLAYERS or not all_fit or not isinstance(probe.background, float | int):
        return None
    worth = {}
    for kept in itertools.product((False, True), repeat=len(players)):
        changed = x
        for at, stays in zip(players, kept, strict=True):
            if not stays:
                changed = _hidden(changed, _one(axes, at), probe.background)
        worth[kept] = score(changed)
    found = np.zeros((len(x), *sizes))
    for i, at in enumerate(players):
        for kept, value in worth.items():
            if not kept[i]:
                size = sum(kept)
                share = (
                    factorial(size) * factorial(len(players) - size - 1) / factorial(len(players))
                )
                joined = (*kept[:i], True, *kept[i + 1 :])
                found[(slice(None), *at)] += share * (worth[joined] - value)
    return found


def _one(axes: Sequence[int], at: Sequence[int]) -> dict[int, slice]:
    return {axis: slice(i, i + 1) for axis, i in zip(axes, at, strict=True)}


def _hidden(x: Array, where: dict[int, slice], fill: float) -> Array:
    changed = x.copy()
    changed[tuple(where.get(axis, slice(None)) for axis in range(x.ndim))] = fill
    return changed


def map_of_layer(probe: Any, activation: Array, gradient: Array, channel: int) -> Array | None:
    """Returns the class activation map of a layer; None where this knows no such method.

    Args:
        probe: the probe.
        activation: of the layer.
        gradient: at it.
        channel: the axis of the channels.
    """
    places = tuple(axis for axis in range(1, activation.ndim) if axis != channel)
    if isinstance(probe, pg.GradCAM):
        weights = gradient.mean(axis=places, keepdims=True)
        return np.asarray(np.maximum((weights * activation).sum(axis=channel), 0))
    if isinstance(probe, pg.HiResCAM):
        return np.asarray(np.maximum((gradient * activation).sum(axis=channel), 0))
    if isinstance(probe, pg.LayerCAM):
        return np.asarray(np.maximum((np.maximum(gradient, 0) * activation).sum(axis=channel), 0))
    return None
