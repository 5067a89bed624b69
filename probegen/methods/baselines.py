"""Baselines: what a method starts from, as a field of it, and as arrays.

A baseline is a number (for every element), `"blur"` (a blurred copy of the value itself), an array
of one sample's shape, or several such arrays, which have one more axis in front. An array has the
axes of the tensor without that of the samples, in their order; an axis of size 1 holds for all
entries along it. For several tensors there is one baseline for each, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probegen.errors import InstrumentError, SpecError, did_you_mean
from probegen.methods.arrays import ByName, StoredArray, is_array_like, stored_array
from probegen.methods.axes import BATCH, Axes, Sizes, position_axes, sample_axes
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place

#: A number, the words of a blur, an array, or one of these for each tensor.
Baseline = float | str | StoredArray | ByName[Any]

#: Standard deviation of `"blur"`, in positions, and how many of them its window reaches.
BLUR, _REACH = 10.0, 3
_BLUR = re.compile(r"blur(?::([0-9.eE+-]+))?")


def checked_baseline(value: Any, field: str) -> Baseline:
    """Returns what was given for a field as a baseline.

    Raises:
        SpecError: it is none; says what is one.
    """
    if isinstance(value, ByName):
        return value
    if is_array_like(value):
        return stored_array(value, field)
    if isinstance(value, Mapping):
        if not value or not all(isinstance(name, str) for name in value):
            raise SpecError(f"{field}= takes a table of names of inputs or layers, got {value!r}.")
        items = tuple((n, checked_baseline(v, f"{field}[{n!r}]")) for n, v in value.items())
        if any(isinstance(v, ByName) for _, v in items):
            raise SpecError(f"{field}= takes one table of names, not tables within it.")
        return ByName(items)
    if isinstance(value, str) and _sigma(value) is not None:
        return value
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if number and math.isfinite(float(value)):
        return float(value)
    raise SpecError(
        f"{field}= takes a finite number, an array of one sample's shape or several of them, the "
        f"path of an .npy file, 'blur' or 'blur:5', or a table of these by name; got {value!r}."
    )


def checked_samples(value: Any, field: str) -> Baseline:
    """Returns what was given for a field as several baselines: a background.

    Raises:
        SpecError: it is none; says what is one.
    """
    if not is_array_like(value) and not isinstance(value, Mapping | ByName):
        raise SpecError(
            f"{field}= takes an array of samples, [n, ...], the path of an .npy file, or a "
            f"table of these by the names of inputs; got {value!r}."
        )
    return checked_baseline(value, field)


def check_baseline(
    baseline: Baseline, field: str, places: Sequence[tuple[Place, Sizes]], several: bool = False
) -> None:
    """Checks a baseline against the tensors that it is for.

    Args:
        baseline: what is checked.
        field: what it is called in messages: `pg.IntegratedGradients(baseline=...)`.
        places: the tensors and their sizes.
        several: whether there have to be several: a background.

    Raises:
        InstrumentError: it does not fit; says what would.
    """
    known = list(dict.fromkeys(name for place, _ in places for name in place.names))
    if isinstance(baseline, ByName):
        for name in baseline.names:
            if name not in known:
                raise InstrumentError(
                    f"{field} names {name!r}, which is not explained.{did_you_mean(name, known)}"
                )
    elif isinstance(baseline, StoredArray) and len(places) > 1:
        shown = ", ".join(f"{p.name!r} {list(_sample_sizes(p, s))}" for p, s in places)
        raise InstrumentError(
            f"{field} is one array, and several tensors are explained: {shown}. Give one for each, "
            f"{{{places[0][0].name!r}: ..., {places[1][0].name!r}: ...}}, or explain one with wrt=."
        )
    counts = {}
    for place, sizes in places:
        one = baseline_of(baseline, place)
        if one is None:
            raise InstrumentError(f"{field} says nothing for {place.name!r}: give it a value too.")
        if isinstance(one, StoredArray):
            check_shape(one, field, place.name, _sample_sizes(place, sizes), several)
            if is_several(one, place):
                counts[place.name] = one.shape[0]
        elif several:
            raise InstrumentError(f"{field} takes an array for {place.name!r}, got {one!r}.")
        elif isinstance(one, str) and not position_axes(place.axes):
            raise InstrumentError(
                f"{field}: {one!r} blurs over positions, and {place.name!r} has the axes "
                f"{', '.join(place.axes)}, none of which is one. Give a number or an array."
            )
    if len(set(counts.values())) > 1:
        raise InstrumentError(f"{field} takes as many arrays for each tensor, got {counts}.")


def baseline_of(baseline: Baseline, place: Place) -> float | str | StoredArray | None:
    """Returns the baseline of one tensor; None where there is none."""
    return baseline.of(*place.names) if isinstance(baseline, ByName) else baseline


def is_several(baseline: float | str | StoredArray | None, place: Place) -> bool:
    """Tells whether a baseline of a tensor is several."""
    rank = len(sample_axes(place.axes))
    return isinstance(baseline, StoredArray) and len(baseline.shape) > rank


def count_of(baseline: Baseline, places: Sequence[Place]) -> int | None:
    """Returns how many baselines there are; None where there is one."""
    for place in places:
        one = baseline_of(baseline, place)
        if isinstance(one, StoredArray) and is_several(one, place):
            return one.shape[0]
    return None


def written(ops: Operations[T], baseline: Baseline, value: T, place: Place) -> T | float:
    """Returns the baseline of a tensor, which broadcasts to it.

    Several of them have one more axis in front; see `is_several`.
    """
    one = baseline_of(baseline, place)
    if isinstance(one, StoredArray):
        behind = one.values
        if BATCH in place.axes:
            at = place.axes.index(BATCH) + (1 if is_several(one, place) else 0)
            behind = np.expand_dims(behind, at)
        return ops.constant(behind, value)
    if isinstance(one, str):
        return blurred(ops, value, place.axes, _sigma(one) or BLUR)
    return 0.0 if one is None else one


def blurred(ops: Operations[T], value: T, axes: Axes, sigma: float) -> T:
    """Returns a tensor that is blurred over its positions, each channel by itself.

    A Gaussian of standard deviation `sigma` positions, cut off at three of them. Beyond the edges
    there is nothing: what is within the window is weighed, and its weights sum to 1.
    """
    reach = max(1, math.ceil(_REACH * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    found = ops.widened(value)
    for axis in position_axes(axes):
        ones = ops.add(ops.mul(ops.numbered(found, (axis,)), 0.0), 1.0)
        within = ops.correlate(ones, window, axis)
        found = ops.div(ops.correlate(found, window, axis), within)
    return ops.cast(found, value)


def described(baseline: Baseline) -> Any:
    """Returns what the manifest says of a baseline, as plain JSON values."""
    if isinstance(baseline, ByName):
        return {name: described(value) for name, value in baseline.items}
    if isinstance(baseline, StoredArray):
        return {"shape": list(baseline.shape)}
    if isinstance(baseline, str):
        return {"blur": _sigma(baseline)}
    return baseline


def _sigma(text: str) -> float | None:
    """Returns the standard deviation of a blur, in positions; None for another word."""
    found = _BLUR.fullmatch(text)
    if found is None:
        return None
    try:
        sigma = float(found[1]) if found[1] else BLUR
    except ValueError:
        return None
    return sigma if 0 < sigma < math.inf else None


def _sample_sizes(place: Place, sizes: Sizes) -> tuple[int | None, ...]:
    return tuple(sizes[i] for i in sample_axes(place.axes))


def check_shape(
    array: StoredArray, field: str, name: str, sample: Sizes, several: bool = False
) -> None:
    """Refuses an array of another shape than a sample of the tensor, or several of them.

    Args:
        array: what is checked.
        field: what it is called in messages.
        name: of the tensor.
        sample: the sizes of a sample of the tensor; None where one is open.
        several: whether there have to be several.

    Raises:
        InstrumentError: it has another; says which are right.
    """
    rank, wanted = len(array.shape), len(sample)
    known = tuple("?" if d is None else d for d in sample)
    shown = "(" + ", ".join(map(str, known)) + ("," if wanted == 1 else "") + ")"
    many = f"(n, {', '.join(map(str, known))})" if known else "(n,)"
    expected = f"{many}" if several else f"{shown}, or {many} for several"
    if rank != wanted + 1 if several else rank not in (wanted, wanted + 1):
        raise InstrumentError(
            f"{field} has the shape {array.shape} for {name!r}, a sample of which has the "
            f"shape {shown}. Expected {expected}."
        )
    for have, size in zip(array.shape[rank - wanted :], sample, strict=True):
        if have not in (1, size):
            hint = ""
            if None in sample:
                hint = " Where the model takes any size (?), only 1 fits all of them."
            raise InstrumentError(
                f"{field} has the shape {array.shape} for {name!r}, a sample of which has "
                f"the shape {shown}. Expected {expected}; an axis of size 1 holds for all entries "
                f"along it.{hint}"
            )
