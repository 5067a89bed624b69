"""How nearly the numbers of an attribution add up to what they explain, as an artefact says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from probegen.artefact.manifest import COMPLETENESS, PER_TOKEN_DETAIL, Manifest, OutputSpec
from probegen.artefact.rows import BATCH, rows_first
from probegen.runtime.inputs import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Completeness:
    """What is missing to completeness; see `completeness=` of a probe.

    Attributes:
        missing: the sum of the attribution less what it explains, float64 `[batch]`, or `[batch,
            class]` where several classes are explained at once.
        explained: the score less that of the reference, of the same shape; NaN where the numbers
            are given out as norms, whose sum says nothing.
    """

    missing: Array
    explained: Array

    def said(self, sample: int) -> str:
        """Returns the figures of a sample in words; of several classes those most is missing of."""
        missing, explained = (np.atleast_1d(a[sample]) for a in (self.missing, self.explained))
        worst = int(np.argmax(np.nan_to_num(np.abs(missing), nan=np.inf)))
        at_most = "at most " if len(missing) > 1 else ""
        gap, whole = abs(float(missing[worst])), float(explained[worst])
        of = f" of {whole:.3g}" if np.isfinite(whole) else ""
        return f"completeness: missing {at_most}{gap:.1g}{of}"

    def of_entries(self, entries: Array) -> Completeness:
        """Returns the figures of one class of each sample."""
        at = np.arange(len(self.missing))
        return Completeness(self.missing[at, entries], self.explained[at, entries])


def completeness_of(
    spec: OutputSpec, manifest: Manifest, arrays: Mapping[str, Array]
) -> Completeness | None:
    """Returns the figures beside an attribution; None where it has none.

    Args:
        spec: the attribution.
        manifest: of the artefact.
        arrays: the outputs of the run, by name.
    """
    found = arrays.get(f"{COMPLETENESS}/{spec.name}")
    if found is None or spec.kind == COMPLETENESS:
        return None
    missing = found.astype(np.float64)
    if BATCH not in spec.axes:  # a model of one sample, whose figures have no axis of samples
        missing = missing[None]
    # What moves together has one sum, and the same figure beside each part of it.
    together = [
        other
        for other in manifest.outputs
        if (other.kind, other.target, _stem(other)) == (spec.kind, spec.target, _stem(spec))
        and np.array_equal(arrays.get(f"{COMPLETENESS}/{other.name}", ()), found, equal_nan=True)
        and other.name in arrays
    ]
    total = np.zeros(missing.shape)
    for part in together:
        total = total + _summed(part, arrays[part.name])
    if spec.detail.get(PER_TOKEN_DETAIL) == "norm":
        total = np.full(missing.shape, np.nan)
    return Completeness(missing, total - missing)


def _stem(spec: OutputSpec) -> str:
    """Returns the name of a probe's outputs without what each is of."""
    return spec.name.rpartition("/")[0] or spec.name


def _summed(spec: OutputSpec, array: Array) -> Array:
    """Returns the sum of each sample, `[batch]`, or of each class of it."""
    rows = rows_first(array.astype(np.float64), spec.axes)
    target = spec.target
    at = target.axis if target is not None and target.several else None
    if at not in spec.axes:
        return np.asarray(rows.reshape(len(rows), -1).sum(1))
    named = [BATCH, *(axis for axis in spec.axes if axis != BATCH)]
    turned = np.moveaxis(rows, named.index(at), 1)
    return np.asarray(turned.reshape(*turned.shape[:2], -1).sum(2))
