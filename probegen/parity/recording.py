"""Records what a verified artefact answers, so that it can be asked again without its source.

Requests are made up and kept as seeds, even where the user gave samples to verify on: what goes
into an artefact goes wherever it is deployed. They have the sizes of the calls that were verified.
See `probegen.artefact.answers` and `probegen.runtime.verification`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.answers import (
    MOST_ELEMENTS,
    Answer,
    Answers,
    Drawn,
    Request,
    as_numbers,
    samples,
    stored,
)
from probegen.artefact.manifest import KEYS, InputSpec, Manifest, OutputSpec
from probegen.artefact.rows import BATCH, fixed_batch
from probegen.errors import ArtefactError, InputError
from probegen.parity.comparison import FLOOR_UNITS, ROUNDING, TOLERANCES, WORST_CAP, WORST_FACTOR
from probegen.runtime.feeds import Feeds
from probegen.runtime.interface import expected_inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.verification import feeds_of
from probegen.stages import cause

Array = npt.NDArray[Any]

#: Samples of the first and the second request, where any number may be asked.
_SAMPLES = (2, 1)
#: Seeds that are tried, until one gives answers that say something of every output.
_TRIES = 2
#: What an input is moved by to see which answers rounding may change, over what is allowed.
_NOISE = 0.1
#: What noise moves counts thrice: engines round in every layer, and not only at the input.
_NOISE_FACTOR = 3.0
_PIXELS, _UNKNOWN_IDS, _GROUPS = 256, 2, 4


def record(
    artefact: Artefact,
    runs: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
    ranges: Mapping[str, Sequence[float]] | None = None,
) -> Answers:
    """Asks an artefact that was verified, and returns its answers.

    Args:
        artefact: opened.
        runs: sizes that it was verified at, as in `Report.runs`.
        limits: for each output the relative distance that counts as rounding.
        ranges: the least and the greatest value of floating inputs, where they are known.
    """
    engine = artefact.engine.name
    requests: list[Request] = []
    why = ""
    for place, sizes in enumerate(_sizes(artefact.manifest, runs)):
        try:
            requests.append(_best_request(artefact, place, sizes, limits, ranges or {}))
        except Exception as error:  # no reason to refuse an artefact that was verified
            why = why or f"it gives no numbers on samples that are made up: {cause(error)}"
    return Answers(engine, tuple(requests), "" if requests else why)


def _sizes(
    described: Manifest, runs: Sequence[Mapping[str, Any]]
) -> list[tuple[int, Mapping[str, int]]]:
    """Returns number of samples and open sizes of each request; the two differ in all they can."""
    fixed = fixed_batch(described.inputs)
    first, last = (runs[at]["sizes"] if runs else {} for at in (0, -1))
    found = [(fixed or _SAMPLES[0], first), (fixed or _SAMPLES[1], last)]
    return found[:1] if found[0] == found[1] else found


@dataclasses.dataclass(frozen=True)
class _Tried:
    """A request that was asked.

    Attributes:
        request: with its answers.
        blind: samples of outputs that say little: all zeros, or moved much by rounding.
    """

    request: Request
    blind: int


def _best_request(
    artefact: Artefact,
    place: int,
    sizes: tuple[int, Mapping[str, int]],
    limits: Mapping[str, float],
    ranges: Mapping[str, Sequence[float]],
) -> Request:
    """Returns the request of those tried whose answers say most.

    Raises:
        ArtefactError, InputError: the artefact answers none with numbers.
    """
    best: _Tried | None = None
    failed: Exception | None = None
    for attempt in range(_TRIES):
        try:
            request = _request(artefact.manifest, place, attempt, sizes, ranges)
            tried = _asked(artefact, request, limits)
        except (ArtefactError, InputError) as error:
            failed = failed or error
            continue
        if best is None or tried.blind < best.blind:
            best = tried
        if not best.blind:
            break
    if best is None:
        assert failed is not None
        raise failed
    return best.request


def _request(
    described: Manifest,
    place: int,
    attempt: int,
    sizes: tuple[int, Mapping[str, int]],
    ranges: Mapping[str, Sequence[float]],
) -> Request:
    """Returns a request without answers."""
    own = {spec.name for spec in described.inputs}
    drawn = []
    seed = 1000 * place + 100 * attempt
    for number, spec in enumerate(s for s in expected_inputs(described) if s.name in own):
        drawn.append(_drawn(spec, _shape(spec, sizes), seed + number, ranges.get(spec.name)))
    shapes = {d.name: d.shape for d in drawn}
    asked = []
    for number, spec in enumerate(s for s in expected_inputs(described) if s.name not in own):
        if not spec.axes:  # the gate
            continue
        shape = _asked_shape(spec, described, shapes, sizes[0])
        asked.append(_drawn_asked(spec, shape, seed + 50 + number, described))
    return Request(tuple(drawn), tuple(asked), ())


def _shape(spec: InputSpec, sizes: tuple[int, Mapping[str, int]]) -> tuple[int, ...]:
    """Returns the shape of an input; an open size that was not verified is that of any other."""
    rows, known = sizes
    other = max(known.values(), default=1)
    return tuple(
        rows if axis == BATCH else known.get(f"{spec.name}[{axis}]", other) if n is None else n
        for axis, n in zip(spec.axes, spec.shape, strict=True)
    )


def _drawn(
    spec: InputSpec, shape: tuple[int, ...], seed: int, known: Sequence[float] | None
) -> Drawn:
    """Returns how an input is drawn: what it takes, within the range where that is known."""
    if spec.dtype == "string":
        return Drawn(spec.name, spec.dtype, shape, "words", seed)
    if spec.preprocessing is not None:
        return Drawn(spec.name, spec.dtype, shape, "integers", seed, 0, _PIXELS)
    if spec.dtype == "bool":
        return Drawn(spec.name, spec.dtype, shape, "integers", seed, 0, 2)
    if spec.integer or not spec.dtype.startswith(("float", "bfloat")):
        usual = _PIXELS if spec.dtype == "uint8" else _UNKNOWN_IDS
        return Drawn(spec.name, spec.dtype, shape, "integers", seed, 0, spec.vocabulary or usual)
    if known is not None and known[0] < known[1]:
        return Drawn(spec.name, spec.dtype, shape, "uniform", seed, known[0], known[1])
    return Drawn(spec.name, spec.dtype, shape, "normal", seed)


def _asked_shape(
    spec: InputSpec,
    described: Manifest,
    shapes: Mapping[str, tuple[int, ...]],
    rows: int,
) -> tuple[int, ...]:
    """Returns the shape of what is fed beside the model's inputs; 1 where nothing tells a size."""
    known: dict[str, int] = {}
    for own in described.inputs:
        known |= dict(zip(own.axes, shapes[own.name], strict=True))
    known[BATCH] = rows
    return tuple(
        known.get(axis, 1) if n is None else n
        for axis, n in zip(spec.axes, spec.shape, strict=True)
    )


def _drawn_asked(spec: InputSpec, shape: tuple[int, ...], seed: int, described: Manifest) -> Drawn:
    """Returns how a target, a region or groups are drawn."""
    if spec.dtype.startswith("float"):
        return Drawn(spec.name, spec.dtype, shape, "uniform", seed, 0.0, 1.0)
    groups = described.groups_input
    if groups is not None and spec.name == groups.name:
        return Drawn(
            spec.name,
            spec.dtype,
            shape,
            "integers",
            seed,
            0,
            min(spec.vocabulary or _GROUPS, _GROUPS),
        )
    return Drawn(spec.name, spec.dtype, shape, "integers", seed, 0, described.target_classes or 1)


def _asked(artefact: Artefact, request: Request, limits: Mapping[str, float]) -> _Tried:
    """Asks a request, and again with noise on its input.

    Raises:
        ArtefactError: the engine fails, or an answer holds nothing that is a number.
    """
    described = artefact.manifest
    feeds = feeds_of(request)
    found = artefact.compute(feeds)
    size = _NOISE * min(
        (limits[o.name] for o in described.predictions if limits.get(o.name)), default=1e-4
    )
    noisy = [artefact.compute(_with_noise(feeds, size * sign)) for sign in (1.0, -1.0)]
    blind = 0
    kept: list[Answer] = []
    for spec in described.outputs:
        array = found[spec.name]
        _check_numbers(spec, array)
        limit = limits.get(spec.name) or TOLERANCES.get(spec.dtype, TOLERANCES["float32"])
        allowed, says = _allowed(spec, array, [n[spec.name] for n in noisy], limit)
        blind += sum(not s for s in says)
        kept.append(stored(spec.name, array, spec.axes, allowed))
    return _Tried(dataclasses.replace(request, answers=tuple(kept)), blind)


def _check_numbers(spec: OutputSpec, array: Array) -> None:
    if array.size > MOST_ELEMENTS:
        raise ArtefactError(f"{spec.name!r} has {array.size} elements.")
    floating = array.dtype.kind in "fVc" and array.size
    if floating and not np.isfinite(as_numbers(samples(array, spec.axes))).any():
        raise ArtefactError(f"{spec.name!r} is not finite.")


def _with_noise(feeds: Feeds, size: float) -> Feeds:
    """Returns feeds whose floating inputs are moved, each element by its own size."""
    rng = np.random.default_rng(0)
    moved = dict(feeds.inputs)
    for name, array in feeds.inputs.items():
        if array.dtype.kind in "fV":
            noisy = array.astype(np.float64) * (1 + size * rng.standard_normal(array.shape))
            moved[name] = noisy.astype(array.dtype)
    return dataclasses.replace(feeds, inputs=moved)


def _allowed(
    spec: OutputSpec, array: Array, noisy: Sequence[Array], limit: float
) -> tuple[list[float | None], list[bool]]:
    """Returns for each sample the distance that is rounding, and whether the answer says much."""
    rows = samples(array, spec.axes)
    if spec.kind == KEYS:  # of equal weights, of two equal tokens say, engines take either
        return [None] * len(rows), [True] * len(rows)
    if array.dtype.kind not in "fVc":
        same = np.ones(len(rows), bool)
        for other in noisy:
            there = samples(other, spec.axes) if other.shape == array.shape else ~rows
            same &= (there == rows).all(axis=1)
        return [0.0 if s else None for s in same], [bool(s) for s in same]
    flat = _finite(as_numbers(rows))
    norm = np.linalg.norm(flat, axis=1)
    moved = np.zeros(len(rows))
    for other in noisy:
        if other.shape != array.shape:
            return [None] * len(rows), [False] * len(rows)
        apart = _finite(as_numbers(samples(other, spec.axes))) - flat
        moved = np.maximum(moved, np.linalg.norm(apart, axis=1))
    unit = ROUNDING.get(spec.dtype, ROUNDING["float32"])
    factor = WORST_FACTOR if spec.is_attribution else 1.0
    slack = np.minimum(_NOISE_FACTOR * moved, WORST_CAP * norm)
    floor = FLOOR_UNITS * unit * max(1e-30, float(np.median(norm)))
    allowed = factor * limit * norm + slack + floor
    says = (norm > 0) & (_NOISE_FACTOR * moved < _NOISE * norm)
    return [float(a) for a in allowed], [bool(s) for s in says]


def _finite(flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.isfinite(flat), flat, 0.0)
