"""Judges arrays against a reference, sample by sample.

What each limit protects against:

- **Predictions, activations, attention: every element**, `max |a-b|` of a sample against
  `TOLERANCES` times the largest value. A single wrong element fails. "Largest value" is that of
  the sample or of the ordinary samples, whichever is larger: an output near zero is a sum of
  larger terms and has their rounding; a sample of huge values must not excuse the others.
- **Gradients: the Euclidean distance of every sample.** Two correct engines round differently;
  where that tips a ReLU or a pooling gate, a patch of the gradient moves, and behind a dense
  layer all of it moves a little. So single elements are not held to a limit but the samples'
  `|a-b| / |b|` is, tightly: the median to `GRADIENT_FACTOR * TOLERANCES`, each sample to
  `WORST_FACTOR` times that. A scaled, shifted, permuted or zeroed sample fails, however many
  others are right. Only where this fails is the reference evaluated again under rounding noise:
  a sample may then be off by `NOISE_FACTOR` times what its own reference moves, at most by
  `WORST_CAP`, the median of the samples at most by `NOISE_CAP`. A faint error in all samples
  fails by the median, a gross one in one by its cap. More is allowed where the artefact gives,
  to the strict limit, what the reference gives under noise: the gate that rounding tipped is
  the one that noise tips. Of equal maxima each is tipped by itself, so that element by element
  the answers under noise span what may come out (`noise.off_range`).
- **Direction**: the cosine of every other sample is at least `MIN_COSINE`. A wrong class, a
  swapped axis, a flipped sign fails.
- **The floor**: below it a difference is rounding, whatever the relative figures say. An engine
  may answer 0 where another answers 1e-8. For gradients it is `FLOOR_UNITS` roundings of the
  ordinary samples' own size, or of score over input, which is what a gradient is where nothing
  saturates. Where a reference without its rounding is no more than that rounding, it is
  `NOISE_FACTOR` times the rounding. Where a method takes differences of scores (hiding what does
  not matter), it is `SCORE_UNITS` roundings of the score for each element as well. For predictions
  it is one rounding of the value 1 where the output is made by a function that computes near 1
  (sigmoid, softmax, softplus, 1 - x): runtimes are exact to that, not relative to a probability of
  1e-5. Samples whose reference is below it are counted.
- **Hard samples** (zeros, padding, ties, huge values) stand where functions have edges, and
  there the reference may jump. They are allowed what the reference itself moves by under
  rounding noise, without a cap, and such samples are counted as undetermined. What never
  passes is a value that is not finite where the reference is.
- **Not finite**: where the reference is NaN or infinite, a prediction must be so in the same
  way. Such elements of a gradient are left out. Both are counted. (Ordinary samples never come
  here with such a reference: `reference` refuses them.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import OutputSpec
from probegen.parity.report import GRADIENTS, SOURCE_MODEL, Parity

Array = npt.NDArray[Any]

#: Largest allowed max |a-b| / max |b|, by element type: some hundred units in the last place,
#: which sums over thousands of terms in another order come to.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
#: One unit in the last place of 1.
ROUNDING = {"float64": 2.3e-16, "float32": 1.2e-7, "float16": 9.8e-4, "bfloat16": 7.9e-3}
#: Gradients multiply the rounding of two passes.
GRADIENT_FACTOR = 10.0
#: What the reference moves by under noise counts thrice: an engine rounds in every layer.
NOISE_FACTOR, NOISE_CAP, WORST_CAP = 3.0, 0.1, 0.5
#: A single sample may be off by thrice what the median may.
WORST_FACTOR = 3.0
MIN_COSINE = 0.9
#: Roundings that a gradient may be off by, absolutely.
FLOOR_UNITS = 64.0
#: Roundings of the score that each element of a difference of scores may be off by: a model adds
#: in another order where it is given several changed versions of a sample at once.
SCORE_UNITS = 4.0


@dataclasses.dataclass(frozen=True)
class Rows:
    """What was measured of each sample of one output.

    Attributes:
        hard: whether it is a hard sample.
        largest: the reference's largest absolute value.
        norm: its Euclidean norm.
        got_norm: that of what the artefact gave.
        dot: their inner product.
        difference: largest absolute difference; infinite where something is not finite that
            should be, or the other way round.
        distance: Euclidean norm of the difference, likewise.
        non_finite: elements where the reference is not finite.
        labels: what to call each sample.
    """

    hard: npt.NDArray[np.bool_]
    largest: Array
    norm: Array
    got_norm: Array
    dot: Array
    difference: Array
    distance: Array
    non_finite: Array
    labels: tuple[str, ...]

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Returns the samples of several calls as one."""
        arrays = [f.name for f in dataclasses.fields(Rows) if f.name != "labels"]
        values = {n: np.concatenate([getattr(p, n) for p in parts]) for n in arrays}
        return Rows(**values, labels=tuple(label for p in parts for label in p.labels))


def measure_rows(
    output: OutputSpec,
    got: Array,
    expected: Array,
    hard: Sequence[bool] | None = None,
    labels: Sequence[str] = (),
    unsettled: npt.NDArray[np.bool_] | None = None,
) -> Rows:
    """Measures one output, batch axis first, sample by sample.

    Args:
        output: its kind says what matters.
        got: what the artefact gave.
        expected: the reference.
        hard: which samples are hard; none where left out.
        labels: what to call the samples.
        unsettled: elements of hard samples where the reference is not finite, but is right
            beside; they are left out.
    """
    count = len(expected) if expected.ndim else 1
    flags = np.zeros(count, bool) if hard is None else np.asarray(hard, bool)
    names = tuple(labels) or tuple(f"sample {i}" for i in range(count))
    if got.shape != expected.shape or not expected.ndim:
        same = got.shape == expected.shape and bool(np.array_equal(got, expected))
        off = np.full(count, 0.0 if same else np.inf)
        none = np.zeros(count)
        return Rows(flags, none, none, none, none, off, off, none.astype(int), names)
    a, b = _numbers(got, expected)
    gradient = output.is_attribution
    finite = np.isfinite(b)
    wrong = finite & ~np.isfinite(a)
    if not gradient:
        same_kind = (np.isnan(a) & np.isnan(b)) | (a == b)
        left_out = np.zeros(b.shape, bool) if unsettled is None else unsettled.reshape(b.shape)
        wrong |= ~finite & ~same_kind & ~(left_out & flags[:, None])
    a, b = np.where(finite & np.isfinite(a), a, 0.0), np.where(finite, b, 0.0)
    with np.errstate(over="ignore"):
        off = np.where(wrong, np.inf, np.abs(a - b))
    return Rows(
        hard=flags,
        largest=np.abs(b).max(axis=1, initial=0.0),
        norm=np.linalg.norm(b, axis=1),
        got_norm=np.linalg.norm(a, axis=1),
        dot=(a * b).sum(axis=1),
        difference=off.max(axis=1, initial=0.0),
        distance=np.linalg.norm(off, axis=1),
        non_finite=(~finite).sum(axis=1),
        labels=names,
    )


def compare(
    output: OutputSpec,
    got: Array,
    expected: Array,
    moved: Any = 0.0,
    computed_in: str = "float64",
    *,
    hard: Sequence[bool] | None = None,
    floor: float = 0.0,
    beside: Any = np.inf,
) -> Parity:
    """Compares one output, batch axis first, with its reference.

    Args:
        output: decides the limit by kind and element type.
        got: what the artefact gave.
        expected: what the source model gives.
        moved: what `expected` itself moves by under rounding noise, relative to its Euclidean
            norm (for gradients) or its largest value: one number, or one for each sample.
        computed_in: the coarsest element type on the way, as in mixed precision.
        hard: which samples are hard; none where left out.
        floor: an absolute difference that is known to be rounding.
        beside: what `got` is off by from the nearest reference under noise, likewise.
    """
    rows = measure_rows(output, got, expected, hard)
    size = rows.norm if output.is_attribution else rows.largest
    beside = np.asarray(beside, float)
    near = np.where(np.isfinite(beside), np.where(np.isfinite(beside), beside, 0) * size, np.inf)
    return judge(output, rows, np.asarray(moved) * size, near, computed_in=computed_in, floor=floor)


def judge(
    output: OutputSpec,
    rows: Rows,
    moved: Any = 0.0,
    beside: Any = np.inf,
    rounding: Any = np.nan,
    *,
    computed_in: str = "float64",
    floor: float = 0.0,
) -> Parity:
    """Judges what was measured; see the module for what each limit is for.

    Args:
        output: decides the limit by kind and element type.
        rows: the samples.
        moved: what the reference moves by under rounding noise, absolutely, for each sample.
        beside: what the artefact is off by from the nearest reference under noise, likewise.
        rounding: what samples are rounded by whose reference is nothing else, NaN for others.
        computed_in: the coarsest element type on the way.
        floor: an absolute difference that is known to be rounding.
    """
    rounding = np.broadcast_to(np.asarray(rounding, float), rows.norm.shape)
    moved = np.broadcast_to(np.asarray(moved, float), rows.norm.shape)
    beside = np.broadcast_to(np.asarray(beside, float), rows.norm.shape)
    if output.is_attribution:
        return _judge_gradient(output, rows, moved, beside, rounding, computed_in, floor)
    return _judge_values(output, rows, moved, rounding, computed_in, floor)


def base_limit(output: OutputSpec, computed_in: str) -> float:
    """Returns the relative limit that an output has without noise."""
    limit = TOLERANCES.get(output.dtype, 0.0)
    if limit:
        limit = max(limit, TOLERANCES[computed_in])
    return limit * (GRADIENT_FACTOR if output.is_attribution else 1.0)


def _judge_values(
    output: OutputSpec, rows: Rows, moved: Array, rounding: Array, computed_in: str, floor: float
) -> Parity:
    limit = base_limit(output, computed_in)
    floor = floor if limit else 0.0
    floors = _floors(rows, floor, rounding)
    ordinary = ~rows.hard if not rows.hard.all() else np.ones_like(rows.hard)
    scale = _scale(rows, ordinary)
    strict = limit * scale + floors
    allowed = np.where(rows.hard, np.maximum(strict, NOISE_FACTOR * moved), strict)
    right = np.isfinite(rows.difference) & (rows.difference <= allowed)
    relative = _relative(rows.difference, scale)
    at = _worst(rows.difference, allowed, right)
    return Parity(
        kind=output.kind,
        max_abs=float(rows.difference.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        l2_rel=_median(_relative(rows.distance, rows.norm)[ordinary]),
        cosine=float(_cosines(rows, floors).min(initial=1.0)),
        limit=limit,
        passed=bool(right.all()),
        worst=float(relative[at]) if len(relative) else 0.0,
        worst_limit=limit,
        floor=floor,
        non_finite=int(rows.non_finite.sum()),
        below_floor=int(((rows.largest <= floors) & (floors > 0)).sum()),
        undetermined=int((rows.hard & (NOISE_FACTOR * moved > scale)).sum()),
        sample=rows.labels[at] if rows.labels else "",
        witness=SOURCE_MODEL,
    )


def _judge_gradient(
    output: OutputSpec,
    rows: Rows,
    moved: Array,
    beside: Array,
    rounding: Array,
    computed_in: str,
    floor: float,
) -> Parity:
    limit = base_limit(output, computed_in)
    ordinary = ~rows.hard if not rows.hard.all() else np.ones_like(rows.hard)
    coarser = max(
        (d for d in (output.dtype, computed_in) if d in ROUNDING),
        key=ROUNDING.__getitem__,
        default="float32",
    )
    own_size = _median(rows.norm[ordinary])
    floor = max(floor, FLOOR_UNITS * ROUNDING[coarser] * own_size)
    floors = _floors(rows, floor, rounding)
    slack = NOISE_FACTOR * moved
    capped = np.where(rows.hard, slack, np.minimum(slack, WORST_CAP * rows.norm))
    strict = WORST_FACTOR * limit * rows.norm
    allowed = np.maximum(strict, capped) + floors
    finite = np.isfinite(rows.distance)
    tipped = finite & (beside <= strict + floors) & (rows.distance > strict + floors)
    near = finite & (rows.distance <= allowed) | tipped
    gross = np.where(tipped, np.maximum(slack, rows.distance), slack) > WORST_CAP * rows.norm
    undetermined = finite & (tipped | rows.hard) & gross
    cosines = np.where(undetermined, 1.0, _cosines(rows, floors))
    relative = _relative(rows.distance, np.maximum(rows.norm, own_size * ROUNDING[coarser]))
    off = np.where(tipped, np.minimum(beside, rows.distance), rows.distance)
    beyond = _relative(np.maximum(off - floors, 0.0), rows.norm)
    median_limit = max(limit, min(_median(_relative(slack, rows.norm)[ordinary]), NOISE_CAP))
    right = near & (cosines >= MIN_COSINE)
    at = _worst(rows.distance, allowed, right)
    passed = right.all() and _median(beyond[ordinary]) <= median_limit
    return Parity(
        kind=output.kind,
        max_abs=float(rows.difference.max(initial=0.0)),
        max_rel=float(_relative(rows.difference, _scale(rows, ordinary)).max(initial=0.0)),
        l2_rel=_median(_relative(rows.distance, rows.norm)[ordinary]),
        cosine=float(cosines.min(initial=1.0)),
        limit=median_limit,
        passed=bool(passed),
        worst=float(relative[at]) if len(relative) else 0.0,
        worst_limit=float(_relative(allowed, rows.norm)[at]) if len(relative) else limit,
        floor=floor,
        non_finite=int(rows.non_finite.sum()),
        below_floor=int((rows.norm <= floors).sum()),
        undetermined=int(undetermined.sum()),
        sample=rows.labels[at] if rows.labels else "",
        witness=GRADIENTS,
    )


def _scale(rows: Rows, ordinary: npt.NDArray[np.bool_]) -> Array:
    """Returns the largest value of each sample or of the ordinary ones, whichever is larger."""
    scale: Array = np.maximum(rows.largest, rows.largest[ordinary].max(initial=0.0))
    return scale


def _worst(off: Array, allowed: Array, right: npt.NDArray[np.bool_]) -> int:
    """Returns the position of the sample that is furthest beyond what it is allowed.

    Samples that are wrong come before all that are right.
    """
    if not len(off):
        return 0
    beyond = _relative(off, allowed)
    finite = beyond[np.isfinite(beyond)]
    return int(np.argmax(np.where(right, beyond, beyond + 1.0 + finite.max(initial=0.0))))


def _numbers(got: Array, expected: Array) -> tuple[Array, Array]:
    """Returns both as `[samples, elements]` of float64; strings as whether they are equal."""
    flat = [v.reshape(len(v), -1) if v.size else np.zeros((len(v), 0)) for v in (got, expected)]
    if any(v.dtype.kind in "OSU" for v in flat):
        return np.where(flat[0] == flat[1], 0.0, 1.0), np.zeros(flat[0].shape)
    return flat[0].astype(np.float64), flat[1].astype(np.float64)


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _relative(difference: Any, size: Any) -> Any:
    """Returns difference / size, and the difference itself where the reference is all zeros."""
    return np.where(size > 0, difference / np.where(size > 0, size, 1.0), difference)


def _floors(rows: Rows, floor: float, rounding: Array) -> Array:
    """Returns the floor of each sample: more where the reference is nothing but its rounding.

    Where it is nothing else in most of the ordinary samples, the rounding of one tells that of the
    others.
    """
    alone = np.isfinite(rounding)
    ordinary = ~rows.hard if not rows.hard.all() else np.ones_like(rows.hard)
    most = 2 * (alone & ordinary).sum() > ordinary.sum()
    common = _median(rounding[alone & ordinary]) if most else 0.0
    own = NOISE_FACTOR * np.maximum(np.where(alone, rounding, 0.0), common)
    return np.where(alone, np.maximum(floor, own), floor)


def _cosines(rows: Rows, floor: Array) -> Array:
    """Returns each sample's cosine; 1 where there is no difference, or none beyond rounding."""
    norms = rows.norm * rows.got_norm
    cosines = rows.dot / np.where(norms > 0, norms, 1.0)
    same = rows.distance <= floor
    found: Array = np.where(same, 1.0, cosines)
    return found
