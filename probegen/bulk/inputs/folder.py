"""Folders: of images, or of files that hold many samples each."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from probegen.bulk.inputs.base import Context, Input, Kinds, Samples
from probegen.bulk.inputs.images import Images
from probegen.errors import InputError
from probegen.runtime.read import images, lines, tables

#: Names that are told of what was left out.
_SHOWN = 5


class Chain(Input):
    """The samples of one file after those of another. One file is open at a time."""

    def __init__(self, names: Sequence[str], open_one: Callable[[str], Input]) -> None:
        """Opens each file once to count its samples.

        Raises:
            InputError: one of them is damaged or does not fit.
        """
        self._files, self._open = list(names), open_one
        self._ends: list[int] = []
        self._paths: list[Path] = []
        self.rows = 0
        self._current: tuple[int, Input] | None = None
        for place in range(len(names)):
            source = self._at(place)
            self.rows += source.rows
            self._ends.append(self.rows)
            self._paths += [path for _, path in source.files()]

    def _at(self, place: int) -> Input:
        if self._current is None or self._current[0] != place:
            self._current = (place, self._open(self._files[place]))
        return self._current[1]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Gives the parts of files that make up some samples: file, rows in it, where they go."""
        place = bisect.bisect_right(self._ends, start)
        at = start
        while at < stop:
            first = self._ends[place - 1] if place else 0
            end = min(stop, self._ends[place])
            yield place, at - first, end - first, at - start
            at, place = end, place + 1

    def names(self, start: int, stop: int) -> list[str]:
        """Returns the file and the number in it of each sample."""
        return [
            f"{self._files[place]}[{row}]"
            for place, first, end, _ in self._pieces(start, stop)
            for row in range(first, end)
        ]

    def read(self, start: int, stop: int) -> Samples:
        """Reads some samples; see `Input.read`."""
        parts = [
            self._at(place).read(first, end).moved(to)
            for place, first, end, to in self._pieces(start, stop)
        ]
        blocks = [block for part in parts for block in part.blocks]
        return Samples(blocks, {row: why for part in parts for row, why in part.errors.items()})

    def files(self) -> Iterator[tuple[str, Path]]:
        """Gives all files."""
        yield from zip(self._files, self._paths, strict=True)


def open_folder(folder: Path, context: Context, kinds: Kinds) -> Input:
    """Opens a folder and those below it, whose files are taken in the order of their paths.

    Where there are images, tables and texts beside them are left out.

    Raises:
        InputError: it holds nothing that can be read, or files of more than one kind.
    """
    known = {suffix: how for suffixes, how in kinds for suffix in suffixes}
    found: list[str] = []
    left_out: list[str] = []
    for path in _walk(folder):
        (found if Path(path).suffix.lower() in known else left_out).append(path)
    if any(_is_picture(name) for name in found):
        # Labels and notes often lie beside images.
        left_out += [name for name in found if _is_note(name)]
        found = [name for name in found if not _is_note(name)]
    if not found:
        raise InputError(f"the folder {folder} holds no file that can be read: {', '.join(known)}.")
    if left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        context.say(f"left out of {folder}: {', '.join(left_out[:_SHOWN])}{more}")
    pictures = [_is_picture(name) for name in found]
    if all(pictures):
        return Images(folder, found, context)
    if any(pictures):
        one, other = found[pictures.index(True)], found[pictures.index(False)]
        raise InputError(
            f"the folder {folder} holds images and other files ({one}, {other}); put them into "
            "folders of their own."
        )
    return Chain(found, lambda name: known[Path(name).suffix.lower()](folder / name, context))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in images.SUFFIXES


def _is_note(name: str) -> bool:
    return Path(name).suffix.lower() in (*tables.SUFFIXES, *lines.SUFFIXES)


def _walk(folder: Path) -> Iterator[str]:
    """Gives the files of a folder and of those below it, sorted; hidden ones are passed over."""

    def stop(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror}.") from error

    for where, below, names in os.walk(folder, onerror=stop):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith((".", "_")):
                yield Path(where, name).relative_to(folder).as_posix()
