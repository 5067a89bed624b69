"""Arrays of numpy: `.npy` and `.npz`. No pickle is opened, and no header is believed.

A header says how much follows. Before anything of that size is made, it is compared with what is
there, so that a damaged or hostile one cannot make the process run out of memory.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from probegen.errors import InputError
from probegen.runtime.inputs import Array

SUFFIXES = (".npy", ".npz")

#: Deflate packs no more than about a thousand bytes into one.
_MOST_PACKED = 1100
_ZIP, _NPY = b"PK", b"\x93NUMPY"


def read(path: Path) -> Array | dict[str, Array] | list[Array]:
    """Returns the array of an .npy file, or the arrays of an .npz file by name.

    Arrays that were saved without names (`np.savez(path, a, b)`) come as a list. What a file is
    decides its content, whatever its suffix.

    Raises:
        InputError: it is damaged, or holds other than plain arrays.
    """
    with path.open("rb") as file:
        start = file.read(len(_NPY))
    if not start.startswith(_ZIP):
        return read_npy(path)
    found = read_npz(path)
    if not found:
        raise InputError(f"{path} holds no arrays.")
    unnamed = [f"arr_{i}" for i in range(len(found))]
    return list(found.values()) if list(found) == unnamed else found


def read_npy(path: Path) -> Array:
    """Returns the array of an .npy file.

    Raises:
        InputError: it is damaged, or holds other than a plain array.
    """
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size)
    except Exception as error:  # numpy and ast raise a dozen kinds of a damaged header
        raise damaged(path, error) from error


def read_npz(path: Path) -> dict[str, Array]:
    """Returns the arrays of an .npz file by the names of its members.

    Raises:
        InputError: it is damaged, or holds other than plain arrays.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            found = {}
            for member in archive.infolist():
                if member.file_size > _MOST_PACKED * (member.compress_size + 1) or (
                    member.compress_size > size
                ):
                    raise ValueError(f"{member.filename!r} cannot have {member.file_size} bytes")  # noqa: TRY301
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"{member.filename!r} stands there twice")  # noqa: TRY301
                with archive.open(member) as file:
                    found[name] = _array(file, member.file_size)
                    if file.read(1):  # the end, where the checksum is compared
                        raise ValueError(f"{member.filename!r} is longer than its array")  # noqa: TRY301
            return found
    except Exception as error:  # zipfile, zlib, numpy and ast raise a dozen kinds
        raise damaged(path, error) from error


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns the shape, whether it is in Fortran's order, and the element type of an array.

    The file stands at its first value afterwards.

    Args:
        file: an array in the format of .npy.
        size: its bytes, header and values, with which the header is compared.

    Raises:
        ValueError: the header is damaged, or tells of other than the plain array that is there.
    """
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise ValueError(f"its format {version} is unknown")
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, which are not opened, since they can run code. Save numbers "
            "as numbers, and text with x.astype(str)"
        )
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    needed = math.prod(shape) * dtype.itemsize
    left = size - file.tell()
    if needed != left:
        raise ValueError(f"its header tells of {needed} bytes, and {left} follow")
    return shape, fortran, dtype


def _array(file: IO[bytes], size: int) -> Array:
    """Reads one array of a file of `size` bytes."""
    shape, fortran, dtype = read_header(file, size)
    left = math.prod(shape) * dtype.itemsize
    data = bytearray(left)
    view, filled = memoryview(data), 0
    while filled < left and (chunk := file.read(min(left - filled, 2**24))):
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if filled != left:
        raise ValueError(f"it ends after {filled} of {left} bytes")
    flat: np.ndarray[Any, Any] = np.frombuffer(data, dtype) if left else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def damaged(path: Path, error: Exception) -> InputError:
    """Returns the error of a file that is none of plain numbers."""
    reason = "it needs more memory than there is" if isinstance(error, MemoryError) else error
    return InputError(f"{path} is no .npy or .npz file of plain numbers: {reason}")
