"""What a reference moves by when its inputs move by rounding noise.

Noise comes in pairs of opposite signs: where a gate stands within rounding of its edge, one of
the two tips it. On ids, texts and coarse inputs there is none: it goes where the model makes
floating numbers of them (`sources.base.Noise`). What it does not show is what a model rounds by
itself, whatever it is fed: that is what the reference differs by from the same without rounding
(`Reference.without_rounding`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import OutputSpec

Array = npt.NDArray[Any]

#: Size of the noise, relative, by the element type that the model computes in.
NOISE = {"float64": 1e-13, "float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}
#: Of the two of a pair.
SIGNS = (1.0, -1.0)


@dataclasses.dataclass(frozen=True)
class Moved:
    """What one output moves by under noise, sample by sample.

    Attributes:
        by: largest (for gradients Euclidean) absolute change of each sample, under noise or
            without its rounding.
        beside: what the artefact's answer is off by, measured in the same way, from the nearest
            answer under noise: small where noise tips the very gates that rounding tipped.
        unsettled: elements that are not finite, but are under noise.
        rounding: what a sample is rounded by whose reference is nothing but that; NaN for others,
            and where it is not known.
    """

    by: Array
    beside: Array
    unsettled: npt.NDArray[np.bool_]
    rounding: Array

    def with_nearer(self, beside: Array) -> Moved:
        """Returns it with a further figure of what the artefact is off by from other answers."""
        return dataclasses.replace(self, beside=np.minimum(self.beside, beside))

    def of(self, rows: npt.NDArray[np.bool_]) -> Moved:
        """Returns it for some samples; the others count as not moved at all."""
        each = rows.reshape(-1, *[1] * (self.unsettled.ndim - 1))
        return dataclasses.replace(
            self,
            by=np.where(rows, self.by, 0.0),
            beside=np.where(rows, self.beside, np.inf),
            unsettled=self.unsettled & each,
        )

    def joined(self, other: Moved) -> Moved:
        """Returns what it moves by under either noise."""
        return Moved(
            np.maximum(self.by, other.by),
            np.minimum(self.beside, other.beside),
            self.unsettled | other.unsettled,
            np.fmax(self.rounding, other.rounding),
        )


def noisy_feeds(
    feed: Mapping[str, Array],
    computed_in: str,
    rng: np.random.Generator,
    *,
    zeros: bool,
    images: Collection[str] = (),
) -> list[dict[str, Array]]:
    """Returns the inputs with noise on the floating ones, and with the opposite noise.

    Args:
        feed: the inputs.
        computed_in: the coarsest element type that the model computes in.
        rng: where the noise comes from.
        zeros: put noise on zeros too, relative to the largest value. Otherwise zeros stay: they
            are exact in every engine, and often padding.
        images: inputs that become floating numbers on their way into the model, by name.
    """
    size = NOISE[computed_in]
    pair = [dict(feed), dict(feed)]
    for name, value in feed.items():
        if value.dtype.kind in "fV" or name in images:
            exact = value.astype(np.float64)
            largest = np.abs(exact).max(initial=0.0)
            scale = largest if zeros else np.abs(exact)
            noise = size * scale * rng.standard_normal(value.shape)
            for one, sign in zip(pair, SIGNS, strict=True):
                noisy = exact + sign * noise
                one[name] = noisy if name in images else noisy.astype(value.dtype)
    return pair


def moved(output: OutputSpec, expected: Array, got: Array, noisy: Sequence[Array]) -> Moved:
    """Returns how far an output's reference moves in any of the answers under noise."""
    count = len(expected) if expected.ndim else 1
    by, beside, none = np.zeros(count), np.full(count, np.inf), np.full(count, np.nan)
    unsettled = np.zeros(expected.shape, bool)
    if expected.dtype.kind in "OSU" or not expected.ndim or got.shape != expected.shape:
        return Moved(by, beside, unsettled, none)
    right = expected.astype(np.float64)
    for answer in noisy:
        value = answer.astype(np.float64)
        unsettled |= ~np.isfinite(right) & np.isfinite(value)
        by = np.maximum(by, _apart(output, value, right))
        beside = np.minimum(beside, _apart(output, got.astype(np.float64), value))
    return Moved(by, beside, unsettled, none)


def rounded(output: OutputSpec, expected: Array, got: Array, noisy: Sequence[Array]) -> Moved:
    """Returns how far an output's reference is from the one answer without its rounding.

    Where that is as much as what is left, the reference is nothing but rounding.
    """
    found, (exact,) = moved(output, expected, got, noisy), noisy
    if exact.dtype.kind not in "fV" or exact.shape != expected.shape or not exact.ndim:
        return found
    left = _apart(output, np.zeros(exact.shape), exact.astype(np.float64))
    return dataclasses.replace(found, rounding=np.where(left <= found.by, found.by, np.nan))


def _apart(output: OutputSpec, a: Array, b: Array) -> Array:
    """Returns how far each sample of `a` is from `b`, where `b` is finite."""
    with np.errstate(invalid="ignore"):
        off = np.where(np.isfinite(b), np.abs(a - b), 0.0).reshape(len(b), -1)
    off = np.where(np.isnan(off), np.inf, off)
    apart: Array = (
        np.linalg.norm(off, axis=1) if output.is_attribution else off.max(axis=1, initial=0.0)
    )
    return apart


def off_range(expected: Array, got: Array, others: Sequence[Array]) -> Array:
    """Returns how far each sample lies outside of what the reference gives, element by element.

    Which of several equal maxima gets a gradient is for rounding to say, of each by itself. What
    comes out lies between the answers then, or beside them where several add up: by half of what
    they are apart.

    Args:
        expected: the reference.
        got: what the artefact gave.
        others: further answers of the reference.
    """
    if got.shape != expected.shape or not expected.ndim:
        return np.full(len(expected) if expected.ndim else 1, np.inf)
    answers = np.stack([expected, *others]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        low, high = answers.min(axis=0), answers.max(axis=0)
        half = (high - low) / 2
        off = np.maximum(np.maximum(low - half - got, got - high - half), 0.0)
    off = np.where(np.isfinite(expected), np.where(np.isfinite(off), off, np.inf), 0.0)
    return np.asarray(np.linalg.norm(off.reshape(len(off), -1), axis=1))
