"""Ranges of values: what is fed, against what the artefact was verified on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.errors import InputError
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.read.spelling import Spell, keyword

#: Values that reach so many times beyond those of the verification are called far from them.
_FAR = 10.0
#: What makes values of 0 to 1 of bytes.
_BYTE = 1 / 255
#: Where made-up samples lie: they are drawn from a normal distribution.
_MADE_UP = (-4.0, 4.0)


def by_name(feed: Inputs, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """Returns the arrays that are fed by input name; those that fit no input are left out."""
    if isinstance(feed, Mapping):
        return {s.name: np.asarray(feed[s.name]) for s in specs if s.name in feed}
    if isinstance(feed, list):
        return {s.name: np.asarray(a) for s, a in zip(specs, feed, strict=False)}
    return {specs[0].name: np.asarray(feed)}


def scaled(
    feed: Inputs, specs: Sequence[InputSpec], scale: float, spell: Spell = keyword
) -> Inputs:
    """Returns what is fed with the values of floating inputs multiplied.

    Raises:
        InputError: the artefact has no floating input.
    """
    names = {s.name for s in specs if s.dtype.startswith(("float", "bfloat")) and not s.integer}
    if not names:
        raise InputError(
            f"{spell('scale', scale)} multiplies floating inputs, and the artefact has none."
        )
    given = {
        name: array * np.float32(scale) if name in names and array.dtype.kind in "iuf" else array
        for name, array in by_name(feed, specs).items()
    }
    if isinstance(feed, Mapping):
        return {**feed, **given}
    return list(given.values()) if isinstance(feed, list) else given[specs[0].name]


def span(array: Array) -> tuple[float, float] | None:
    """Returns the least and the greatest finite value, None where there is none."""
    if array.dtype.kind not in "iuf" or not array.size:
        return None
    # NaN and infinity are left out without a copy of the array.
    low = np.fmin.reduce(array, axis=None)
    high = np.fmax.reduce(array, axis=None)
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = array[np.isfinite(array)]
        if not finite.size:
            return None
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def ranges(feed: Mapping[str, Array], specs: Sequence[InputSpec]) -> dict[str, list[float]]:
    """Returns the least and the greatest value of each floating input, for a certificate."""
    spans = {s.name: span(feed[s.name]) for s in specs if _is_measured(s)}
    return {name: list(found) for name, found in spans.items() if found is not None}


def doubts(feed: Inputs, manifest: Manifest, pixels: bool, spell: Spell = keyword) -> Iterator[str]:
    """Yields a line for each floating input whose values are far from those it was verified on.

    Args:
        feed: what is fed.
        manifest: of the artefact; its certificate may tell the range of the samples that the user
            gave. Samples that were made up say nothing of what the model expects, but that pixels
            of 0 to 255 were never tried.
        pixels: whether the values are those of an image.
        spell: how a line names `scale`.
    """
    given = by_name(feed, manifest.inputs)
    certificate = manifest.certificate or {}
    for spec in filter(_is_measured, manifest.inputs):
        array = given.get(spec.name)
        fed = None if array is None else span(array)
        if array is None or fed is None:
            continue
        raw = array.dtype == np.uint8
        if raw:
            yield (
                f"the input {spec.name!r} is fed the bytes of an array of uint8 as they are, "
                f"{_shown(fed)}; {spell('scale', _BYTE)} (1/255) makes values of 0 to 1 of them."
            )
        known = _verified(certificate, spec.name)
        image = pixels or raw or ({"height", "width"} <= set(spec.axes) and _like_bytes(array))
        made_up = known is None and bool(certificate.get("generated")) and image
        if known is None and not made_up:
            continue
        if _far(fed, known or _MADE_UP) and not (made_up and max(map(abs, fed)) <= _MADE_UP[1]):
            where = "made-up values around 0" if known is None else _shown(known)
            yield (
                f"warning: the input {spec.name!r} is fed values of {_shown(fed)}; the artefact "
                f"was verified on {where}. If the model expects values of 0 to 1, pass "
                f"{spell('scale', _BYTE)} (1/255)."
            )


def _is_measured(spec: InputSpec) -> bool:
    floating = spec.dtype.startswith(("float", "bfloat")) and not spec.integer
    return floating and spec.preprocessing is None  # of pictures the graph knows what to make


def _verified(certificate: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Returns the range of an input in the samples of the certificate, where that tells it."""
    told = certificate.get("range")
    found = told.get(name) if isinstance(told, Mapping) else None
    if not isinstance(found, list | tuple) or len(found) != 2:
        return None
    if not all(isinstance(v, int | float) for v in found):
        return None
    return float(found[0]), float(found[1])


def _like_bytes(array: Array) -> bool:
    """Tells whether numbers could be the bytes of an image in another type."""
    low_high = span(array)
    if low_high is None or low_high[0] < 0 or low_high[1] > 255:
        return False
    return bool((array == np.floor(array)).all())


def _far(fed: tuple[float, float], known: tuple[float, float]) -> bool:
    """Tells whether values reach far beyond others, or hardly vary where those do."""
    size, reached = max(map(abs, known)), max(map(abs, fed))
    if not size or not reached:
        return False
    return reached > _FAR * size or (known[1] > known[0] and reached * _FAR < size)


def _shown(values: tuple[float, float]) -> str:
    return f"{values[0]:.4g} to {values[1]:.4g}"
