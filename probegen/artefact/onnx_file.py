"""Reads the metadata of an ONNX file, however large it is, without onnx or onnxruntime."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

#: Field of the metadata in ONNX's ModelProto, and of key and value in an entry of it.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
#: Protobuf's wire types, and the bytes of those whose length is fixed.
_VARINT, _DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of a model's metadata.

    Attributes:
        text: its value.
        start: the byte of the file at which the value starts.
    """

    text: str
    start: int


def metadata(model: Path) -> dict[str, Entry]:
    """Returns the metadata of an ONNX file as far as it can be read; the graph is skipped.

    What is no ONNX file has none.
    """
    found: dict[str, Entry] = {}
    try:
        with model.open("rb") as file:
            for number, size in _delimited_fields(file, os.fstat(file.fileno()).st_size):
                if number == _METADATA_PROPS:
                    key, entry = _entry(file, file.tell() + size)
                    found[key] = entry
    except ValueError:  # no protobuf, or cut short; UnicodeDecodeError is one too
        return found
    return found


def _entry(file: IO[bytes], end: int) -> tuple[str, Entry]:
    key, value = "", Entry("", end)
    for number, size in _delimited_fields(file, end):
        start = file.tell()
        if number == _KEY:
            key = file.read(size).decode()
        elif number == _VALUE:
            value = Entry(file.read(size).decode(), start)
    return key, value


def _delimited_fields(file: IO[bytes], end: int) -> Iterator[tuple[int, int]]:
    """Yields number and size of each field with a length up to `end`, the file at its content.

    Raises:
        ValueError: there is no field, or it reaches beyond the end.
    """
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _varint(file)
            continue
        size = _varint(file) if wire == _DELIMITED else _FIXED_BYTES.get(wire)
        start = file.tell()
        if size is None or start + size > end:
            raise ValueError(f"field {number} of wire type {wire} at byte {start}")
        if wire == _DELIMITED:
            yield number, size
        file.seek(start + size)


def _varint(file: IO[bytes]) -> int:
    """Reads a number of up to ten bytes, seven bits each, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is cut short or too long")
