"""Where records are put: in parts that are there whole or not at all.

A part holds the records of a fixed range of samples. It is done when it is there, so that a run
that was killed goes on with the parts that are not.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.bulk.records import Records, own_names, sample_shape

#: Bytes of records that are held before they are written, and that a part has at most.
_HELD, _PART = 2**24, 2**27
_MOST_ROWS = 8192
#: What an open size is taken for where bytes are estimated.
_OPEN = 512


@dataclasses.dataclass(frozen=True)
class Layout:
    """What records look like, and how they are divided.

    Attributes:
        outputs: what is written of each sample.
        rows: the number of samples.
        rows_at_once: how many records are written at a time; parts begin at multiples of it.
        rows_a_part: how many records make up a part; the last has fewer.
        sample: name of the column of names.
        error: name of the column of errors.
        target: name of the column of targets, None where the artefact takes none.
    """

    outputs: tuple[OutputSpec, ...]
    rows: int
    rows_at_once: int
    rows_a_part: int
    sample: str
    error: str
    target: str | None

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.rows // self.rows_a_part)

    def range_of(self, part: int) -> tuple[int, int]:
        """Returns the first sample of a part, and the one after its last."""
        return part * self.rows_a_part, min((part + 1) * self.rows_a_part, self.rows)


def layout_of(
    manifest: Manifest,
    outputs: Sequence[OutputSpec],
    rows: int,
    batch_size: int,
    rows_a_part: int | None,
) -> Layout:
    """Divides samples into parts, by how much is written of each.

    Args:
        manifest: of the artefact.
        outputs: what is written.
        rows: the number of samples.
        batch_size: how many run at a time; parts and what is written at once are whole batches.
        rows_a_part: how many make up a part, rounded up to whole batches; None chooses.
    """
    size = sum(
        math.prod(_OPEN if n is None else n for n in sample_shape(spec)) * _itemsize(spec.dtype)
        for spec in outputs
    )

    def batches(most: int) -> int:
        return max(min(most // max(size, 1), _MOST_ROWS) // batch_size, 1)

    at_once = batches(_HELD)
    if rows_a_part is not None:
        at_once = min(at_once, -(-rows_a_part // batch_size))
        wanted = -(-rows_a_part // (at_once * batch_size))
    else:
        wanted = max(batches(_PART) // at_once, 1)
    step = at_once * batch_size
    return Layout(tuple(outputs), rows, step, step * wanted, *own_names(manifest))


def _itemsize(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize or 64  # a text
    except TypeError:
        return 4


class Store(abc.ABC):
    """A place for records."""

    @classmethod
    @abc.abstractmethod
    def check(cls, layout: Layout) -> None:
        """Refuses what the format cannot hold, before anything is written.

        Raises:
            InputError: the library is not installed, or there is such a thing.
        """

    @staticmethod
    @abc.abstractmethod
    def journal(place: Path) -> dict[str, Any] | None:
        """Returns what `begin` and `finish` wrote at a place, None where they wrote nothing."""

    @abc.abstractmethod
    def __init__(self, place: Path, layout: Layout) -> None: ...

    @abc.abstractmethod
    def clear(self) -> None:
        """Removes all records; what tells which parts are done goes first."""

    @abc.abstractmethod
    def begin(self, journal: dict[str, Any]) -> None:
        """Writes what the run is, in one step; there are no parts yet."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Removes what a run that was killed has left half-written."""

    @abc.abstractmethod
    def done(self) -> set[int]:
        """Returns the parts that are there."""

    @abc.abstractmethod
    def write(self, part: int, records: Iterable[Records]) -> None:
        """Writes a part, whole or not at all.

        Args:
            part: its number.
            records: of its samples in order, `Layout.rows_at_once` at a time.
        """

    @abc.abstractmethod
    def finish(self, journal: dict[str, Any]) -> None:
        """Writes, in one step, that all parts are there."""

    @abc.abstractmethod
    def read(self, names: Sequence[str] | None = None) -> Iterator[Records]:
        """Gives records that are there, in order, some at a time.

        Args:
            names: outputs that are wanted; all of them where it is None.
        """
