"""Methods that hide parts of the input, in plain numpy over scores at changed inputs.

What is drawn is what the methods say that they draw, from numpy's generator and their seed; of
KernelSHAP the coalitions and how often each was drawn are the product's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import factorial
from typing import Any

import numpy as np

import probegen as pg
from fuzz.scoring import Array, Score, beside, positions
from probegen.methods.arrays import StoredArray
from probegen.methods.coalitions import _chosen

#: Groups whose coalitions are all tried.
_MOST_PLAYERS = 5
#: Where RISE says nothing of its cells.
_CELLS = 7


def by_scores(
    probe: Any, x: Array, score: Score, channel: int | None, groups: Array | None = None
) -> Array | None:
    """Returns the attribution of an input; None where this knows no such method.

    Args:
        probe: the probe.
        x: the input, in float64.
        score: of changed inputs.
        channel: the axis of channels, which are hidden together; None where there is none.
        groups: what a request asks for: the group of each position.
    """
    if isinstance(probe, pg.Occlusion):
        return _occluded(probe, x, score, channel)
    if isinstance(probe, pg.RISE):
        return _masked(probe, x, score, channel)
    if not isinstance(probe, pg.FeatureAblation | pg.KernelSHAP | pg.LIME):
        return None
    numbers = _numbers(probe.groups, x, channel, groups)
    if numbers is None:
        return None
    if isinstance(probe, pg.FeatureAblation):
        return _ablated(probe, x, score, channel, numbers)
    values = _of_coalitions(probe, x, score, channel, numbers)
    if values is None:
        return None
    flat = np.broadcast_to(numbers, (len(x), *numbers.shape[1:])).reshape(len(x), -1)
    return np.take_along_axis(values, flat, 1).reshape(len(x), *numbers.shape[1:])


# -- windows and groups ------------------------------------------------------------------------


def _occluded(probe: Any, x: Array, score: Score, channel: int | None) -> Array | None:
    axes = positions(x, channel)
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
    masks = []
    for corner in itertools.product(*starts):
        inside = np.zeros((1, *sizes), bool)
        covered = (slice(c, c + int(w)) for c, w in zip(corner, window, strict=True))
        inside[(slice(None), *covered)] = True
        masks.append(inside)
    for inside, lost in zip(masks, _lost(x, score, channel, masks, probe.fill), strict=True):
        total += lost.reshape(-1, *[1] * len(sizes)) * inside
        count += inside[0]
    return np.asarray(total / count)


def _lost(
    x: Array, score: Score, channel: int | None, masks: Sequence[Array], fill: float
) -> list[Array]:
    """Returns what hiding where each of some masks is true takes from the score."""
    hidden = [np.where(beside(mask, x, channel), fill, x) for mask in masks]
    base, *rest = score([x, *hidden])
    return [base - one for one in rest]


def _numbers(given: Any, x: Array, channel: int | None, asked: Array | None) -> Array | None:
    """Returns the group of each position, `[1 or batch, ...positions]`; None if not known."""
    sizes = [x.shape[axis] for axis in positions(x, channel)]
    if given is None:
        return np.arange(np.prod(sizes, dtype=int)).reshape(1, *sizes)
    if isinstance(given, StoredArray):
        return np.unique(given.values, return_inverse=True)[1].reshape(1, *sizes)
    if given == "input":
        return asked
    side = int(given.removeprefix("grid:"))
    if any(size < side for size in sizes):
        return None  # of open sizes there are groups that nothing belongs to
    found = np.zeros([1] * len(sizes), int)
    for axis, size in enumerate(sizes):
        cells = np.arange(size) * side // size
        found = found * side + cells.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    return found[None]


def _ablated(probe: Any, x: Array, score: Score, channel: int | None, numbers: Array) -> Array:
    masks = [numbers == group for group in range(int(numbers.max()) + 1)]
    found = np.zeros((len(x), *numbers.shape[1:]))
    for mask, lost in zip(masks, _lost(x, score, channel, masks, probe.fill), strict=True):
        found += mask * lost.reshape(-1, *[1] * (numbers.ndim - 1))
    return found


# -- coalitions --------------------------------------------------------------------------------


def _of_coalitions(
    probe: Any, x: Array, score: Score, channel: int | None, numbers: Array
) -> Array | None:
    """Returns the value of each group, `[batch, group]`."""
    is_asked = probe.groups == "input"
    count = probe.max_groups if is_asked else int(numbers.max()) + 1

    def worth(kept: Array) -> Array:
        """Returns the scores of coalitions `[point, group]`, the mean over all backgrounds."""
        points = [
            np.where(beside(row[numbers], x, channel), x, filling)
            for row in kept
            for filling in _backgrounds(probe.background, x)
        ]
        scores = np.stack(score(points))
        return np.asarray(scores.reshape(len(kept), -1, len(x)).mean(axis=1))

    if isinstance(probe, pg.LIME):
        return _fitted(probe, worth, count)
    if count == 1 or 2**count - 2 <= probe.samples:
        return _shapley(worth, count) if count <= _MOST_PLAYERS else None
    values = _least_squares(probe, worth, count)
    if not is_asked:
        return values
    there = np.stack([[(row == g).any() for g in range(count)] for row in numbers])
    left = np.where(there, 0, values).sum(axis=1, keepdims=True)
    return np.where(there, values + left / there.sum(axis=1, keepdims=True), 0)


def _backgrounds(given: Any, x: Array) -> list[Any]:
    if not isinstance(given, StoredArray):
        return [given]
    return list(given.values) if given.values.ndim == x.ndim else [given.values]


def _shapley(worth: Any, count: int) -> Array:
    """Returns Shapley values by his own formula."""
    coalitions = list(itertools.product((False, True), repeat=count))
    scores = dict(zip(coalitions, worth(np.array(coalitions)), strict=True))
    found = []
    for i in range(count):
        total = 0.0
        for kept, value in scores.items():
            if not kept[i]:
                size = sum(kept)
                share = factorial(size) * factorial(count - size - 1) / factorial(count)
                total = total + share * (scores[(*kept[:i], True, *kept[i + 1 :])] - value)
        found.append(total)
    return np.stack(found, axis=1)


def _least_squares(probe: Any, worth: Any, count: int) -> Array:
    """Returns the weighted least squares of KernelSHAP, whose sum is held by a multiplier."""
    weights = _chosen(count, probe.samples, probe.seed)
    kept = np.array([[i in members for i in range(count)] for members in weights])
    ends = np.array([[False] * count, [True] * count])
    empty, full, *scores = worth(np.concatenate([ends, kept]))
    rows, w = kept.astype(float), np.array(list(weights.values()))[:, None]
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = rows.T @ (w * rows)
    system[count, count] = 0
    right = np.concatenate([rows.T @ (w * (np.stack(scores) - empty)), (full - empty)[None]])
    return np.linalg.solve(system, right)[:count].T


def _fitted(probe: Any, worth: Any, count: int) -> Array:
    """Returns the coefficients of a ridge regression whose intercept is free."""
    drawn = np.random.default_rng(probe.seed).integers(0, 2, (probe.samples - 1, count)) == 1
    kept = np.concatenate([np.ones((1, count), bool), drawn])
    away = 1 - np.sqrt(kept.mean(axis=1))
    w = np.sqrt(np.exp(-(away**2) / probe.kernel_width**2))[:, None]
    rows = np.concatenate([np.ones((len(kept), 1)), kept], axis=1)
    penalty = probe.ridge * np.diag([0.0] + [1.0] * count)
    return np.linalg.solve(rows.T @ (w * rows) + penalty, rows.T @ (w * worth(kept)))[1:].T


# -- random masks ------------------------------------------------------------------------------


def _masked(probe: Any, x: Array, score: Score, channel: int | None) -> Array:
    sizes = [x.shape[axis] for axis in positions(x, channel)]
    given = _CELLS if probe.cells is None else probe.cells
    cells = [int(n) for n in np.broadcast_to(np.asarray(given), len(sizes))]
    generator = np.random.default_rng(probe.seed)
    grids = generator.random((probe.masks, *cells)) < probe.keep
    cuts = generator.random((probe.masks, len(sizes)))
    masks = [_mask(*drawn, sizes)[None] for drawn in zip(grids, cuts, strict=True)]
    scores = score([x * beside(mask, x, channel) for mask in masks])
    weighed = (s.reshape(-1, *[1] * len(sizes)) * m for s, m in zip(scores, masks, strict=True))
    return np.asarray(sum(weighed) / (probe.masks * probe.keep))


def _mask(grid: Array, cut: Array, sizes: Sequence[int]) -> Array:
    """Returns a grid, enlarged linearly by a cell more than fits, and cut out."""
    mask = grid.astype(float)
    for axis, size in enumerate(sizes):
        cells = min(grid.shape[axis], size)
        side = -(-size // cells)
        at = (np.arange(size) + np.floor(cut[axis] * side) + 0.5) * cells / (side * (cells + 1))
        used = np.take(mask, range(cells), axis)
        mask = _interpolated(used, at - 0.5, axis)
    return mask


def _interpolated(x: Array, at: Array, axis: int) -> Array:
    """Returns an array at places between its elements along an axis; beyond its ends they go on."""
    last = x.shape[axis] - 1
    low = np.clip(np.floor(at), 0, last).astype(int)
    share = np.clip(at - low, 0, 1).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    ends = np.take(x, np.minimum(low + 1, last), axis)
    return np.asarray(np.take(x, low, axis) * (1 - share) + ends * share)


def score_cam(
    x: Array, channel_of_x: int | None, activation: Array, channel: int, score: Score
) -> Array | None:
    """Returns the map of Score-CAM; None where the layer's positions are not the input's.

    Args:
        x: the input, which is masked.
        channel_of_x: its axis of channels.
        activation: of the layer.
        channel: its axis of channels.
        score: of changed inputs.
    """
    axes = positions(x, channel_of_x)
    maps = np.moveaxis(activation, channel, 1)
    if maps.ndim - 2 != len(axes):
        return None
    large = maps
    for at, axis in enumerate(axes, start=2):
        old, new = maps.shape[at], x.shape[axis]
        large = _interpolated(large, (np.arange(new) + 0.5) * old / new - 0.5, at)
    over = tuple(range(2, maps.ndim))
    least = large.min(axis=over, keepdims=True)
    span = large.max(axis=over, keepdims=True) - least
    # What is nearly the same everywhere is told from what is the same by rounding alone.
    unclear = ((span > 0) & (span < _NEARLY * (np.abs(least) + _NEARLY))).any(axis=(1, *over))
    masks = (large - least) / np.where(span > 0, span, 1)
    points = [x * beside(masks[:, k], x, channel_of_x) for k in range(maps.shape[1])]
    scores = np.stack(score(points), axis=1)
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = (grown / grown.sum(axis=1, keepdims=True)).reshape(*scores.shape, *[1] * len(axes))
    found = np.maximum((weights * maps).sum(axis=1), 0)
    found[unclear] = np.nan
    return np.asarray(found)


#: How much of its size a map has to vary by, so that it is clear that it varies.
_NEARLY = 1e-4
