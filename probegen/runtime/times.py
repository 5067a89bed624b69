"""Labels of the steps of a series: dates, numbers or text."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec
from probegen.errors import InputError, did_you_mean
from probegen.runtime.axes import SEQUENCE, axis_of

Array = npt.NDArray[Any]

#: What stands at each step: of all series, or of each by input name.
Times = Sequence[Any] | Array | Mapping[str, Any]


def as_array(time: Any) -> Array:
    """Returns times as an array, `[time]` or `[batch, time]`.

    Dates of Python become `datetime64`, other objects text, so that all can be kept in a file.

    Raises:
        InputError: they are lists of several lengths.
    """
    try:
        values = np.asarray(time)
    except ValueError as error:
        raise InputError("time holds lists of several lengths; it takes one length.") from error
    if values.dtype.kind != "O":
        return values
    flat = values.reshape(-1).tolist()
    if flat and all(isinstance(t, datetime.date) for t in flat):
        return np.array(flat, dtype="datetime64[us]").reshape(values.shape)
    return np.array([str(t) for t in flat], dtype=str).reshape(values.shape)


def of_sample(time: Any, sample: int) -> Any:
    """Returns the times of one sample, of times for all or for each."""
    if time is None:
        return None
    values = as_array(time)
    return values[sample] if values.ndim == 2 else values


def check(time: Any, inputs: Sequence[InputSpec], arrays: Mapping[str, Array], rows: int) -> None:
    """Checks that times fit the series that were fed.

    Args:
        time: for all series alike, or by input name.
        inputs: of the artefact.
        arrays: what is fed, by name.
        rows: the number of samples.

    Raises:
        InputError: they have another length, another number of samples, or an unknown name.
    """
    if time is None:
        return
    lengths = {}
    for spec in inputs:
        along = axis_of(spec.axes, SEQUENCE)
        if along is not None and spec.name in arrays:
            lengths[spec.name] = arrays[spec.name].shape[along]
    if not isinstance(time, Mapping):
        _check_one("time", time, set(lengths.values()), rows)
        return
    for name, given in time.items():
        if name not in lengths:
            raise InputError(
                f"time has the key {name!r}, which is no input with steps."
                f"{did_you_mean(str(name), lengths)}"
            )
        _check_one(f"time of {name!r}", given, {lengths[name]}, rows)


def _check_one(what: str, time: Any, lengths: set[int], rows: int) -> None:
    values = as_array(time)
    if values.ndim not in (1, 2) or (values.ndim == 2 and len(values) != rows):
        raise InputError(
            f"{what} has the shape {values.shape}; it takes a list with what stands at each step, "
            f"or one for each of the {rows} samples."
        )
    if values.shape[-1] not in lengths:
        has = ", ".join(map(str, sorted(lengths))) or "none"
        raise InputError(
            f"{what} has {values.shape[-1]} entries, but no input has that many steps; there are "
            f"inputs of {has}."
        )
