"""The `region` argument of a run: what each position of an output counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import count_rows
from probegen.errors import InputError
from probegen.runtime.inputs import Array, check_inputs


def check_region(
    region: npt.ArrayLike | None, manifest: Manifest, feeds: Mapping[str, Array]
) -> Array | None:
    """Returns the float32 `[batch, ...positions]` weights to feed, None where there are none.

    Args:
        region: what was given: for each sample, or for one; an axis of size 1 holds for all
            positions along it; ones where it is None.
        manifest: of the artefact.
        feeds: the inputs.

    Raises:
        InputError: the artefact takes no region, or this one is of another shape or
            type, or not finite.
    """
    spec = manifest.region_input
    if spec is None:
        if region is not None:
            raise InputError(
                "a region was given, but the artefact takes none: compile with region='input' to "
                "give one in each run."
            )
        return None
    rows = count_rows(feeds, manifest.inputs)
    wanted = dataclasses.replace(spec, shape=(rows, *spec.shape[1:]))
    sizes = [1 if n is None else n for n in spec.shape[1:]]
    given = np.ones(sizes, np.float32) if region is None else np.asarray(region)
    if given.dtype.kind == "b":
        given = given.astype(np.float32)
    if given.ndim == len(sizes):
        given = np.broadcast_to(given, (rows, *given.shape))
    if given.ndim == len(wanted.shape):
        # The graph does this where a size is open; where one is known, engines refuse others.
        whole = [n if g == 1 else g for g, n in zip(given.shape[1:], sizes, strict=True)]
        given = np.broadcast_to(given, (len(given), *whole))
    found = check_inputs({spec.name: given}, [wanted])[spec.name]
    if not np.isfinite(found).all():
        raise InputError("region holds numbers that are not finite; it takes plain weights.")
    return found
