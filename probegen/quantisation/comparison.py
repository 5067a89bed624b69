"""A quantised artefact against the artefact that it was made of, on the same requests."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    CLASSES,
    COMPLETENESS,
    PREDICTION,
    Manifest,
    OutputSpec,
    class_axis,
)
from probegen.artefact.rows import BATCH, count_rows, fixed_batch, rows_first, some_rows
from probegen.errors import ArtefactError, InputError
from probegen.parity import Parity, Report
from probegen.parity import samples as drawing
from probegen.parity.trials import open_sizes
from probegen.runtime.feeds import Feeds
from probegen.runtime.loaded import Artefact
from probegen.runtime.states import checked_samples

Array = npt.NDArray[Any]

#: Samples that are run together.
_TOGETHER = 8
#: A prediction may be off by so much less than an explanation.
_OF_PREDICTIONS = 0.2


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far explanations may be off, |a - b| / |b|; predictions by a fifth of that.

    Attributes:
        median: in the median sample.
        worst: in any sample.
    """

    median: float
    worst: float


@dataclasses.dataclass(frozen=True)
class Asked:
    """One run of both artefacts.

    Attributes:
        feeds: what is fed, with explanations.
        hard: which rows stand where operations have edges; none of samples that were given.
    """

    feeds: Feeds
    hard: Sequence[bool]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """An output of one sample.

    Attributes:
        right: before.
        now: after.
        relative_to: what it is off relative to.
    """

    right: Array
    now: Array
    relative_to: Array


def requests_of(
    artefact: Artefact, samples: Any, seed: int, described: Manifest | None = None
) -> list[Asked]:
    """Returns runs on samples, a few of them each, or on generated ones of two batch sizes.

    Args:
        artefact: what is run.
        samples: inputs; None for generated ones.
        seed: of these.
        described: its manifest, where some of its open sizes are to be fixed ones.

    Raises:
        InputError: the samples do not fit, or the artefact runs on none that can be made up.
    """
    described = artefact.manifest if described is None else described
    if samples is not None:
        given = checked_samples(artefact.texts.given(samples), described.inputs)
        return [_asked(artefact, chunk, ()) for chunk in _chunks(given, described)]
    rng = np.random.default_rng(seed)
    planned = drawing.planned_rows(described, ())
    for sizes in itertools.islice(drawing.rungs(()), 6):
        try:
            made = []
            for place, rows in enumerate(planned):
                drawn = drawing.draw(described, rows, sizes[min(place, 1)], rng, tame=True)
                asked = _asked(artefact, drawn.feed, drawn.hard)
                artefact.compute(asked.feeds)
                made.append(asked)
        except (ArtefactError, InputError):
            continue  # too small an image, say
        return made
    raise InputError(
        f"{artefact.path!r} runs on no samples that can be made up; pass samples= (--samples FILE)."
    )


def _chunks(given: Mapping[str, Array], described: Manifest) -> list[dict[str, Array]]:
    """Returns samples, a few of them each; what has no batch axis goes to all."""
    count = count_rows(given, described.inputs)
    size = fixed_batch(described.inputs) or _TOGETHER
    return [
        {
            spec.name: some_rows(given[spec.name], spec.axes, slice(start, start + size))
            for spec in described.inputs
        }
        for start in range(0, count, size)
    ]


def _asked(artefact: Artefact, inputs: Mapping[str, Array], hard: Sequence[bool]) -> Asked:
    described = artefact.manifest
    groups = None
    if described.groups_input is not None:
        groups = _groups(described, inputs)
    feeds = artefact.prepare(dict(inputs), groups=groups)
    return Asked(feeds, hard or [False] * count_rows(feeds.inputs, described.inputs))


def _groups(described: Manifest, inputs: Mapping[str, Array]) -> Array:
    """Returns groups of positions, two of them in turn."""
    spec = described.groups_input
    assert spec is not None
    sizes = {
        axis: n
        for one in described.inputs
        if set(spec.axes) <= set(one.axes)
        for axis, n in zip(one.axes, inputs[one.name].shape, strict=True)
    }
    shape = [
        sizes.get(a, 1) if n is None else n for a, n in zip(spec.axes, spec.shape, strict=True)
    ]
    return (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(np.int32)


def compare(
    before: Artefact,
    after: Artefact,
    requests: Sequence[Asked],
    limits: Limits,
    to: str,
    *,
    generated: bool,
) -> Report:
    """Returns how far a quantised artefact is from the one before, an output each.

    The gate, where there is one, is tried both ways. A sample whose predicted class is another one
    now has another explanation; it counts among the predictions, and as undetermined among what
    explains.
    """
    described = before.manifest
    pairs: dict[str, list[_Pair]] = {o.name: [] for o in described.outputs}
    hard: list[bool] = []
    same_class: list[bool] = []
    for asked in requests:
        found = [art.compute(asked.feeds) for art in (before, after)]
        rows = len(asked.hard)
        both = {
            o.name: tuple(rows_first(arrays[o.name], o.axes, rows) for arrays in found)
            for o in described.outputs
        }
        if described.gate:
            plain = after.compute(dataclasses.replace(asked.feeds, explain=False))
            for o in described.predictions:
                alone = rows_first(plain[o.name], o.axes, rows)
                right, now = both[o.name]
                if _off(right, alone, right).max(initial=0) > _off(right, now, right).max(
                    initial=0
                ):
                    both[o.name] = (right, alone)
        for o in described.outputs:
            right, now = both[o.name]
            pairs[o.name] += map(_Pair, right, now, _relative_to(o, described, both))
        same_class += _same_class(described.predictions, both, rows)
        hard += asked.hard
    figures = {
        o.name: _parity(o, pairs[o.name], hard, same_class, limits) for o in described.outputs
    }
    name = described.model.get("name", "the model")
    kept = sum(same_class)
    runs = [
        {"batch": len(a.hard), "rows": [], "sizes": open_sizes(a.feeds.inputs, described)}
        for a in requests
    ]
    return Report(
        artefact=after.path,
        against=f"{name} before it became {to}; {kept} of {len(same_class)} classes are the same",
        samples=len(hard),
        generated=generated,
        outputs=figures,
        runs=runs,
    )


def _same_class(
    predictions: Sequence[OutputSpec], both: Mapping[str, Any], rows: int
) -> list[bool]:
    """Returns for each sample whether the largest score of every prediction is where it was."""
    same = np.ones(rows, bool)
    for spec in predictions:
        right, now = both[spec.name]
        if right.dtype.kind != "f" or right.ndim < 2 or right.shape != now.shape:
            continue
        axes = (BATCH, *(a for a in spec.axes if a != BATCH))
        at = class_axis(axes)
        equal = np.argmax(right, at) == np.argmax(now, at)
        same &= equal.reshape(rows, -1).all(axis=1)
    return [bool(flag) for flag in same]


def _relative_to(
    spec: OutputSpec, described: Manifest, both: Mapping[str, tuple[Array, ...]]
) -> Array:
    """Returns what an output is off relative to, rows first: itself, but for small differences.

    What is missing to completeness is one of large numbers, mostly rounding: it is judged relative
    to all that is summed up.
    """
    if spec.kind != COMPLETENESS:
        return both[spec.name][0]
    summed = described.output(spec.detail["of"])
    axes = (BATCH, *(a for a in summed.axes if a != BATCH))
    over = tuple(i for i, axis in enumerate(axes) if axis != BATCH and axis not in spec.axes)
    total: Array = np.abs(both[summed.name][0].astype(np.float64)).sum(axis=over)
    return total


def _off(right: Array, now: Array, relative_to: Array) -> Array:
    """Returns for each sample how far off it is, infinite where not finite.

    Args:
        right: before, rows first.
        now: after.
        relative_to: what the Euclidean norm of the difference is divided by the norm of.
    """
    if right.shape != now.shape:
        return np.full(len(right), np.inf)
    if right.dtype.kind not in "fiub":
        flat = (right != now).reshape(len(right), -1)
        return np.asarray(flat.mean(axis=1), np.float64)
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (now, right))
    finite = np.isfinite(b)
    spoilt = (np.isfinite(a) != finite).any(axis=1)
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    whole = np.nan_to_num(
        relative_to.reshape(len(relative_to), -1).astype(np.float64), posinf=0.0, neginf=0.0
    )
    size = np.linalg.norm(whole, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.linalg.norm(a - b, axis=1) / size
    off = np.where(size > 0, off, np.where(np.abs(a - b).max(axis=1, initial=0) > 0, np.inf, 0.0))
    return np.where(spoilt, np.inf, off)


def _parity(
    spec: OutputSpec,
    pairs: Sequence[_Pair],
    hard: Sequence[bool],
    same_class: Sequence[bool],
    limits: Limits,
) -> Parity:
    explains = spec.kind != PREDICTION
    share = 1.0 if explains else _OF_PREDICTIONS
    allowed, allowed_worst = limits.median * share, limits.worst * share
    counted = [i for i in range(len(pairs)) if not hard[i] and (same_class[i] or not explains)]
    offs = np.array([_off(p.right[None], p.now[None], p.relative_to[None])[0] for p in pairs])
    ordinary = offs[counted]
    judged = spec.kind != CLASSES
    # Where no sample kept its class, no explanation was compared: nothing says that it is near.
    nothing = np.inf if pairs and explains and judged else 0.0
    middle = float(np.median(ordinary)) if counted else nothing
    apart = [_largest(p.right, p.now) for p in pairs]
    cosines = [_cosine(pairs[i].right, pairs[i].now) for i in counted]
    worst = float(ordinary.max(initial=0.0))
    spoilt = any(_is_spoilt(p.right, p.now) for p in pairs)
    return Parity(
        kind=spec.kind,
        max_abs=max((a for a, _ in apart), default=0.0),
        max_rel=max((r for _, r in apart), default=0.0),
        l2_rel=middle,
        cosine=min(cosines, default=1.0),
        limit=allowed,
        passed=not judged or (middle <= allowed and worst <= allowed_worst and not spoilt),
        worst=worst,
        worst_limit=allowed_worst,
        undetermined=sum(not s for s in same_class) if explains else 0,
        beyond=int((ordinary > allowed).sum()) if judged else 0,
        sample=f"sample {counted[int(np.argmax(ordinary))]}" if counted else "",
        witness="the artefact before it was quantised",
    )


def _is_spoilt(right: Array, now: Array) -> bool:
    """Tells whether numbers are not finite that were, of whatever sample."""
    if right.shape != now.shape or right.dtype.kind != "f":
        return False
    return bool((np.isfinite(right) & ~np.isfinite(now)).any())


def _largest(right: Array, now: Array) -> tuple[float, float]:
    """Returns the largest difference, and the same over the largest number of the sample."""
    if right.shape != now.shape or right.dtype.kind not in "fiub" or not right.size:
        return (0.0, 0.0) if np.array_equal(right, now) else (np.inf, np.inf)
    a, b = now.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        largest = float(np.nan_to_num(np.abs(a - b), nan=0.0).max())
        scale = float(np.nan_to_num(np.abs(b)).max())
    return largest, largest / scale if scale else 0.0


def _cosine(right: Array, now: Array) -> float:
    if right.shape != now.shape or right.dtype.kind not in "fiub":
        return 1.0 if np.array_equal(right, now) else 0.0
    a, b = now.reshape(-1).astype(np.float64), right.reshape(-1).astype(np.float64)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    if not np.isfinite(size):
        return 1.0
    return float(a @ b / size) if size > 0 else float(not a.any() and not b.any())
