"""Which positions of what is fed hold nothing, as the manifest says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec
from probegen.artefact.rows import rows_first, without_batch
from probegen.runtime.axes import CHANNEL

Array = npt.NDArray[Any]


def padded_positions(
    spec: InputSpec, specs: Sequence[InputSpec], arrays: Mapping[str, Array]
) -> npt.NDArray[np.bool_] | None:
    """Returns where an input is padding, `[batch, ...positions]`; None where that is not known.

    Args:
        spec: the input.
        specs: all inputs.
        arrays: what is fed, by name.
    """
    told = spec.padding
    telling = None if told is None else next((s for s in specs if s.name == told.input), None)
    if told is None or telling is None or telling.name not in arrays or spec.name not in arrays:
        return None
    given = rows_first(np.asarray(arrays[telling.name]), telling.axes)
    is_padding = np.isin(given, np.asarray(told.values))
    array = rows_first(np.asarray(arrays[spec.name]), spec.axes)
    inner = without_batch(spec.axes, spec.axes)
    features = tuple(i + 1 for i, name in enumerate(inner) if name in CHANNEL)
    if telling is spec:
        return np.asarray(is_padding.all(axis=features) if features else is_padding)
    kept = [n for i, n in enumerate(array.shape) if i not in features]
    if is_padding.size != math.prod(kept):
        return None
    return is_padding.reshape(kept)


def padded_steps(
    spec: InputSpec, specs: Sequence[InputSpec], arrays: Mapping[str, Array], row: int
) -> npt.NDArray[np.bool_] | None:
    """Returns which steps of one sample of a sequence are padding, `[time]`; None if not known."""
    found = padded_positions(spec, specs, arrays)
    if found is None:
        return None
    one = found[min(row, len(found) - 1)]
    wide = one.reshape([n for n in one.shape if n != 1] or [1])
    return wide if wide.ndim == 1 else None
