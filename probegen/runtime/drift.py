"""Attribution drift: whether attributions are distributed as they were over a reference data set.

`pg.compile(..., reference=samples)` stores how they were. Each attribution is cut into units: the
features of a row, or bins of neighbouring positions, and the size of the whole. Each sample has one
number a unit; their distribution is kept in ten parts that had as many samples each.

Two distances, of the shares p and q in these parts:

- PSI, the population stability index, sum (p - q) ln(p / q) (Siddiqi 2006): customary limits are
  0.1 for a moderate and 0.25 for a large shift. It is the symmetric divergence of Jeffreys 1946;
- JS, the distance of Jensen and Shannon: the root of the mean divergence from the mean of both, in
  bits, 0 to 1 (Lin 1991; Endres and Schindelin 2003).

Where nothing has moved, n and m samples of one distribution have a PSI of about (1/n + 1/m) times a
chi-square variable of one degree of freedom less than there are parts (Yurdakul and Naranjo 2020).
A unit has moved where its PSI is above 0.1 and above what so happens by chance: once in a hundred
reports, over all their units together (`FALSE_ALARMS`).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from probegen.artefact.attribution_reference import PARTS, AttributionReference, OutputReference
from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.artefact.rows import BATCH, batch_axis
from probegen.errors import InputError
from probegen.runtime.inputs import Array, describe
from probegen.runtime.target import ARGMAX
from probegen.text import amount

#: How often, of so many reports, a report says that something moved where nothing has.
FALSE_ALARMS = 0.01
#: A smaller PSI is no shift that matters, whatever the number of samples.
SMALLEST_PSI = 0.1
#: With fewer samples nothing is said.
FEWEST = 30
#: What rounding may move an attribution by, as a share of its size.
_NOISE = 1e-4
#: Units along an axis, by the number of axes that have units.
_BINS = {1: 64, 2: 4, 3: 3}
#: The axis of what is averaged: channels of a position.
_AVERAGED = "channel"
#: The axis whose entries may have names of their own.
_FEATURES = "feature"
#: Name of the last unit.
WHOLE = "size of the whole"


@dataclasses.dataclass(frozen=True)
class UnitDrift:
    """How far one unit has moved.

    Attributes:
        name: which unit, for instance `"feature 3"` or `"height 2/4, width 1/4"`.
        psi: population stability index.
        js: Jensen-Shannon distance, 0 to 1.
        limit: the PSI above which it has moved.
    """

    name: str
    psi: float
    js: float
    limit: float

    @property
    def moved(self) -> bool:
        """Whether it is farther than chance and the smallest shift that matters explain."""
        return self.psi > self.limit


@dataclasses.dataclass(frozen=True)
class OutputDrift:
    """How far one attribution has moved.

    Attributes:
        output: its name.
        samples: how many were compared with the reference.
        units: each of its units.
    """

    output: str
    samples: int
    units: tuple[UnitDrift, ...]

    @property
    def psi(self) -> float:
        """The largest of all units."""
        return max(unit.psi for unit in self.units)

    @property
    def js(self) -> float:
        """The largest of all units."""
        return max(unit.js for unit in self.units)

    @property
    def moved(self) -> tuple[UnitDrift, ...]:
        """Units that have moved, the farthest first; none with fewer samples than `FEWEST`."""
        found = [u for u in self.units if u.moved] if self.samples >= FEWEST else []
        return tuple(sorted(found, key=lambda unit: -unit.psi))


def unit_values(axes: Sequence[str], bins: Mapping[str, int], array: Array) -> Array:
    """Returns one number for each unit of each sample, float64 `[batch, unit]`.

    A unit is the mean over a bin of neighbouring entries (and all channels) of the attribution; the
    last one is the mean of its magnitudes. Bins are relative to the size of an axis, so that
    samples of other sizes have the same units.

    Args:
        axes: a name for each axis of the array, one of which is the batch.
        bins: axis -> bins along it; other axes are averaged.
        array: an attribution.
    """
    at = batch_axis(axes)
    if at is None:
        raise InputError("an attribution without a batch axis has no samples to compare.")
    values = np.moveaxis(np.asarray(array, np.float64), at, 0)
    names = [axis for axis in axes if axis != BATCH]
    size = np.abs(values.reshape(len(values), -1)).mean(1, keepdims=True)
    for place in reversed(range(len(names))):
        count = bins.get(names[place])
        if count is None:
            values = values.mean(place + 1)
            continue
        length = values.shape[place + 1]
        edges = [
            (length * i // count, max(length * (i + 1) // count, length * i // count + 1))
            for i in range(count)
        ]
        pieces = [
            np.take(values, range(a, min(b, length)) or [length - 1], place + 1).mean(place + 1)
            for a, b in edges
        ]
        values = np.stack(pieces, place + 1)
    return np.concatenate([values.reshape(len(values), -1), size], 1)


def bins_of(spec: OutputSpec) -> dict[str, int]:
    """Returns the axes of an attribution that have units, and how many along each."""
    named = zip(spec.axes, spec.shape, strict=True)
    found = {axis: size for axis, size in named if axis not in (BATCH, _AVERAGED)}
    most = _BINS.get(len(found), 2)
    return {axis: min(size or most, most) for axis, size in found.items()}


def unit_names(reference: OutputReference, features: Sequence[str] = ()) -> list[str]:
    """Returns a name for each unit.

    Args:
        reference: the distributions of an attribution.
        features: what the features of the input that it is of are called, where somebody said so.
    """
    parts = []
    for axis, bins in zip(reference.axes, reference.bins, strict=True):
        if axis == _FEATURES and len(features) == bins:
            parts.append(list(features))
        elif len(reference.axes) == 1:
            parts.append([f"{axis} {i}" for i in range(bins)])
        else:
            parts.append([f"{axis} {i + 1}/{bins}" for i in range(bins)])
    names = [""]
    for choices in parts:
        names = [f"{name}, {choice}" if name else choice for name in names for choice in choices]
    return [*(name or "mean" for name in names), WHOLE]


def reference_of(manifest: Manifest, outputs: Mapping[str, Array]) -> AttributionReference:
    """Returns the distributions of attributions over a data set.

    Args:
        manifest: of the artefact.
        outputs: attributions by output name, of all samples of the data set.

    Raises:
        InputError: there are too few samples, or numbers that are not finite.
    """
    found, counts = [], set()
    for spec in attributions(manifest):
        bins = bins_of(spec)
        values = unit_values(spec.axes, bins, outputs[spec.name])
        if not np.isfinite(values).all():
            raise InputError(
                f"the attributions {spec.name!r} of the reference hold numbers that are not "
                "finite; leave out the samples that they are of."
            )
        if len(values) < FEWEST:
            raise InputError(
                f"the reference has {amount(len(values), 'sample')}; a distribution takes at least "
                f"{FEWEST}, and better hundreds."
            )
        scale = float(values[:, -1].mean())
        edges = [_edges(column, scale) for column in values.T]
        parts = [_counts(column, own) for column, own in zip(values.T, edges, strict=True)]
        found.append(
            OutputReference(
                spec.name,
                tuple(bins),
                tuple(bins.values()),
                tuple(tuple(own.tolist()) for own in edges),
                tuple(tuple(own.tolist()) for own in parts),
            )
        )
        counts.add(len(values))
    return AttributionReference(counts.pop(), tuple(found))


def attributions(manifest: Manifest) -> list[OutputSpec]:
    """Returns the outputs of an artefact that are compared."""
    return [s for s in manifest.explanations if s.is_attribution and batch_axis(s.axes) is not None]


def chosen_by_the_model(target: Array | None, rows: int) -> npt.NDArray[np.bool_]:
    """Returns which samples were explained for the class that the model chose.

    Args:
        target: the request's, int32 `[batch]`; None where it has none.
        rows: samples of the request.
    """
    return np.ones(rows, np.bool_) if target is None else np.asarray(target) == ARGMAX


def compared(
    reference: AttributionReference,
    counts: Mapping[str, Sequence[Array]],
    features: Mapping[str, Sequence[str]],
) -> list[OutputDrift]:
    """Returns how far samples are from a reference, for each output that was seen.

    Args:
        reference: what they are compared with.
        counts: output name -> for each unit the samples in its parts.
        features: output name -> names of features, of those outputs that have some.
    """
    seen = [own for own in reference.outputs if own.output in counts]
    units = sum(len(own.counts) for own in seen)
    found = []
    for own in seen:
        drifts = []
        names = unit_names(own, features.get(own.output, ()))
        for name, then, now in zip(names, own.counts, counts[own.output], strict=True):
            old = np.asarray(then, np.float64)
            chance = _by_chance(len(old), old.sum(), now.sum(), units)
            p, q = _shares(old), _shares(np.asarray(now, np.float64))
            drifts.append(UnitDrift(name, _psi(p, q), _js(p, q), max(float(chance), SMALLEST_PSI)))
        found.append(OutputDrift(own.output, int(counts[own.output][0].sum()), tuple(drifts)))
    return found


class Running:
    """The attributions seen lately, counted as the reference was. Safe with several threads.

    Attributes:
        reference: what they are compared with.
        of_requests: names of the outputs whose target a request may say.
    """

    def __init__(self, manifest: Manifest, window: int | None = 1000) -> None:
        """Takes a manifest that holds a reference, and how many samples are kept of each output.

        Raises:
            InputError: the manifest holds no reference.
        """
        if manifest.reference is None:
            raise InputError(
                "the artefact holds no reference to compare attributions with; compile with "
                "reference=samples (--reference FILE)."
            )
        self.reference = manifest.reference
        self._specs = {spec.name: spec for spec in manifest.explanations}
        self._edges = {o.output: [np.asarray(e) for e in o.edges] for o in self.reference.outputs}
        self._bins = {
            o.output: dict(zip(o.axes, o.bins, strict=True)) for o in self.reference.outputs
        }
        self._seen: dict[str, collections.deque[Array]] = {
            o.output: collections.deque(maxlen=window) for o in self.reference.outputs
        }
        self.of_requests = {
            spec.name
            for spec in manifest.explanations
            if spec.target is not None and spec.target.mode == "input"
        }
        named = {spec.name: spec.features for spec in manifest.inputs if spec.features}
        self._features = {
            spec.name: [feature.name for feature in named[spec.input]]
            for spec in manifest.explanations
            if spec.input in named
        }
        self._lock = threading.Lock()

    @property
    def outputs(self) -> list[str]:
        """The attributions that are compared."""
        return list(self._edges)

    def observe(self, outputs: Mapping[str, Array], rows: npt.NDArray[np.bool_]) -> None:
        """Counts attributions.

        Args:
            outputs: arrays by output name; what the reference does not have is passed over.
            rows: which samples were explained for the class that the model chose, which the
                reference is of. Of outputs whose target is the request's, others do not count.

        Raises:
            InputError: an array is no attribution of this artefact: its sizes are others.
        """
        for name in set(outputs) & set(self._edges):
            self._check(self._specs[name], outputs[name].shape)
            values = unit_values(self._specs[name].axes, self._bins[name], outputs[name])
            counted = rows if name in self.of_requests else np.ones_like(rows)
            values = values[counted & np.isfinite(values).all(1)]
            pairs = zip(values.T, self._edges[name], strict=True)
            parts = [np.searchsorted(edges, column, "right") for column, edges in pairs]
            with self._lock:
                self._seen[name].extend(np.stack(parts, 1).astype(np.uint8))

    @staticmethod
    def _check(spec: OutputSpec, found: tuple[int, ...]) -> None:
        expected = [n for a, n in zip(spec.axes, spec.shape, strict=True) if a != BATCH]
        sizes = [n for a, n in zip(spec.axes, found, strict=False) if a != BATCH]
        alike = zip(expected, sizes, strict=False)
        if len(found) != len(spec.axes) or any(n not in (None, got) for n, got in alike):
            raise InputError(
                f"{spec.name!r} has the shape {list(found)}, and the artefact gives "
                f"{describe(spec.axes, spec.shape)}: these are results of another one."
            )

    def drift(self) -> list[OutputDrift]:
        """Returns how far what was seen is from the reference, for each output that was seen."""
        with self._lock:
            seen = {name: np.stack(list(rows)) for name, rows in self._seen.items() if rows}
        counts = {
            name: [
                np.bincount(column, minlength=len(edges) + 1)
                for column, edges in zip(parts.T, self._edges[name], strict=True)
            ]
            for name, parts in seen.items()
        }
        return compared(self.reference, counts, self._features)


def _edges(values: Array, scale: float) -> Array:
    """Returns bounds between parts of about as many values each.

    Values that many samples share (zeros of a rectifier, slopes of a linear model) get a part of
    their own, whose bounds lie `_NOISE` of the scale apart from them: what rounding moves between
    two engines or sizes of a batch stays in it.

    Args:
        values: of the samples.
        scale: how large the attribution is.
    """
    bounds: list[float] = []
    for x in np.quantile(values, np.linspace(0, 1, PARTS + 1)[1:-1], method="inverted_cdf"):
        noise = _NOISE * max(scale, abs(float(x)), float(np.finfo(np.float32).tiny))
        shared = values[np.abs(values - x) <= noise]
        if len(shared) > len(values) / (2 * PARTS):
            bounds += [float(shared.min()) - noise, float(shared.max()) + noise]
        else:
            bounds.append(float(x))
    return np.unique(bounds)


def _counts(values: Array, edges: Array) -> Array:
    counts: Array = np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1)
    return counts


def _shares(counts: Array) -> Array:
    """Returns shares; half a sample is added to each part, so that none is 0 (Jeffreys' prior)."""
    shares: Array = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares


def _psi(p: Array, q: Array) -> float:
    return float(((p - q) * np.log(p / q)).sum())


def _js(p: Array, q: Array) -> float:
    middle = (p + q) / 2
    divergence = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2
    return math.sqrt(max(float(divergence), 0.0))


def _by_chance(parts: int, then: float, now: float, units: int) -> float:
    """Returns the PSI that chance exceeds in one of so many units in `FALSE_ALARMS` of reports.

    The quantile of the chi-square distribution is that of Wilson and Hilferty 1931.
    """
    freedom = max(parts - 1, 1)
    z = statistics.NormalDist().inv_cdf(1 - FALSE_ALARMS / units)
    step = 2 / (9 * freedom)
    quantile = freedom * (1 - step + z * math.sqrt(step)) ** 3
    return quantile * (1 / then + 1 / now)
