"""`.npz` files: each array is unpacked as its rows are wanted, and never whole."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from probegen.artefact.rows import batch_axis
from probegen.bulk.inputs.base import ArrayFile, Context, check_array, count, matched
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.runtime.read.arrays import damaged, read_header

_CHUNK = 2**22


class PackedArrays(ArrayFile):
    """The arrays of an .npz file.

    Reading forward is cheap; what lies before the last rows that were read, or far after, has to be
    unpacked from the first row on.
    """

    def __init__(self, path: Path, context: Context) -> None:
        """Opens a file.

        Raises:
            InputError: it is damaged, or does not fit the inputs.
        """
        super().__init__(path, context)
        try:
            self._members = {
                name.removesuffix(".npy"): Member(path, name)
                for name in zipfile.ZipFile(path).namelist()
            }
        except Exception as error:  # zipfile, numpy and ast raise a dozen kinds
            raise damaged(path, error) from error
        found = list(self._members)
        unnamed = found == [f"arr_{i}" for i in range(len(found))]
        self._names = matched(found, context, path, unnamed)
        self._whole: dict[str, Array] = {}
        for spec in context.specs:
            member = self._members[self._names[spec.name]]
            check_array(path, spec, member.shape, member.dtype)
            at = batch_axis(spec.axes)
            if at is None:
                self._whole[spec.name] = member.rows(0, None)
            elif at or (member.fortran and len(member.shape) > 1):
                raise InputError(
                    f"{path}: the samples of {spec.name!r} do not lie one after the other, so that "
                    "the file cannot be read in parts. Save the array as .npy."
                )
        shapes = {name: self._members[member].shape for name, member in self._names.items()}
        self.rows = count(path, shapes, context.specs)

    def arrays(self, start: int, stop: int) -> dict[str, Array]:
        """Returns some rows."""
        try:
            return {
                name: self._whole[name]
                if name in self._whole
                else self._members[member].rows(start, stop)
                for name, member in self._names.items()
            }
        except Exception as error:
            raise damaged(self._path, error) from error


class Member:
    """One array of an .npz file, which is unpacked from its beginning on."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._file: IO[bytes] | None = None
        self._next = 0
        self.shape, self.fortran, self.dtype = self._open()

    def _open(self) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        if self._file is not None:
            self._file.close()
        with zipfile.ZipFile(self._path) as archive:  # the member keeps the file open
            self._file = archive.open(self._name)
            self._next = 0
            return read_header(self._file, archive.getinfo(self._name).file_size)

    def rows(self, start: int, stop: int | None) -> Array:
        """Returns some rows; all values where `stop` is None."""
        if start < self._next or self._file is None:
            self._open()
        if stop is None:
            return self._values(self.shape)
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        left = (start - self._next) * row
        while left:
            left -= len(self._taken(min(left, _CHUNK)))
        self._next = stop
        return self._values((stop - start, *self.shape[1:]))

    def _values(self, shape: tuple[int, ...]) -> Array:
        data = bytearray()
        size = math.prod(shape) * self.dtype.itemsize
        while len(data) < size:
            data += self._taken(min(size - len(data), _CHUNK))
        flat: Array = np.frombuffer(data, self.dtype) if data else np.empty(0, self.dtype)
        return flat.reshape(shape, order="F" if self.fortran else "C")

    def _taken(self, size: int) -> bytes:
        assert self._file is not None
        found = self._file.read(size)
        if not found:
            raise ValueError(f"{self._name!r} ends too early")
        return found
