"""Refuses baselines and fills that look like an input's own numbers where it has a stand-in.

What stands for ids are the vectors that they look up, for numbers that are sorted into bins what
is made of these, and for whole numbers what they are computed to and cast. Baselines and fills of
such an input are read in the space of its stand-in: there 103 is not the token of that id, and rows
of training data are no rows of one-hot vectors. What could be either is refused, with both named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import InstrumentError
from probegen.methods.arrays import ByName, StoredArray
from probegen.methods.base import GradientProbe
from probegen.plan import axes
from probegen.plan.explained_tensors import Explained
from probegen.plan.model_view import ModelView, TensorFacts, Tie
from probegen.plan.plan import TWIN

#: Whole numbers that float32 tells from their neighbours.
_MOST_WHOLE = 2**24 - 1


def stands_in(one: Explained) -> bool:
    """Tells whether a tensor that stands for an input holds other numbers than the input."""
    start = one.start
    if start is None or not one.inputs or one.ref.made == TWIN:
        return False
    return start.is_lookup or min(start.ties.values()) < Tie.PART


def described(one: Explained) -> str:
    """Says of a tensor that stands for inputs what it is: `"what 'embed' makes of 'ids'"`."""
    assert one.start is not None
    return f"what {one.start.label!r} makes of {' and '.join(map(repr, one.inputs))}"


def check(probe: GradientProbe, found: Sequence[Explained], view: ModelView) -> None:
    """Refuses numbers that may be an input's own where they would be read as its stand-in's.

    Numbers that are given by the stand-in's own name are its own, and so are 0, numbers that the
    input cannot hold, and arrays of another shape than the input's.

    Args:
        probe: the probe.
        found: what it explains.
        view: the model.

    Raises:
        InstrumentError: there are some; says what would work.
    """
    if not probe.fills:
        return
    value = getattr(probe, probe.fills)
    for one in found:
        given = value
        if isinstance(value, ByName):
            if one.name in value.names and one.name not in one.inputs:
                continue
            given = value.of(one.name, *one.inputs)
        for each in (one, *one.others):
            if stands_in(each):
                _check(probe, given, each, view)
            elif each.ref.is_input and not view.tensor(each.ref).is_float:
                _check_whole(probe, given, each, view)


def _check(probe: GradientProbe, given: Any, one: Explained, view: ModelView) -> None:
    name = one.inputs[0]
    position = view.input_names.index(name)
    if not _may_be_own(given, one, view.input(position), view.holds_ids(position), view):
        return
    assert one.start is not None
    sample = _sizes_of_sample(view.tensor(one.ref))
    sizes = ", ".join("?" if size is None else str(size) for size in sample)
    works = ["0.0"]
    arrays = {f.name for f in dataclasses.fields(probe) if f.type != "float"}
    fits = isinstance(given, StoredArray) and _fits(given.shape, sample)
    if probe.fills in arrays and not fits:
        works.append(f"an array of that, [{sizes}] for a sample")
    points = {point.name for point in view.points if "gradient" in point.probes}
    if one.start.label in points:
        works.append(f"wrt={one.start.label!r}, whose numbers are then meant")
    if not one.start.is_lookup:
        works.append("a model that casts the input before it computes with it")
    raise InstrumentError(
        f"pg.{type(probe).__name__}({probe.fills}={given!r}) may be meant as numbers of input "
        f"{name!r} itself, and would be read as {described(one)}, which is what is explained. "
        f"What works: {'; '.join(works)}."
    )


def _check_whole(probe: GradientProbe, given: Any, one: Explained, view: ModelView) -> None:
    """Refuses numbers that an input of whole numbers, which are hidden themselves, cannot hold.

    Raises:
        InstrumentError: there are some; says which it can.
    """
    dtype = np.dtype(view.tensor(one.ref).dtype)
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    least, most = max(least, -_MOST_WHOLE), min(most, _MOST_WHOLE)
    values = np.asarray(given.values if isinstance(given, StoredArray) else given, np.float64)
    if ((values == np.floor(values)) & (values >= least) & (values <= most)).all():
        return
    raise InstrumentError(
        f"pg.{type(probe).__name__}({probe.fills}={given!r}): input {one.inputs[0]!r} is "
        f"{dtype.name}, which is hidden itself, and takes whole numbers from {least} to {most}. "
        f"Give such, or wrt= a layer behind which values are floating."
    )


def _may_be_own(
    given: Any, one: Explained, own: TensorFacts, holds_ids: bool, view: ModelView
) -> bool:
    """Tells whether numbers given for a stand-in could as well be those of its input."""
    stand_in = _sizes_of_sample(view.tensor(one.ref))
    is_lookup = one.start is not None and one.start.is_lookup
    # What is computed of numbers and has other sizes, a resized picture say, is told by these.
    if own.dtype == "string" or not (is_lookup or stand_in == _sizes_of_sample(own)):
        return False
    whole = not own.is_float or holds_ids
    if isinstance(given, int | float):
        return _legal(np.asarray(given, np.float64), whole, 1)
    if not isinstance(given, StoredArray):
        return False
    if not _fits(given.shape, _sizes_of_sample(own)):
        return False
    # A row of zeros and ones may be a one-hot one, unless one number is to fill all of it.
    fills = given.shape[-1:] == (1,) and stand_in[-1:] != (1,)
    return _legal(given.values, whole, 1 if fills else 2)


def _legal(values: npt.NDArray[Any], whole: bool, least: int) -> bool:
    """Tells whether numbers may be an input's own.

    Args:
        values: the numbers.
        whole: whether the input holds whole numbers; negative ones are none of it then.
        least: the first number that tells: 0 never does, and 1 does not where this is 2.
    """
    if whole:
        return bool((values == np.floor(values)).all() and values.max() >= least)
    return any(value not in range(least) for value in np.unique(values))


def _fits(shape: Sequence[int], sample: axes.Sizes) -> bool:
    """Tells whether an array has the shape of one sample of an input, or of several."""
    if len(shape) not in (len(sample), len(sample) + 1):
        return False
    behind = shape[len(shape) - len(sample) :]
    return all(size is None or have in (1, size) for have, size in zip(behind, sample, strict=True))


def _sizes_of_sample(facts: TensorFacts) -> axes.Sizes:
    return tuple(n for n, a in zip(facts.shape, facts.axes, strict=True) if a != axes.BATCH)
