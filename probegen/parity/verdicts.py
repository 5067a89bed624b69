"""Verdicts on gradients: what slopes of the scores at several steps say of a claim.

A claim is the slope along a direction that a gradient says. It is confirmed, refuted, or left open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probegen.parity.slopes import Slopes

#: A claim may be off by so much of the slope, and is refuted when it is off by more.
CONFIRMS, REFUTES = 0.1, 0.25
#: Where slopes at two steps are sharp, a claim is refuted that is off by this share of the slope
#: and by so many times what they differ by.
FIRMLY, SPREADS, FAR_ABOVE_ROUNDING = 0.05, 4.0, 100.0
#: What a gradient may lie outside of the slopes on both sides of a kink, as a share of them.
OF_KINKS = 0.02
#: What two gradients differ by is looked for where it stands so far above rounding, and has to be
#: there as a difference of the slopes to both sides, up to this share.
VISIBLE, EXPLAINED = 8.0, 0.9
#: A step counts where the slope stands so far above rounding.
ABOVE_ROUNDING = 10.0

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "open"


def verdict(claim: float, slopes: Sequence[Slopes], row: int) -> str:
    """Says what the slopes at several steps mean for a claim.

    The smallest step that stands above rounding decides, since the fewest kinks lie within it.
    To refute, the next larger one must agree, and slopes must settle; see `_settle`. Where they are
    sharp, a claim is refuted that is less far off; see `_firmly_refuted`. That nothing changes is
    confirmed where nothing does, and refutes no claim by one step alone.
    """
    if _firmly_refuted(claim, slopes, row):
        return REFUTED
    if claim == 0:
        still = all(at.ahead[row] == 0 == at.behind[row] for at in slopes)
        return CONFIRMED if still else OPEN
    said, told = [], []
    for at in reversed(slopes):
        low, high = sorted((at.ahead[row], at.behind[row]))
        size = max(abs(claim), abs(low), abs(high))
        if not np.isfinite(size) or size == 0 or size < ABOVE_ROUNDING * at.rounding[row]:
            continue
        told.append(at)
        if high - low > CONFIRMS * size + at.rounding[row]:
            said.append(OPEN)
            continue
        off = max(low - claim, claim - high, 0.0)
        if off <= CONFIRMS * size + at.rounding[row]:
            said.append(CONFIRMED)
        else:
            said.append(REFUTED if off > REFUTES * size + at.rounding[row] else OPEN)
    if said[:1] == [REFUTED] and len(said) > 1:
        return REFUTED if said[1] == REFUTED and _settle(told[0], told[1], row) else OPEN
    if said == [REFUTED] and _is_flat(told[0], row):
        return OPEN
    return said[0] if said else OPEN


def worse(a: str, b: str) -> str:
    """Joins the verdicts of two directions: one that refutes decides, an open one says nothing."""
    return next((v for v in (REFUTED, CONFIRMED) if v in (a, b)), OPEN)


def between_sides(claims: Sequence[float], slopes: Sequence[Slopes], row: int) -> bool:
    """Tells whether claims lie between the slopes on both sides of a sample, and differ as these.

    The smallest step counts that stands above rounding, and at which rounding is small beside what
    the claims differ by. Where slopes agree, a gradient that is a bit off is not explained.
    """
    largest, apart = max(map(abs, claims)), max(claims) - min(claims)
    for at in reversed(slopes):
        low, high = sorted((at.ahead[row], at.behind[row]))
        rounding = at.rounding[row]
        size = max(largest, abs(low), abs(high))
        if not np.isfinite(size):
            return False
        if size < ABOVE_ROUNDING * rounding or apart < VISIBLE * rounding:
            continue
        allowed = OF_KINKS * size + rounding
        within = low - allowed <= min(claims) and max(claims) <= high + allowed
        return bool(within and high - low >= EXPLAINED * apart - 2 * rounding)
    return False


def by_a_kink(claim: float, slopes: Sequence[Slopes], row: int) -> str:
    """Says whether a claim that is refuted is so by more than what points on kinks may add.

    The smallest step decides that stands above rounding.

    Args:
        claim: the claim.
        slopes: as far apart as the gradients that these points may have.
        row: the sample.
    """
    for at in reversed(slopes):
        low, high = sorted((at.ahead[row], at.behind[row]))
        size = max(abs(claim), abs(low), abs(high))
        if size >= ABOVE_ROUNDING * at.rounding[row]:
            off = max(low - claim, claim - high)
            return REFUTED if off > FIRMLY * size + at.rounding[row] else OPEN
    return REFUTED


def _firmly_refuted(claim: float, slopes: Sequence[Slopes], row: int) -> bool:
    """Tells whether a claim is off by much more than slopes at two steps and sides differ by.

    The two smallest steps count that stand far above rounding.
    """
    sharp = []
    for at in reversed(slopes):
        size = max(abs(claim), abs(at.ahead[row]), abs(at.behind[row]))
        if np.isfinite(size) and 0 < FAR_ABOVE_ROUNDING * at.rounding[row] <= size:
            sharp.append(at)
    if len(sharp) < 2 or not _settle(sharp[0], sharp[1], row):
        return False
    found = [slope for at in sharp[:2] for slope in (at.ahead[row], at.behind[row])]
    low, high = min(found), max(found)
    off = max(low - claim, claim - high, 0.0)
    return bool(off > FIRMLY * max(abs(claim), abs(low), abs(high)) + SPREADS * (high - low))


def _is_flat(at: Slopes, row: int) -> bool:
    """Tells whether a step to either side changes nothing but rounding.

    Where it is the only one large enough to be seen, it may have gone over a peak that is narrower,
    such as the greatest of many elements that are nearly as great.
    """
    return bool(max(abs(at.ahead[row]), abs(at.behind[row])) <= at.rounding[row])


def _settle(smaller: Slopes, larger: Slopes, row: int) -> bool:
    """Tells whether slopes are nearer to one number the smaller the step.

    Where both sides differ more at a smaller step, the network bends within it, and the slope at
    the sample itself may be any.
    """
    found = [(at.ahead[row], at.behind[row]) for at in (smaller, larger)]
    apart, before = (abs(ahead - behind) for ahead, behind in found)
    nothing = max(smaller.rounding[row], FIRMLY * max(abs(slope) for slope in found[0]))
    return bool(apart <= before + nothing)
