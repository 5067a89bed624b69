"""Hard samples: signs, zeros, ties, halves, what is huge and tiny, infinities, no numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

_FINITE = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.25, -0.25, 3.0, -3.0]
_FINITE += [1e-8, -1e-8, 1e-30, -1e-30, 7.3, -7.3, 20.0, -20.0, 88.0, -88.0, 100.0, -100.0]
_FINITE += [1e4, -1e4, 5.999999, 6.000001]
_WHOLE = [0, 1, -1, 2, -2, 3, -3, 5, -5, 7, -7, 8, -8, 100, -100, 127, -128, 31, -31, 64]


def floats(dtype: Any = np.float32, *, wild: bool = True) -> dict[str, tuple[Any, ...]]:
    """Returns samples `[6, 5]`, finite ones and, if `wild`, infinite ones and no numbers."""
    finite = np.array(_FINITE, dtype).reshape(6, 5)
    found = {"finite": (finite,)}
    if wild:
        infinite, no_number = finite.copy(), finite.copy()
        infinite[1::2, ::2], infinite[::2, 1::2] = np.inf, -np.inf
        no_number[::2, ::2] = np.nan
        found |= {"infinite": (infinite,), "NaN": (no_number,)}
    return found


def between(low: float, high: float, dtype: Any = np.float32) -> dict[str, tuple[Any, ...]]:
    """Returns samples `[6, 5]` from low to high, the ends among them."""
    return {"finite": (np.linspace(low, high, 30).astype(dtype).reshape(6, 5),)}


def pairs(dtype: Any = np.float32, *, wild: bool = True, zero: bool = True) -> Any:
    """Returns two inputs that meet every pair of hard numbers: `[n, 1]` and `[n, n]`."""
    values = np.array(_FINITE[:22], dtype)
    other = values if zero else values[values != 0]
    a = np.repeat(values, len(other)).reshape(len(values), len(other))
    b = np.tile(other, (len(values), 1))
    found = {"finite": (a, b)}
    if wild:
        some = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5], dtype)
        c, d = (x.reshape(len(some), len(some)) for x in np.meshgrid(some, some, indexing="ij"))
        known = ~np.isnan(c) & ~np.isnan(d)
        found["infinite"] = (
            np.where(known, c, 1).astype(dtype),
            np.where(known, d, 1).astype(dtype),
        )
        found["NaN"] = (c, d)
    return found


def whole(dtype: Any = np.int32) -> dict[str, tuple[Any, ...]]:
    """Returns integers `[4, 5]` of both signs, where the type has both."""
    values = np.array(_WHOLE)
    if np.dtype(dtype).kind == "u":
        values = np.abs(values)
    return {"integers": (values.astype(dtype).reshape(4, 5),)}


def whole_pairs(dtype: Any = np.int32, *, zero: bool = True) -> Any:
    """Returns two inputs of integers that meet every pair, the second without 0 if asked."""
    values = np.array([0, 1, -1, 2, -2, 3, -3, 5, -5, 7, -7, 100, -100])
    if np.dtype(dtype).kind == "u":
        values = np.unique(np.abs(values))
    other = values if zero else values[values != 0]
    a, b = np.meshgrid(values, other, indexing="ij")
    return {"integers": (a.astype(dtype), b.astype(dtype))}


def normal(*shapes: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Any:
    """Returns inputs drawn from a normal distribution, one a shape."""
    draw = np.random.default_rng(seed)
    return {"drawn": tuple(draw.standard_normal(s).astype(dtype) for s in shapes)}


def ties(dtype: Any = np.float32) -> dict[str, tuple[Any, ...]]:
    """Returns samples `[4, 6]` in which the same numbers come up again and again."""
    draw = np.random.default_rng(2).integers(-2, 3, (4, 6))
    draw[1] = 1
    return {"ties": (draw.astype(dtype),)}
