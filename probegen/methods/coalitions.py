"""Which groups are kept at each point, and what each point's score counts in each group's value.

The weighted least squares of KernelSHAP and LIME depend on the coalitions alone and not on the
scores, and their solution is linear in the scores. So it is computed here, once, as one matrix
`[points, groups]`: the value of a group is the sum over the points of the entry times the score at
the point minus the score of the unchanged sample. The unchanged sample itself adds nothing to that
sum, and so is no point.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import InstrumentError

Array = npt.NDArray[Any]

#: What the weight of a point is at least, of one of LIME's, beside the unchanged sample's 1.
_LEAST_WEIGHT = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Coalitions:
    """Points of a game.

    Attributes:
        kept: which groups are there at each point, bool `[points, groups]`.
        weights: what the point's score counts in each group's value, float64 `[points, groups]`.
    """

    kept: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def shapley(groups: int, samples: int, seed: int) -> Coalitions:
    """Returns the points of Shapley values: all coalitions where so many fit, else some of them.

    Empty and full coalition come beside the `samples`.
    """
    if groups == 1 or 2**groups - 2 <= samples:
        return all_coalitions(groups)
    return kernel_coalitions(groups, samples, seed)


def all_coalitions(groups: int) -> Coalitions:
    """Returns every coalition but the full one, weighted as Shapley's formula has them.

    The value of a group is the sum, over the coalitions S without it, of `|S|! (n - |S| - 1)! / n!`
    times what the score grows by when it joins (Shapley 1953).
    """
    numbers = np.arange(2**groups - 1)
    kept = (numbers[:, None] >> np.arange(groups)) & 1 == 1
    sizes = kept.sum(1)
    joins = np.array([1 / (groups * math.comb(groups - 1, s)) for s in range(groups)])
    weights = np.where(kept, joins[sizes - 1][:, None], -joins[sizes][:, None])
    return Coalitions(kept, weights)


def kernel_coalitions(groups: int, samples: int, seed: int) -> Coalitions:
    """Returns sampled coalitions, weighted by the constrained least squares of KernelSHAP.

    Sizes are taken from the outside in, a size with its complement. A pair of sizes is taken whole
    where its share of the kernel's weight asks for as many samples as there are such coalitions;
    what is left is drawn by weight, each with its complement, and shares the weight that is left
    (Lundberg and Lee 2017, eq. 9; as the library shap does). The values add up to the score of the
    unchanged sample minus that of the empty coalition (eq. 5's local accuracy).

    Raises:
        InstrumentError: so few coalitions do not say all values.
    """
    weight_of = _chosen(groups, samples, seed)
    kept = np.zeros((len(weight_of), groups), bool)
    for row, members in zip(kept, weight_of, strict=True):
        row[list(members)] = True
    weights = np.array(list(weight_of.values()))
    # The last group's value is what is left of the sum, so that it always adds up.
    rows = kept.astype(np.float64)
    apart = rows[:, :-1] - rows[:, -1:]
    root = np.sqrt(weights)[:, None]
    scaled = apart * root
    sizes, turned = np.linalg.eigh(scaled.T @ scaled)
    if sizes[0] <= sizes[-1] * groups * np.finfo(float).eps:
        raise InstrumentError(
            f"samples={samples} are too few for the values of {groups} groups: the least squares "
            f"have no single solution. Give more (the usual number is {usual_samples(groups)}), or "
            "fewer groups, such as groups='grid:2'."
        )
    solution = (turned / sizes) @ (scaled @ turned).T * root.T  # [groups - 1, points]
    # Of each point counts score - empty - (full - empty) where the last group is in; everything is
    # relative to the full coalition's score.
    of_empty = solution @ (rows[:, -1] - 1.0)
    first = np.concatenate([solution, of_empty[:, None]], axis=1)
    last = -first.sum(0)
    last[-1] -= 1.0
    matrix = np.concatenate([first, last[None]]).T
    return Coalitions(np.concatenate([kept, np.zeros((1, groups), bool)]), matrix)


def usual_samples(groups: int) -> int:
    """Returns how many coalitions are drawn by default, as in shap."""
    return 2 * groups + 2048


def _chosen(groups: int, samples: int, seed: int) -> dict[frozenset[int], float]:
    """Returns coalitions, neither empty nor full, and their weights."""
    half = math.ceil((groups - 1) / 2)
    paired = (groups - 1) // 2
    share = np.array([(groups - 1) / (s * (groups - s)) for s in range(1, half + 1)])
    share[:paired] *= 2
    share /= share.sum()
    found: dict[frozenset[int], float] = {}
    everybody = frozenset(range(groups))
    left, taken = samples, 0
    for size in range(1, half + 1):
        both = size <= paired
        count = math.comb(groups, size) * (2 if both else 1)
        if left * share[size - 1] / share[size - 1 :].sum() < count - 1e-8:
            break
        for members in itertools.combinations(range(groups), size):
            found[frozenset(members)] = share[size - 1] / count
            if both:
                found[everybody - frozenset(members)] = share[size - 1] / count
        left, taken = left - count, size
    rest = share[taken:]
    if left <= 0 or not len(rest):
        return found
    drawn: dict[frozenset[int], int] = {}
    generator = np.random.default_rng(seed)
    sizes = np.arange(taken + 1, half + 1)
    for _ in range(4 * samples):
        if len(drawn) >= left:
            break
        size = int(generator.choice(sizes, p=rest / rest.sum()))
        some = frozenset(generator.choice(groups, size, replace=False).tolist())
        for one in (some, everybody - some) if size <= paired else (some,):
            if one in drawn or len(drawn) < left:
                drawn[one] = drawn.get(one, 0) + 1
    total = sum(drawn.values())
    found.update((one, float(rest.sum()) * n / total) for one, n in drawn.items())
    return found


@functools.lru_cache(maxsize=8)
def lime(groups: int, samples: int, kernel_width: float, ridge: float, seed: int) -> Coalitions:
    """Returns the points of LIME: drawn by the toss of a coin, weighted by ridge regression.

    The weight of a point is `sqrt(exp(-d^2 / kernel_width^2))` with the cosine distance
    `d = 1 - sqrt(kept / groups)` from the unchanged sample, which is one of the `samples`. The
    regression has an intercept, which is not penalised (Ribeiro et al. 2016, sec. 3.4, and the
    authors' library).

    Raises:
        InstrumentError: the kernel is so narrow that no point counts.
    """
    drawn = np.random.default_rng(seed).integers(0, 2, (samples - 1, groups)) == 1
    rows = np.concatenate([np.ones((1, groups), bool), drawn]).astype(np.float64)
    distance = 1 - np.sqrt(rows.mean(1))
    weights = np.sqrt(np.exp(-((distance / kernel_width) ** 2)))
    if weights[rows.min(1) < 1].max(initial=0.0) < _LEAST_WEIGHT:
        raise InstrumentError(
            f"kernel_width={kernel_width} is so small that none of the points counts that "
            f"hide any of the {groups} groups: the fit says nothing. Give a "
            "larger one (the usual is 0.25)."
        )
    root = np.sqrt(weights)[:, None]
    apart = root * (rows - (weights @ rows) / weights.sum())
    if groups <= samples:
        matrix = np.linalg.solve(apart.T @ apart + ridge * np.eye(groups), apart.T)
    else:  # the same, with a matrix of points by points in the place of groups by groups
        matrix = np.linalg.solve(apart @ apart.T + ridge * np.eye(samples), apart).T
    return Coalitions(drawn, (matrix * root.T)[:, 1:].T)
