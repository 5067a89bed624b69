"""What a reference moves by when its inputs move by rounding noise.

Noise comes in pairs of opposite signs: where a gate stands within rounding of its edge, one of
the two tips it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.manifest import GRADIENT_KINDS, OutputSpec

Array = npt.NDArray[Any]

#: Size of the noise, relative, by the element type that the model computes in.
NOISE = {"float64": 1e-13, "float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True)
class Moved:
    """What one output moves by under noise, sample by sample.

    Attributes:
        by: largest (for gradients Euclidean) absolute change of each sample.
        unsettled: elements that are not finite, but are under noise.
    """

    by: Array
    unsettled: npt.NDArray[np.bool_]


def noisy_feeds(
    feed: Mapping[str, Array], computed_in: str, rng: np.random.Generator, *, zeros: bool
) -> list[dict[str, Array]]:
    """Returns the inputs with noise on the floating ones, and with the opposite noise.

    Args:
        feed: the inputs.
        computed_in: the coarsest element type that the model computes in.
        rng: where the noise comes from.
        zeros: put noise on zeros too, relative to the largest value. Otherwise zeros stay: they
            are exact in every engine, and often padding.
    """
    size = NOISE[computed_in]
    pair = [dict(feed), dict(feed)]
    for name, value in feed.items():
        if value.dtype.kind in "fV":
            exact = value.astype(np.float64)
            largest = np.abs(exact).max(initial=0.0)
            scale = largest if zeros else np.abs(exact)
            noise = size * scale * rng.standard_normal(value.shape)
            for one, sign in zip(pair, (1.0, -1.0), strict=True):
                one[name] = (exact + sign * noise).astype(value.dtype)
    return pair


def moved(
    outputs: Sequence[OutputSpec],
    expected: Mapping[str, Array],
    noisy: Sequence[Callable[[], Mapping[str, Array]]] | Sequence[Mapping[str, Array]],
) -> dict[str, Moved]:
    """Returns how far each output's reference moves in any of the noisy answers."""
    return {o.name: _moved(o, expected[o.name], [n[o.name] for n in noisy]) for o in outputs}  # type: ignore[index]


def _moved(output: OutputSpec, expected: Array, noisy: Sequence[Array]) -> Moved:
    if expected.dtype.kind in "OSU" or not expected.ndim:
        return Moved(np.zeros(max(1, len(expected))), np.zeros(expected.shape, bool))
    b = expected.astype(np.float64).reshape(len(expected), -1)
    by = np.zeros(len(b))
    unsettled = np.zeros(b.shape, bool)
    for answer in noisy:
        a = answer.astype(np.float64).reshape(b.shape)
        unsettled |= ~np.isfinite(b) & np.isfinite(a)
        with np.errstate(invalid="ignore"):
            off = np.where(np.isfinite(b), np.abs(a - b), 0.0)
        off = np.where(np.isnan(off), np.inf, off)
        size = (
            np.linalg.norm(off, axis=1)
            if output.kind in GRADIENT_KINDS
            else off.max(axis=1, initial=0.0)
        )
        by = np.maximum(by, size)
    return Moved(by, unsettled.reshape(expected.shape))
