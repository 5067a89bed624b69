"""Tells whether an ONNX graph computes in float16, by its bytes: without onnx or onnxruntime."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path

#: The number of float16 in ONNX.
_FLOAT16 = 10
#: Protobuf's wire types, and the bytes of those whose length is fixed.
_VARINT, _DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
#: From here on a byte of a number says that another follows.
_CONTINUES = 0x80
#: Fields that hold what is looked for: of ModelProto, FunctionProto, GraphProto, NodeProto,
#: AttributeProto, TensorProto, ValueInfoProto and TypeProto.
_GRAPH, _FUNCTIONS = 7, 25
_NODE_OF_FUNCTION = 7
_NODE, _INITIALIZER, _VALUES = 1, 5, (11, 12, 13)
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _INT, _TENSOR, _SUBGRAPH, _SUBGRAPHS = 1, 3, 5, 6, 11
_DATA_TYPE, _TENSOR_NAME = 2, 8
_VALUE_NAME, _TYPE = 1, 2
_OF_TENSOR, _ELEMENT = 1, 1
#: Attributes that say the element type of results.
_SAY_TYPES = {b"to", b"dtype", b"output_dtype"}

_Buffer = bytes | mmap.mmap


@dataclasses.dataclass
class _Found:
    """Names of tensors in float16, and of those that an operator other than Cast reads."""

    halves: set[bytes] = dataclasses.field(default_factory=set)
    read: set[bytes] = dataclasses.field(default_factory=set)


def computes_in_float16(model: Path | bytes) -> bool:
    """Tells whether operators of a model read float16, in its graph or in graphs within it.

    Weights that are stored so and cast before anybody reads them do not count. A type that a file
    does not say is not followed: it says those of inputs, of weights and of what Cast makes.

    Args:
        model: a file or its content; what is no ONNX file computes nothing.
    """
    found = _Found()
    with contextlib.suppress(ValueError, IndexError):  # no protobuf, or cut short
        if isinstance(model, bytes):
            _read_model(model, found)
        else:
            with (
                model.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                _read_model(data, found)
    return not found.halves.isdisjoint(found.read)


def _read_model(data: _Buffer, found: _Found) -> None:
    for field, start, end in _fields(data, 0, len(data)):
        if field == _GRAPH:
            _read_graph(data, start, end, found)
        elif field == _FUNCTIONS:
            for part, first, last in _fields(data, start, end):
                if part == _NODE_OF_FUNCTION:
                    _read_node(data, first, last, found)


def _read_graph(data: _Buffer, start: int, end: int, found: _Found) -> None:
    for field, first, last in _fields(data, start, end):
        if field == _NODE:
            _read_node(data, first, last, found)
        elif field == _INITIALIZER:
            element, name = _tensor(data, first, last)
            if element == _FLOAT16:
                found.halves.add(name)
        elif field in _VALUES:
            element, name = _value(data, first, last)
            if element == _FLOAT16:
                found.halves.add(name)


def _read_node(data: _Buffer, start: int, end: int, found: _Found) -> None:
    inputs, outputs, kind, makes_halves = [], [], b"", False
    for field, first, last in _fields(data, start, end):
        if field == _INPUT:
            inputs.append(data[first:last])
        elif field == _OUTPUT:
            outputs.append(data[first:last])
        elif field == _OP_TYPE:
            kind = data[first:last]
        elif field == _ATTRIBUTE:
            makes_halves |= _read_attribute(data, first, last, found)
    if kind != b"Cast":
        found.read.update(inputs)
    if makes_halves:
        found.halves.update(outputs)


def _read_attribute(data: _Buffer, start: int, end: int, found: _Found) -> bool:
    """Reads the graphs of an attribute; returns whether it makes results float16."""
    name, number, element = b"", 0, 0
    for field, first, last in _fields(data, start, end):
        if field == _ATTRIBUTE_NAME:
            name = data[first:last]
        elif field == _INT:
            number = first
        elif field == _TENSOR:
            element, _ = _tensor(data, first, last)
        elif field in (_SUBGRAPH, _SUBGRAPHS):
            _read_graph(data, first, last, found)
    return element == _FLOAT16 or (number == _FLOAT16 and name in _SAY_TYPES)


def _tensor(data: _Buffer, start: int, end: int) -> tuple[int, bytes]:
    """Returns element type and name of a tensor."""
    element, name = 0, b""
    for field, first, last in _fields(data, start, end):
        if field == _DATA_TYPE:
            element = first
        elif field == _TENSOR_NAME:
            name = data[first:last]
    return element, name


def _value(data: _Buffer, start: int, end: int) -> tuple[int, bytes]:
    """Returns element type and name of an input, output or inner result; 0 of no tensor."""
    element, name = 0, b""
    for field, first, last in _fields(data, start, end):
        if field == _VALUE_NAME:
            name = data[first:last]
        elif field == _TYPE:
            for kind, begin, stop in _fields(data, first, last):
                if kind == _OF_TENSOR:
                    said = (n for part, n, _ in _fields(data, begin, stop) if part == _ELEMENT)
                    element = next(said, 0)
    return element, name


def _fields(data: _Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields each field's number, and where its content starts and ends; of a number itself, twice.

    Raises:
        ValueError: there is no field, or it reaches beyond the end.
        IndexError: the data are cut short.
    """
    while start < end:
        tag, start = data[start], start + 1
        if tag >= _CONTINUES:
            tag, start = _varint(data, start - 1)
        wire = tag & 7
        if wire in _FIXED_BYTES:
            start += _FIXED_BYTES[wire]
            continue
        number, start = data[start], start + 1
        if number >= _CONTINUES:
            number, start = _varint(data, start - 1)
        if wire == _VARINT:
            yield tag >> 3, number, number
            continue
        if wire != _DELIMITED or start + number > end:
            raise ValueError(f"field {tag >> 3} of wire type {wire} at byte {start}")
        yield tag >> 3, start, start + number
        start += number


def _varint(data: _Buffer, start: int) -> tuple[int, int]:
    """Returns a number, seven bits a byte and the lowest first, and where the next thing starts."""
    value, shift = 0, 0
    while (byte := data[start]) >= _CONTINUES:
        value |= (byte - _CONTINUES) << shift
        start, shift = start + 1, shift + 7
    return value | byte << shift, start + 1
