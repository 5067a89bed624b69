"""The pointing game: whether the strongest position lies on the object (Zhang et al. 2018)."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError
from probegen.runtime.arguments import counted
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.metrics.explained import Explained
from probegen.runtime.request import Request


def pointing_game(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    masks: npt.ArrayLike,
    tolerance: int = 0,
    **request: Unpack[Request],
) -> Array:
    """Returns whether the largest number of an attribution lies on the object.

    Zhang et al. 2018, sec. 4.1, where the tolerance is 15 pixels. Where several positions share the
    largest number, one of them on the object is enough. The mean over the samples is the accuracy.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        masks: true on the object, `[batch, ...positions]`; positions are all axes of the input but
            batch and channels.
        tolerance: a hit may be this many positions away, in Euclidean distance.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`: 1 for a hit, 0 for a miss, NaN where a mask is empty.

    Raises:
        InputError: there is no such attribution, or inputs or masks do not fit.
    """
    reach = counted("tolerance", tolerance, at_least=0)
    explained = Explained.of(artefact, inputs, output, request)
    heat = explained.map()
    regions = np.asarray(masks)
    if regions.shape != heat.shape or regions.dtype.kind not in "biuf":
        raise InputError(
            f"masks has the shape {regions.shape} and type {regions.dtype}; expected booleans "
            f"{list(heat.shape)}: {', '.join(('batch', *explained.positions.axes))}."
        )
    pairs = zip(heat, regions != 0, strict=True)
    return np.array([_hit(values, region, reach) for values, region in pairs])


def _hit(values: Array, region: Array, reach: int) -> float:
    if not region.any():
        return np.nan
    strongest, inside = np.argwhere(values == values.max()), np.argwhere(region)
    for place in strongest:
        if ((inside - place) ** 2).sum(1).min() <= reach**2:
            return 1.0
    return 0.0
