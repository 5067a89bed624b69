"""Attributions of several classes or steps, judged one by one: a row is one of one sample.

Taken together, a faint class would hide behind a strong one, whatever was wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import OutputSpec
from probegen.artefact.rows import BATCH

Array = npt.NDArray[Any]

#: Of so many classes each is heard; of more, the first, the last and one between.
_MOST_HEARD, _FEW_HEARD = 4, 3


def class_axis_of(output: OutputSpec) -> int | None:
    """Returns which axis several classes lie along once rows are first; None where none does."""
    if output.target is None or not output.target.several or not output.is_attribution:
        return None
    others = [axis for axis in output.axes if axis != BATCH]
    several = output.target.axis
    return 1 + others.index(several) if several in others else None


def each_class(output: OutputSpec, values: Array) -> Array:
    """Returns an output, rows first, with a row for each class of each sample."""
    at = class_axis_of(output)
    if at is None or values.ndim <= at:
        return values
    turned = np.moveaxis(values, at, 1)
    return turned.reshape(-1, *turned.shape[2:])


def repeated(output: OutputSpec, values: Array, each: Sequence[Any]) -> list[Any]:
    """Returns what is known of each sample for each row of `each_class`."""
    return [one for one in each for _ in range(count_of(output, values) or 1)]


def labelled(output: OutputSpec, values: Array, labels: Sequence[str]) -> list[str]:
    """Returns what the rows of `each_class` are called."""
    count = count_of(output, values)
    if count is None:
        return list(labels)
    of = "steps" if output.target is not None and output.target.step is not None else "classes"
    return [f"{label}, entry {i} of the {of}" for label in labels for i in range(count)]


def count_of(output: OutputSpec, values: Array) -> int | None:
    """Returns how many classes an output, rows first, explains; None where it has no such axis."""
    at = class_axis_of(output)
    return None if at is None or values.ndim <= at else int(values.shape[at])


def heard(output: OutputSpec, values: Array) -> list[int | None]:
    """Returns the entries of the classes that a witness is heard of; None stands for the one."""
    count = count_of(output, values)
    if count is None:
        return [None]
    if count <= _MOST_HEARD:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, _FEW_HEARD).round()]


def of_entry(output: OutputSpec, values: Array, entry: int | None) -> Array:
    """Returns one class of an output, rows first: a view, into which can be written."""
    at = class_axis_of(output)
    return values if entry is None or at is None else values[(slice(None),) * at + (entry,)]
