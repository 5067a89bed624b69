"""What a bulk run reads: samples in a fixed order, a few at a time."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import (
    GROUPS_INPUT,
    REGION_INPUT,
    TARGET_INPUT,
    InputSpec,
    Manifest,
)
from probegen.artefact.rows import batch_axis
from probegen.errors import InputError
from probegen.runtime.inputs import STRING, Array, check_kind, describe
from probegen.runtime.read import Say, as_given
from probegen.runtime.read.spelling import Spell, keyword


@dataclasses.dataclass(frozen=True)
class Context:
    """What samples are read for.

    Attributes:
        manifest: of the artefact.
        dtype: element type of a raw memory map, which does not tell it itself.
        header: of tables: whether the first row holds names.
        time_column: of series in tables: the column that says what stands at the steps.
        say: called with what the user should know of how samples are read.
        spell: how messages name `header` and `time_column`.
    """

    manifest: Manifest
    dtype: str | None
    header: bool | None
    say: Say
    spell: Spell = keyword
    time_column: str | None = None

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """What a user gives for a sample, in order."""
        return as_given(self.manifest)


@dataclasses.dataclass(frozen=True)
class Block:
    """Samples that fit into one array for each input.

    Attributes:
        rows: their places among the samples that were asked for.
        feed: arrays by input name; what has a batch axis has an entry for each of the rows.
    """

    rows: Sequence[int]
    feed: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some samples: those that could be read, and why others could not.

    Attributes:
        blocks: those that could be read; one block where all have one shape.
        errors: for each other the reason, by its place among the samples that were asked for.
    """

    blocks: Sequence[Block]
    errors: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def moved(self, by: int) -> Samples:
        """Returns the same samples at other places."""
        blocks = [Block([row + by for row in b.rows], b.feed) for b in self.blocks]
        return Samples(blocks, {row + by: why for row, why in self.errors.items()})


class Input(abc.ABC):
    """Samples in a fixed order. What it holds in memory does not grow with their size.

    Attributes:
        rows: how many there are.
    """

    rows: int

    @abc.abstractmethod
    def names(self, start: int, stop: int) -> list[str]:
        """Returns a name for each of some samples: the path of its file, or its number."""

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> Samples:
        """Reads some samples.

        Raises:
            InputError: the file that holds them is damaged.
        """

    @abc.abstractmethod
    def files(self) -> Iterator[tuple[str, Path]]:
        """Gives the files that it is made of, in order, each with the name that it goes by."""


class OneFile(Input):
    """Samples of one file, which go by their numbers."""

    def __init__(self, path: Path, context: Context) -> None:
        self._path, self._context = path, context

    def names(self, start: int, stop: int) -> list[str]:
        """Returns the numbers of the samples."""
        return [str(row) for row in range(start, stop)]

    def files(self) -> Iterator[tuple[str, Path]]:
        """Gives the file."""
        yield "", self._path


class ArrayFile(OneFile):
    """Samples in arrays with one entry for each."""

    def read(self, start: int, stop: int) -> Samples:
        """Reads some samples; see `Input.read`."""
        return Samples([Block(range(stop - start), self.arrays(start, stop))])

    @abc.abstractmethod
    def arrays(self, start: int, stop: int) -> dict[str, Array]:
        """Returns arrays by input name that hold some of the samples."""


def identity(source: Input) -> str:
    """Returns a digest of the names, sizes and times of change of the files of a source.

    Contents are not read: of a large input that alone would take hours.
    """
    digest = hashlib.sha256()
    for name, path in source.files():
        found = status_of(path)
        digest.update(f"{name}\0{found[0]}\0{found[1]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def status_of(path: Path) -> tuple[int, int]:
    """Returns a file's bytes and its time of change in nanoseconds; 0, 0 if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def changed_since(source: Input, nanoseconds: int) -> list[str]:
    """Returns the names of up to three files that were written after a time, or are gone."""
    found = []
    for name, path in source.files():
        when = status_of(path)[1]
        if when == 0 or when > nanoseconds:
            found.append(name)
            if len(found) == 3:
                break
    return found


def matched(found: Sequence[str], context: Context, path: Path, unnamed: bool) -> dict[str, str]:
    """Returns which of the arrays of a file is which input, by the input's name.

    Args:
        found: names of arrays.
        context: what they are read for.
        path: the file, for messages.
        unnamed: whether the names mean nothing but an order.

    Raises:
        InputError: one is missing.
    """
    wanted = [spec.name for spec in context.specs]
    if unnamed and len(found) == len(wanted):
        return dict(zip(wanted, found, strict=True))
    others = [name for name in found if name not in wanted]
    # What would be taken where samples were not read in parts: states, a target.
    meant = {spec.name for spec in context.manifest.inputs} | {
        TARGET_INPUT,
        REGION_INPUT,
        GROUPS_INPUT,
    }
    if set(wanted) <= set(found) and not meant & set(others):
        if others:  # labels often lie beside
            context.say(f"left out of {path}: {', '.join(others)}")
        return {name: name for name in wanted}
    raise InputError(
        f"{path} holds {', '.join(map(repr, found)) or 'no arrays'}; the artefact takes "
        f"{', '.join(map(repr, wanted))}: one array for each, by these names."
    )


def check_array(path: Path, spec: InputSpec, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuses an array that no sample of can be fed, before any is read.

    Raises:
        InputError: its rank, a size or its element type does not fit.
    """
    sized = zip(spec.axes, spec.shape, shape, strict=False)
    wrong = [a for a, n, got in sized if a != "batch" and n is not None and n != got]
    if len(shape) != len(spec.shape) or wrong:
        raise InputError(
            f"{path} has an array of the shape {tuple(shape)} for the input {spec.name!r}, which "
            f"takes {describe(spec.axes, spec.shape)}."
        )
    if spec.dtype != STRING:
        try:
            check_kind(dtype, spec)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def count(path: Path, shapes: Mapping[str, Sequence[int]], specs: Sequence[InputSpec]) -> int:
    """Returns how many samples the arrays of a file hold; 1 where no input has a batch axis.

    Raises:
        InputError: none, or they disagree.
    """
    places = {spec.name: batch_axis(spec.axes) for spec in specs}
    rows = {name: shapes[name][at] for name, at in places.items() if at is not None}
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f"{name!r} has {n}" for name, n in rows.items())
        raise InputError(f"{path}: the arrays must have as many samples each, but {sizes}.")
    found = next(iter(rows.values()), 1)
    if not found:
        raise InputError(f"{path} holds no samples.")
    return found


def part_of(axes: Sequence[str], start: int, stop: int) -> tuple[slice, ...]:
    """Returns the index of some samples of an array."""
    at = batch_axis(axes)
    return () if at is None else (*(slice(None),) * at, slice(start, stop))


#: Opens a file or folder as a source.
Open = Callable[[Path, Context], Input]
#: Suffixes of files, and what opens these.
Kinds = Sequence[tuple[Sequence[str], Open]]
