"""Methods in plain numpy, over what a model says: its scores, and their gradients.

Where a gradient is not known an entry is NaN, and so is what is made of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

import probegen as pg
from probegen.methods.targets import Contrast, count_of_top

Array = npt.NDArray[Any]
#: Some changed versions of the inputs -> for each the score of each sample, or its gradient there.
Score = Callable[[Sequence[Array]], list[Array]]
Gradient = Callable[[Sequence[Array]], list[Array]]

#: Methods that look at an input where it is, and nowhere else.
AT_ONE_POINT = (pg.InputGradient, pg.GradientXInput, pg.Saliency)
#: Scores nearer to each other than this have no order.
_NEAR = 1e-4
#: Features whose coalitions are all tried.
_MOST_PLAYERS = 5


def picks(
    target: Any, scores: Array, asked: Array | None = None, axis: int | None = None
) -> list[Array] | None:
    """Returns for each result the weights of the scores, of their shape; None if not known.

    Args:
        target: of a probe.
        scores: `[batch, class]`; with an axis of the classes positions as well, which are summed.
        asked: the class of each sample where the target is an input, -1 for the best; None for
            the best of all.
        axis: that of the classes, where there are positions.
    """
    if scores.ndim > 2 and axis is not None:
        last = np.moveaxis(scores, axis, -1)
        found = _picks_of_positions(target, last, asked, axis % scores.ndim)
        return None if found is None else [np.moveaxis(pick, -1, axis) for pick in found]
    if scores.ndim != 2 or scores.shape[1] < 2:
        return None
    if isinstance(target, tuple) and len(target) == 1 and isinstance(target[0], int):
        target = target[0]
    return _picks_of_classes(target, scores, asked)


def _picks_of_positions(
    target: Any, scores: Array, asked: Array | None, axis: int
) -> list[Array] | None:
    """Returns weights of scores `[batch, ...positions, class]`; `axis` is where classes were."""
    if scores.shape[-1] < 2:
        return None
    if not isinstance(target, tuple):
        return _picks_of_classes(target, scores, asked)
    if "steps" in target or len(target) != scores.ndim - 1:
        return None
    where = list(target)
    chosen = where.pop(axis - 1)
    if chosen is None:
        return None
    weights = np.zeros(scores.shape)
    weights[(slice(None), *(slice(None) if at is None else at for at in where), chosen)] = 1
    return [weights]


def _picks_of_classes(target: Any, scores: Array, asked: Array | None) -> list[Array] | None:
    """Returns weights of scores whose last axis is that of the classes."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    near = np.diff(np.sort(scores, axis=-1), axis=-1).min(initial=np.inf)
    eye = np.eye(scores.shape[-1])
    if isinstance(target, str) and target in ("argmax", "input"):
        best = order[..., 0]
        if target == "input" and asked is not None:
            each = asked.reshape(-1, *[1] * (best.ndim - 1))
            best = np.where(each < 0, best, each)
        ranks: list[Any] = [best]
    elif isinstance(target, Contrast):
        of = {"argmax": order[..., 0], "runner_up": order[..., 1]}
        a, b = (
            of[s] if isinstance(s, str) else np.full(scores.shape[:-1], s)
            for s in (target.a, target.b)
        )
        return None if near < _NEAR else [eye[a] - eye[b]]
    elif isinstance(target, str) and target == "all":
        return [np.broadcast_to(row, scores.shape) for row in eye]
    elif isinstance(target, list):
        return [np.broadcast_to(eye[i], scores.shape) for i in target]
    elif isinstance(target, int):
        return [np.broadcast_to(eye[target], scores.shape)]
    elif (count := count_of_top(target)) is not None:
        ranks = [order[..., i] for i in range(min(count, scores.shape[-1]))]
    else:
        return None
    return None if near < _NEAR else [eye[best] for best in ranks]


def is_several(target: Any) -> bool:
    """Tells whether a target asks for several results, along an axis of their own."""
    named = isinstance(target, str) and target == "all"
    return named or isinstance(target, list) or count_of_top(target) is not None


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
    if isinstance(probe, AT_ONE_POINT):
        return at_one_point(probe, x, gradient([x])[0])
    if isinstance(probe, pg.IntegratedGradients):
        return _integrated(probe, x, gradient)
    if isinstance(probe, pg.Occlusion):
        return _occluded(probe, x, score, channel)
    if isinstance(probe, pg.FeatureAblation) and probe.groups is None:
        return _ablated(probe, x, score, channel)
    if isinstance(probe, pg.KernelSHAP) and probe.groups is None:
        return _shapley(probe, x, score, channel)
    return None


def at_one_point(probe: Any, x: Array, gradient: Array) -> Array:
    """Returns the attribution by one of the methods that need the gradient at the input alone."""
    if isinstance(probe, pg.GradientXInput):
        return gradient * x
    return np.abs(gradient) if isinstance(probe, pg.Saliency) else gradient


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
    found = gradient([probe.baseline + point * (x - probe.baseline) for point in points])
    total = sum(weight * one for weight, one in zip(weights, found, strict=True))
    return np.asarray(total * (x - probe.baseline))


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
    total, count = np.zeros((len(x), *sizes)), np.zeros(sizes)
    starts = []
    for size, w, step in zip(sizes, window, stride, strict=True):
        if step > w or (size - w) % step:
            return None  # what happens at the edge is the method's own affair
        starts.append(range(0, size - int(w) + 1, int(step)))
    windows = [
        tuple(slice(c, c + int(w)) for c, w in zip(corner, window, strict=True))
        for corner in itertools.product(*starts)
    ]
    for inside, lost in zip(windows, _lost(x, score, axes, windows, probe.fill), strict=True):
        total[(slice(None), *inside)] += lost.reshape(-1, *[1] * len(sizes))
        count[inside] += 1
    return np.asarray(total / count)


def _ablated(probe: Any, x: Array, score: Score, channel: int | None) -> Array:
    axes = _places(x, channel)
    every = list(np.ndindex(*(x.shape[axis] for axis in axes)))
    windows = [tuple(slice(i, i + 1) for i in at) for at in every]
    found = np.zeros((len(x), *(x.shape[axis] for axis in axes)))
    for at, lost in zip(every, _lost(x, score, axes, windows, probe.fill), strict=True):
        found[(slice(None), *at)] = lost
    return found


def _lost(
    x: Array,
    score: Score,
    axes: Sequence[int],
    windows: Sequence[Sequence[slice]],
    fill: float,
) -> Iterator[Array]:
    """Yields what hiding each of some windows takes from the score."""
    hidden = (_hidden(x, dict(zip(axes, inside, strict=True)), fill) for inside in windows)
    base, *rest = score([x, *hidden])
    yield from (base - one for one in rest)


def _shapley(probe: Any, x: Array, score: Score, channel: int | None) -> Array | None:
    """Returns exact Shapley values, where all coalitions fit."""
    axes = _places(x, channel)
    sizes = [x.shape[axis] for axis in axes]
    players = list(np.ndindex(*sizes))
    all_fit = probe.samples is None or probe.samples >= 2 ** len(players)
    if len(players) > _MOST_PLAYERS or not all_fit or not isinstance(probe.background, float | int):
        return None
    coalitions = list(itertools.product((False, True), repeat=len(players)))
    points = []
    for kept in coalitions:
        changed = x
        for at, stays in zip(players, kept, strict=True):
            if not stays:
                changed = _hidden(changed, _one(axes, at), probe.background)
        points.append(changed)
    worth = dict(zip(coalitions, score(points), strict=True))
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
    sums = activation.sum(axis=places, keepdims=True)
    positive = np.maximum(gradient, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(probe, pg.GradCAM):
            weights = gradient.mean(axis=places, keepdims=True)
        elif isinstance(probe, pg.HiResCAM):
            weights = gradient
        elif isinstance(probe, pg.LayerCAM):
            weights = positive
        elif isinstance(probe, pg.XGradCAM):
            shares = (gradient * activation).sum(axis=places, keepdims=True) / sums
            weights = np.where(sums == 0, 0, shares)
        elif isinstance(probe, pg.GradCAMPlusPlus):
            below = 2 + sums * gradient
            shares = np.where(below == 0, 0, positive / below)
            weights = shares.sum(axis=places, keepdims=True)
        elif isinstance(probe, pg.EigenCAM):
            return _principal(probe, activation, channel)
        else:
            return None
    return np.asarray(np.maximum((weights * activation).sum(axis=channel), 0))


#: How near the second singular value may be to the first, so that the first direction is known.
_APART = 0.9


def _principal(probe: Any, activation: Array, channel: int) -> Array:
    """Returns activations along their first principal direction; NaN where there is no first."""
    turned = np.moveaxis(activation, channel, -1)
    found = np.full(turned.shape[:-1], np.nan)
    for row, one in enumerate(turned):
        rows = one.reshape(-1, one.shape[-1])
        mean = rows.mean(axis=0)
        if probe.centre:
            rows = rows - mean
        if not np.isfinite(rows).all():
            continue
        _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
        side = float(directions[0] @ mean)
        is_plain = len(sizes) == 1 or sizes[1] < _APART * sizes[0]
        if is_plain and abs(side) > _SIDE * float(np.linalg.norm(mean)):
            shown = np.maximum(rows @ directions[0] * np.sign(side), 0)
            found[row] = shown.reshape(one.shape[:-1])
    return found


#: By how much the mean has to lie along a direction, so that its sign is known.
_SIDE = 1e-2


def single_positions(probe: Any, x: Array, score: Score, channel: int) -> Array | None:
    """Returns the map of Recipro-CAM from scores of a masked layer; None for other methods.

    Args:
        probe: the probe.
        x: the layer's output.
        score: of changed outputs.
        channel: the axis of the channels.
    """
    if not isinstance(probe, pg.ReciproCAM):
        return None
    axes = [axis for axis in range(1, x.ndim) if axis != channel]
    places = list(np.ndindex(*(x.shape[axis] for axis in axes)))
    points = []
    for at in places:
        mask = np.ones([1] * x.ndim)
        for axis, i in zip(axes, at, strict=True):
            off = np.abs(np.arange(x.shape[axis]) - i)
            near = np.maximum(0.5 - 0.25 * off, 0) if probe.gaussian else 1.0 * (off == 0)
            mask = mask * near.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        points.append(x * mask)
    scores = np.stack(score(points), axis=1)
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    # Where all positions are alike, what is left is rounding.
    spread = np.where(most - least > _NEAR * (np.abs(most) + 1), most - least, np.nan)
    shares = np.where(most == least, 0, (scores - least) / spread)
    return np.asarray(shares.reshape(len(x), *(x.shape[axis] for axis in axes)))
