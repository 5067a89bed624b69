"""Zarr: an array, or a group with an array for each input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from probegen.bulk.extras import zarr
from probegen.bulk.inputs.base import ArrayFile, Context, check_array, count, matched, part_of
from probegen.errors import InputError
from probegen.runtime.inputs import Array

#: Files that make a folder one of Zarr's.
MARKS = ("zarr.json", ".zarray", ".zgroup")


class ZarrArrays(ArrayFile):
    """The arrays of a folder of Zarr's."""

    def __init__(self, path: Path, context: Context) -> None:
        """Opens a folder.

        Raises:
            InputError: it is damaged, or does not fit the inputs.
        """
        super().__init__(path, context)
        library = zarr()
        try:
            opened = library.open(path, mode="r")
        except Exception as error:  # zarr raises KeyError, ValueError and kinds of its own
            raise InputError(f"{path} cannot be read as Zarr: {error}") from error
        if isinstance(opened, library.Array):
            found: dict[str, Any] = {path.name: opened}
        else:
            # By their names where they have those of inputs, which may hold "/".
            named = {s.name: opened[s.name] for s in context.specs if s.name in opened}
            found = named or dict(opened.arrays())
        names = matched(list(found), context, path, unnamed=isinstance(opened, library.Array))
        self._arrays = {name: found[of] for name, of in names.items()}
        for spec in context.specs:
            array = self._arrays[spec.name]
            check_array(path, spec, array.shape, np.dtype(array.dtype))
            _tell_missing(array, spec.name, context)
        shapes = {name: array.shape for name, array in self._arrays.items()}
        self.rows = count(path, shapes, context.specs)

    def arrays(self, start: int, stop: int) -> dict[str, Array]:
        """Returns some rows."""
        found = {}
        for spec in self._context.specs:
            try:
                values = self._arrays[spec.name][part_of(spec.axes, start, stop) or ...]
            except Exception as error:  # a codec raises what it likes of a damaged chunk
                raise InputError(
                    f"{self._path} is damaged: the array {spec.name!r}, rows {start} to "
                    f"{stop - 1}: {error}"
                ) from error
            found[spec.name] = np.asarray(values)
        return found

    def files(self) -> Iterator[tuple[str, Path]]:
        """Gives the files of all chunks."""
        for folder, below, names in os.walk(self._path):
            below.sort()
            for name in sorted(names):
                path = Path(folder, name)
                yield path.relative_to(self._path).as_posix(), path


def _tell_missing(array: Any, name: str, context: Context) -> None:
    """Says where chunks are not there: Zarr leaves out those of one value, and files get lost."""
    there, expected = array.nchunks_initialized, array.nchunks
    if there < expected:
        context.say(
            f"{expected - there} of {expected} chunks of the array {name!r} are not there and are "
            f"read as {array.fill_value}, as Zarr leaves chunks out that hold nothing else"
        )
