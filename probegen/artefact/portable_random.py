"""Random numbers that are the same everywhere: a sample is then kept as its seed.

numpy may change what its distributions draw from one release to the next. These numbers are made
of SplitMix64 (Steele, Lea and Flood 2014) and of sums and products that every machine rounds alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: Standard deviation of a sum of four numbers from 0 to 65535, and their mean.
_DEVIATION, _MEAN = 37837.22722460894, 131070.0


def bits(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """Returns `count` words of 64 random bits."""
    start = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64
        word = start + _STEP * np.arange(1, count + 1, dtype=np.uint64)
        word = (word ^ (word >> np.uint64(30))) * _FIRST
        word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


def normal(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Returns numbers of mean 0 and variance 1, nearly normal: sums of four uniform ones."""
    word = bits(seed, count)
    parts = [(word >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
    total = np.sum(parts, axis=0, dtype=np.uint64).astype(np.float64)
    return np.asarray((total - _MEAN) / _DEVIATION)


def uniform(seed: int, count: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """Returns numbers of `low` to `high`, in steps of 2**-24 of their distance."""
    share = (bits(seed, count) >> np.uint64(40)).astype(np.float64) / 2**24
    return np.asarray(low + share * (high - low))


def integers(seed: int, count: int, low: int, high: int) -> npt.NDArray[np.int64]:
    """Returns whole numbers from `low` up to, and without, `high`."""
    drawn = (bits(seed, count) >> np.uint64(11)) % np.uint64(high - low)
    return drawn.astype(np.int64) + low


def signs(seed: int, count: int, rows: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yields `rows` arrays of `count` numbers that are 1 or -1; 64 rows at most."""
    word = bits(seed, count)
    for row in range(rows):
        yield ((word >> np.uint64(row)) & np.uint64(1)).astype(np.float64) * 2.0 - 1.0
