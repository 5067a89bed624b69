"""Which positions of what is fed hold nothing, as the manifest says it."""

from __future__ import annotations

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
    is_padding = np.isin(arrays[telling.name], np.asarray(told.values))
    is_padding = rows_first(is_padding, telling.axes)
    sizes, features = _positions(spec, arrays[spec.name])
    if telling is spec:
        return np.asarray(is_padding.all(axis=features) if features else is_padding)
    return is_padding.reshape(sizes) if same_positions(spec, telling, arrays) else None


def same_positions(spec: InputSpec, mask: InputSpec, arrays: Mapping[str, Array]) -> bool:
    """Tells whether a mask has as many samples and positions as what it belongs to.

    Args:
        spec: what it belongs to.
        mask: the mask, which may have further axes of one entry.
        arrays: what is fed, by name.
    """
    sizes, _ = _positions(spec, arrays[spec.name])
    of_mask = rows_first(arrays[mask.name], mask.axes).shape
    return [n for n in of_mask if n != 1] == [n for n in sizes if n != 1]


def _positions(spec: InputSpec, array: Array) -> tuple[list[int], tuple[int, ...]]:
    """Returns the sizes of an input's positions, rows first, and its axes that are none."""
    inner = without_batch(spec.axes, spec.axes)
    features = tuple(i + 1 for i, name in enumerate(inner) if name in CHANNEL)
    shape = rows_first(array, spec.axes).shape
    return [n for i, n in enumerate(shape) if i not in features], features


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
