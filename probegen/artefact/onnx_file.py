"""Reads what an ONNX file says of itself, however large it is, without onnx or onnxruntime."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

#: Key of the digest of a file's contents (`integrity`), and what stands there until it is taken.
DIGEST_KEY = "probegen.sha256"
NO_DIGEST = "0" * 64

#: Field of the metadata in ONNX's ModelProto, and of key and value in an entry of it.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
#: Fields of the graph in ModelProto, of initializers and inputs in GraphProto, and of their names
#: in TensorProto and ValueInfoProto.
_GRAPH, _INITIALIZER, _INPUT = 7, 5, 11
_NAMES = {_INITIALIZER: 8, _INPUT: 1}
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


def digest_in(model: Path) -> str | None:
    """Returns the digest that an ONNX file carries of itself; None where it carries none."""
    entry = metadata(model).get(DIGEST_KEY)
    return None if entry is None else entry.text


def inputs_with_default(model: Path) -> list[str]:
    """Returns the names of a graph's inputs that are initializers as well, in the file's order.

    Only names are read; weights are skipped. What is no ONNX file has none.
    """
    names: dict[int, list[str]] = {number: [] for number in _NAMES}
    try:
        with model.open("rb") as file:
            for number, size in _delimited_fields(file, os.fstat(file.fileno()).st_size):
                if number == _GRAPH:
                    end = file.tell() + size
                    for part, length in _delimited_fields(file, end):
                        if part in names:
                            names[part].append(_name(file, file.tell() + length, _NAMES[part]))
    except ValueError:
        return []
    return [name for name in names[_INPUT] if name in names[_INITIALIZER]]


def _name(file: IO[bytes], end: int, field: int) -> str:
    name = ""
    for number, size in _delimited_fields(file, end):
        if number == field:
            name = file.read(size).decode()
    return name


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
