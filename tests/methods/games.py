"""Games by definition: values over all orders, and what hides groups of positions."""

from __future__ import annotations

import itertools

import numpy as np


def keeping(x, groups, background=0.0):
    """Returns what gives `x` with some groups kept, the others hidden.

    Args:
        x: `[batch, ...positions, channels]`, or `[batch, features]`.
        groups: the number of each position's group, `[...positions]`, or with a batch axis more.
        background: what hides, a number or one sample.
    """
    numbers = np.asarray(groups)

    def kept(players):
        mask = np.isin(numbers, list(players))
        if numbers.shape[0] != len(x) or numbers.shape == x.shape[1:-1]:
            mask = np.broadcast_to(mask, (len(x), *mask.shape))
        mask = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
        return np.where(mask, x, background).astype(x.dtype)

    return kept


def values_over_orders(score, players):
    """The mean of what each adds over all orders in which they may come: `[batch, players]`.

    Args:
        score: a set of players -> `[batch]`.
        players: their number.
    """
    known = {}

    def of(some):
        key = frozenset(some)
        if key not in known:
            known[key] = score(key)
        return known[key]

    total = np.zeros((len(of(())), players))
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            total[:, player] += of(order[: place + 1]) - of(order[:place])
    return total / len(orders)


def constrained_fit(kept, weights, scores, full, empty):
    """Least squares whose coefficients add up to `full - empty`, by the equations of Lagrange."""
    z = np.asarray(kept, np.float64)
    n = z.shape[1]
    squares = (z.T * weights) @ z
    system = np.block([[2 * squares, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    right = np.append(2 * (z.T * weights) @ (scores - empty), full - empty)
    return np.linalg.lstsq(system, right, rcond=None)[0][:n]


def ridge_fit(kept, weights, scores, ridge):
    """Ridge regression with an intercept that is not penalised, by stacked rows."""
    z = np.asarray(kept, np.float64)
    n, root = z.shape[1], np.sqrt(weights)[:, None]
    rows = np.vstack([np.hstack([z, np.ones((len(z), 1))]) * root, np.eye(n, n + 1) * ridge**0.5])
    right = np.append(scores * root[:, 0], np.zeros(n))
    return np.linalg.lstsq(rows, right, rcond=None)[0][:n]
