"""`.npy` files and raw memory maps: some rows are mapped at a time, and let go of when copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.rows import batch_axis
from probegen.bulk.inputs.base import (
    ArrayFile,
    Context,
    check_array,
    count,
    matched,
    part_of,
)
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.runtime.read.arrays import damaged, read_header

RAW = (".bin", ".dat", ".mmap", ".raw")


class MappedArray(ArrayFile):
    """One array in a file, after a header or from its first byte."""

    def __init__(
        self,
        path: Path,
        context: Context,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        offset: int = 0,
        fortran: bool = False,
    ) -> None:
        super().__init__(path, context)
        self._shape, self._dtype = shape, dtype
        self._offset, self._fortran = offset, fortran
        matched(["the array"], context, path, unnamed=True)
        self._spec = context.specs[0]
        check_array(path, self._spec, shape, dtype)
        self.rows = count(path, {self._spec.name: shape}, context.specs)

    def arrays(self, start: int, stop: int) -> dict[str, Array]:
        """Returns a copy of some rows."""
        # Mapped anew each time: pages that were read count as this process's memory till then.
        mapped = np.memmap(
            self._path, self._dtype, "r", self._offset, self._shape, "F" if self._fortran else "C"
        )
        return {self._spec.name: np.array(mapped[part_of(self._spec.axes, start, stop)])}


def open_npy(path: Path, context: Context) -> MappedArray:
    """Opens an .npy file.

    Raises:
        InputError: it is damaged, holds other than a plain array, or does not fit the input.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = read_header(file, path.stat().st_size)
            offset = file.tell()
    except Exception as error:  # numpy and ast raise a dozen kinds of a damaged header
        raise damaged(path, error) from error
    if not math.prod(shape):
        raise InputError(f"{path} holds no samples: its shape is {shape}.")
    return MappedArray(path, context, shape, dtype, offset, fortran)


def open_raw(path: Path, context: Context) -> MappedArray:
    """Opens a raw memory map: the values of one sample after the other, and nothing else.

    Raises:
        InputError: it is not told of what type its values are, or their number is not that of
            whole samples.
    """
    specs = context.specs
    if context.dtype is None:
        raise InputError(
            f"{path} does not say of what type its values are; pass it, for instance "
            "--dtype float32."
        )
    dtype = _dtype(context.dtype)
    matched(["the array"], context, path, unnamed=True)
    spec = specs[0]
    sizes: Sequence[int | None] = spec.shape[1:]
    if batch_axis(spec.axes) != 0 or None in sizes:
        raise InputError(
            f"{path} is a raw memory map, and the sizes of a sample of the input {spec.name!r} are "
            "open, or its samples do not come first. Save it as .npy, which says its shape."
        )
    row = math.prod(n or 1 for n in sizes) * dtype.itemsize
    size = path.stat().st_size
    if not size or size % row:
        raise InputError(
            f"{path} has {size} bytes; a sample of the input {spec.name!r} takes {row} as "
            f"{dtype}, and it has to hold whole ones."
        )
    return MappedArray(path, context, (size // row, *(n or 1 for n in sizes)), dtype)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        found = np.dtype(name)
    except TypeError as error:
        raise InputError(f"--dtype {name}: numpy has no such element type.") from error
    if found.kind not in "biuf":
        raise InputError(f"--dtype {name}: it must be a type of numbers, such as float32 or uint8.")
    return found
