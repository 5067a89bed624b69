"""Compares a gradient with another tool's, or with differences of the original file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sweep.onnx_models.case import Array, Target

#: Steps of a difference, as shares of an input's spread, from coarse to fine, for scores
#: in float32 and in float64.
STEPS = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
STEPS_DOUBLE = (1e-3, 1e-4, 1e-5)
#: Random directions beside that of the gradient itself.
_DIRECTIONS = 3

_ROUNDINGS_OF_ONE = 5e-7

#: Inputs -> the explained number, summed over the batch.
Score = Callable[[Mapping[str, Array]], float]


def relative_l2(found: Array, expected: Array) -> float:
    """Returns `|found - expected| / |expected|`; infinite where an entry is no number.

    Raises:
        ValueError: their shapes differ, or there is nothing to compare: all expected is 0.
    """
    if found.shape != expected.shape:
        raise ValueError(f"a gradient of shape {found.shape}, expected {expected.shape}")
    size = float(np.linalg.norm(expected))
    if size == 0.0:
        raise ValueError("the expected gradient is 0 throughout: nothing is compared")
    apart = float(np.linalg.norm(found.astype(np.float64) - expected)) / size
    return apart if np.isfinite(apart) else float("inf")


def relative_largest(found: Array, expected: Array) -> float:
    """Returns the largest distance over the largest size of what is expected.

    A few roundings of 1 are none: sigmoids are computed with numbers near 1.

    Raises:
        ValueError: their shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f"an output of shape {found.shape}, expected {expected.shape}")
    if not expected.size:
        return 0.0
    apart = np.abs(found.astype(np.float64) - expected).max()
    size = np.abs(expected.astype(np.float64)).max()
    if apart <= _ROUNDINGS_OF_ONE:
        return 0.0
    return float(apart / size) if size else float(apart)


def directional(
    score: Score,
    inputs: Mapping[str, Array],
    name: str,
    gradient: Array,
    steps: Sequence[float] = STEPS,
) -> float:
    """Returns how far a gradient is from central differences of the score along directions.

    One direction is the gradient's own, the others are random. Of each the best step counts: a
    coarse one meets curvature, a fine one rounding. Distances are relative to what a direction
    of that length is expected to change.

    Raises:
        ValueError: the gradient is 0 throughout.
    """
    flat = gradient.astype(np.float64)
    size = float(np.linalg.norm(flat))
    if size == 0.0:
        raise ValueError("the gradient is 0 throughout: nothing is compared")
    if not np.isfinite(size):
        return float("inf")
    rng = np.random.default_rng(0)
    x = inputs[name].astype(np.float64)
    spread = float(np.std(x)) or 1.0
    ways = [flat / size * np.sqrt(flat.size)]
    ways += [rng.normal(size=flat.shape) for _ in range(_DIRECTIONS)]
    worst = 0.0
    for number, way in enumerate(ways):
        slope = float((flat * way).sum())
        usual = size * (np.sqrt(flat.size) if number == 0 else 1.0)
        found = []
        for step in steps:
            far = step * spread * way
            kind = inputs[name].dtype if steps is STEPS else np.float64
            up, down = ((x + sign * far).astype(kind) for sign in (1, -1))
            rise = score({**inputs, name: up}) - score({**inputs, name: down})
            # What was added is what the inputs' own precision made of it.
            moved = float(((up.astype(np.float64) - down) * way).sum() / (way * way).sum())
            found.append(abs(rise / moved - slope) / usual if moved else float("inf"))
        worst = max(worst, min(found))
    return worst


def entry(output: Array, target: Target, batched: bool) -> float:
    """Returns the sum of a target's entries over an output."""
    if isinstance(target, int):
        return float(output[..., target].astype(np.float64).sum())
    index = tuple(slice(None) if i is None else i for i in target)
    return float(output[(slice(None), *index) if batched else index].astype(np.float64).sum())
