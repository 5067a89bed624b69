"""Methods in plain numpy, over what a model says: its scores, and their gradients.

Where a gradient is not known an entry is NaN, and so is what is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import probegen as pg
from fuzz import twins_by_draws, twins_by_rules, twins_by_scores
from fuzz.scoring import Array, Gradient, Score
from probegen.methods.arrays import StoredArray
from probegen.methods.targets import Contrast, count_of_top, without_steps

#: Methods that look at an input where it is, and nowhere else.
AT_ONE_POINT = (pg.InputGradient, pg.GradientXInput, pg.Saliency, *twins_by_rules.RULES)
#: Scores nearer to each other than this have no order.
_NEAR = 1e-4


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
    if (inner := without_steps(target)) is not None:
        return _picks_of_steps(inner, scores, asked, axis)
    if not isinstance(target, tuple):
        return _picks_of_classes(target, scores, asked)
    if len(target) != scores.ndim - 1:
        return None
    where = list(target)
    chosen = where.pop(axis - 1)
    if chosen is None:
        return None
    weights = np.zeros(scores.shape)
    weights[(slice(None), *(slice(None) if at is None else at for at in where), chosen)] = 1
    return [weights]


def _picks_of_steps(
    inner: Any, scores: Array, asked: Array | None, axis: int
) -> list[Array] | None:
    """Returns weights of scores `[batch, step, class]`, for each step by itself."""
    if scores.ndim != 3 or axis != 2:
        return None
    whole = picks((None, *inner) if isinstance(inner, tuple) else inner, scores, asked, axis)
    if whole is None:
        return None
    return [whole[0] * row[:, None] for row in np.eye(scores.shape[1])]


def _picks_of_classes(target: Any, scores: Array, asked: Array | None) -> list[Array] | None:
    """Returns weights of scores whose last axis is that of the classes.

    NaN where the best is asked for and there is none: among scores beyond all numbers.
    """
    order = np.argsort(-scores, axis=-1, kind="stable")
    beyond = np.isnan(scores).any(axis=-1) | ((scores == np.inf).sum(axis=-1) > 1)
    nothing = np.where(beyond, np.nan, 0)[..., None]
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
        return None if near < _NEAR else [eye[a] - eye[b] + nothing]
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
    return None if near < _NEAR else [eye[best] + nothing for best in ranks]


def is_several(target: Any) -> bool:
    """Tells whether a target asks for several results, along an axis of their own."""
    named = isinstance(target, str) and target == "all"
    return (
        named
        or without_steps(target) is not None
        or isinstance(target, list)
        or count_of_top(target) is not None
    )


def attribution(
    probe: Any,
    x: Array,
    score: Score,
    gradient: Gradient,
    channel: int | None,
    groups: Array | None = None,
) -> Array | None:
    """Returns the attribution of an input that is the only one which moves; None if not known.

    Of a saliency it is the magnitude of each channel.

    Args:
        probe: the probe.
        x: the input, in float64.
        score: of changed inputs.
        gradient: at changed inputs.
        channel: the axis of channels, which are hidden together; None where there is none.
        groups: what a request asks for: the group of each position.
    """
    if isinstance(probe, AT_ONE_POINT):
        return at_one_point(probe, x, gradient([x])[0])
    if isinstance(probe, pg.IntegratedGradients):
        return _integrated(probe, x, gradient)
    if isinstance(probe, pg.ExpectedGradients):
        return twins_by_draws.expected(probe, x, gradient)
    if isinstance(probe, pg.SmoothGrad):
        return _smooth(probe, x, gradient, channel)
    return twins_by_scores.by_scores(probe, x, score, channel, groups)


def _smooth(probe: Any, x: Array, gradient: Gradient, channel: int | None) -> Array | None:
    """Returns SmoothGrad of a method that is known."""
    methods = {"input_gradient": pg.InputGradient, "gradient_x_input": pg.GradientXInput}
    methods["saliency"] = pg.Saliency
    named = isinstance(probe.of_method, str)
    method = methods[probe.of_method]() if named else probe.of_method
    if not isinstance(method, (*AT_ONE_POINT, pg.IntegratedGradients)):
        return None

    def said(copies: Sequence[Array]) -> list[Array]:
        if isinstance(method, pg.IntegratedGradients):
            along = (_integrated(method, one, gradient) for one in copies)
            return [one for one in along if one is not None]
        made = zip(copies, gradient(copies), strict=True)
        each = [at_one_point(method, copy, slope) for copy, slope in made]
        is_joined = isinstance(method, pg.Saliency) and channel is not None
        return [one.max(axis=channel) for one in each] if is_joined else each

    return twins_by_draws.smooth(probe, x, said)


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
    baselines = [probe.baseline]
    if isinstance(probe.baseline, StoredArray):
        values = probe.baseline.values
        baselines = list(values) if values.ndim == x.ndim else [values]
    if not all(isinstance(start, float | int | np.ndarray) for start in baselines):
        return None
    points, weights = _points(probe.rule, probe.steps)
    found = gradient([x - (1 - at) * (x - start) for start in baselines for at in points])
    total = np.zeros(x.shape)
    for i, start in enumerate(baselines):
        own = found[i * len(points) : (i + 1) * len(points)]
        slope = sum(weight * one for weight, one in zip(weights, own, strict=True))
        total += slope * (x - start) / len(baselines)
    return total


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
