"""What requests have beside inputs when an artefact is verified: targets, groups, a region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import BATCH
from probegen.errors import InputError
from probegen.methods.axes import batch_first
from probegen.parity.samples import Batch
from probegen.runtime.groups import sizes_by_axis
from probegen.text import amount

Array = npt.NDArray[Any]

#: The most groups that are drawn where an artefact takes groups.
_GROUPS = 4


def drawn_targets(
    described: Manifest, target: Any, batch: Batch, rng: np.random.Generator
) -> Array:
    """Returns the target of each row: those given, or the argmax and random ones.

    Raises:
        InputError: there is neither one for all samples nor one for each.
    """
    if target is None:
        drawn = rng.integers(0, described.target_classes or 1, batch.size).astype(np.int32)
        drawn[0] = -1
        return drawn
    asked = np.asarray(target)
    if asked.dtype.kind not in "iu" or asked.ndim > 1:
        raise InputError(f"target takes a class index or one for each sample, got {target!r}.")
    if asked.ndim == 0:
        return np.full(batch.size, asked, np.int32)
    if batch.source and max(batch.source) >= len(asked):
        raise InputError(
            f"target has {amount(len(asked), 'entry')}, and there are more samples; give one for "
            "all, or one for each."
        )
    source = batch.source or [i % len(asked) for i in range(batch.size)]
    return asked[list(source)].astype(np.int32)


def drawn_groups(described: Manifest, batch: Batch, rng: np.random.Generator) -> Array | None:
    """Returns groups of positions for a batch, drawn; None where the artefact takes none."""
    spec = described.groups_input
    if spec is None:
        return None
    sizes = {**sizes_by_axis(spec, described, batch.feed), BATCH: batch.size}
    shape = [sizes[a] if n is None else n for a, n in zip(spec.axes, spec.shape, strict=True)]
    most = min(spec.vocabulary or _GROUPS, _GROUPS)
    return rng.integers(0, most, [batch.size, *shape[1:]]).astype(np.int32)


def drawn_region(
    described: Manifest, predictions: Mapping[str, Array], batch: Batch, rng: np.random.Generator
) -> Array | None:
    """Returns weights of positions for a batch, drawn; None where the artefact takes none.

    In turn any numbers, negative ones among them, one position alone, ones, and zeros alone. Sizes
    that nothing tells are 1.
    """
    spec = described.region_input
    if spec is None:
        return None
    sizes: dict[str, int] = {}
    for one in described.predictions:
        named, _ = batch_first(one.axes)
        if not sizes and set(spec.axes) <= set(named):
            sizes = dict(zip(named, predictions[one.name].shape, strict=True))
    shape = [n or sizes.get(a, 1) for a, n in zip(spec.axes, spec.shape, strict=True)][1:]
    found = rng.normal(size=(batch.size, *shape))
    for row in range(batch.size):
        if row % 4 == 1:
            place = tuple(rng.integers(0, shape))
            found[row], found[(row, *place)] = 0.0, found[(row, *place)]
        elif row % 4 > 1:
            found[row] = float(row % 4 == 2)
    return found.astype(np.float32)
