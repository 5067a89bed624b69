"""Methods that take gradients at points which are drawn, in plain numpy.

What is drawn is what the methods say that they draw: the numbers behind it come from the product's
functions of the seed, what is made of them is written here anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fuzz.scoring import Array, Gradient
from probegen.methods.arrays import ByName, StoredArray
from probegen.methods.noise import keys_of_draws, keys_of_tensor, permutation, uniform

#: The halves of the numbers that noise is made of.
_HALF = 4096


def smooth(probe: Any, x: Array, method: Callable[[Sequence[Array]], list[Array]]) -> Array:
    """Returns a statistic of what a method says of noisy copies.

    Args:
        probe: `pg.SmoothGrad`.
        x: the input.
        method: changed inputs -> the attribution of each.
    """
    axes = tuple(range(1, x.ndim))
    spread = probe.noise * np.ptp(x, axis=axes, keepdims=True)
    draws = zip(*keys_of_draws(probe.seed, probe.samples), strict=True)
    every = np.stack(method([x + spread * _normal(x.shape[1:], keys) for keys in draws]))
    if probe.statistic == "mean":
        return np.asarray(every.mean(axis=0))
    return np.asarray((every**2).mean(axis=0) if probe.statistic == "square" else every.var(axis=0))


def _normal(shape: tuple[int, ...], keys: tuple[Any, ...]) -> Array:
    """Returns normal noise of the first tensor that is explained, by whole numbers."""
    numbers = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    high, low = numbers // _HALF % _HALF, numbers % _HALF
    for key, own in zip(keys, keys_of_tensor(0), strict=True):
        mixed = (low + int(key) + int(own)) % _HALF
        high, low = low, (high + mixed * mixed // 64) % _HALF
    radius = np.sqrt(-2 * np.log((high + 0.5) / _HALF))
    return np.asarray(radius * np.cos(2 * np.pi * (low + 0.5) / _HALF))


def expected(probe: Any, x: Array, gradient: Gradient) -> Array | None:
    """Returns the mean of gradients on lines from a background, times the way; None if not known.

    Args:
        probe: `pg.ExpectedGradients`.
        x: the input.
        gradient: at changed inputs.
    """
    stored = probe.background
    if isinstance(stored, ByName):
        ((_, stored), *more) = stored.items
        if more:
            return None
    if not isinstance(stored, StoredArray) or stored.values.ndim != x.ndim:
        return None
    rows = len(stored.values)
    order: list[int] = []
    while len(order) < probe.samples:
        order += permutation(probe.seed, f"turn {len(order) // rows}", rows)
    order = order[: probe.samples]
    pieces, seen = Counter(order), Counter[int]()
    points, ways = [], []
    for row, share in zip(order, uniform(probe.seed, "fraction", probe.samples), strict=True):
        ways.append(x - stored.values[row])
        points.append(x - (1 - (seen[row] + share) / pieces[row]) * ways[-1])
        seen[row] += 1
    slopes = gradient(points)
    return np.asarray(np.mean([w * g for w, g in zip(ways, slopes, strict=True)], axis=0))
