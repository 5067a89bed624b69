"""Tensors of the Open Inference Protocol: names of element types, JSON and binary forms.

Binary tensors are those of the protocol's binary tensor extension: the elements in row-major order,
little-endian; of `BYTES` each element is its length, four bytes, and its content.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from probegen.errors import InputError, nearest
from probegen.runtime.inputs import Array

BOOL, BYTES, BF16 = "BOOL", "BYTES", "BF16"

#: Names of the protocol -> element types of numpy, those that it has.
NUMPY: dict[str, str] = {
    BOOL: "bool",
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
#: Element types of manifests -> names of the protocol.
NAMES = {dtype: name for name, dtype in NUMPY.items()} | {"string": BYTES, "bfloat16": BF16}

#: More elements than this no request can hold.
_MOST = 2**40
#: What JSON values may come as, for a kind of element type.
_FROM: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}
#: How lists of such values are called.
_CALLED = {
    bool: "booleans",
    int: "whole numbers",
    float: "numbers with decimals",
    str: "strings",
    dict: "objects",
    type(None): "null (NaN comes as bytes)",
}
#: More axes than any tensor has; JSON lists are no deeper.
_MOST_AXES = 32


def checked_shape(name: str, shape: Any, datatype: Any) -> tuple[tuple[int, ...], int]:
    """Returns a tensor's shape and its number of elements.

    Raises:
        InputError: the shape is no list of sizes, or the datatype is unknown.
    """
    known = (*NUMPY, BYTES, BF16)
    if datatype is None:
        raise InputError(f"input {name!r} has no datatype; the protocol has {', '.join(known)}.")
    if datatype not in known:
        raise InputError(
            f"input {name!r} has the datatype {str(datatype)[:40]!a}; the protocol has "
            f"{', '.join(known)}.{nearest(str(datatype).upper(), known)}"
        )
    fits = (
        isinstance(shape, list)
        and len(shape) <= _MOST_AXES
        and all(type(n) is int and n >= 0 for n in shape)
    )
    if not fits or math.prod(n or 1 for n in shape) > _MOST:
        raise InputError(
            f"input {name!r} has the shape {str(shape)[:80]}; expected a list of sizes, such as "
            "[1, 224, 224, 3]."
        )
    return tuple(shape), math.prod(shape)


def from_json(name: str, shape: Any, datatype: Any, data: Any) -> Array:
    """Returns a tensor that came as JSON: nested lists, or all elements in row-major order.

    Raises:
        InputError: values are missing, too many, or of another type than `datatype`.
    """
    sizes, count = checked_shape(name, shape, datatype)
    values = data if isinstance(data, list) else [data]
    kinds = _types_in(name, values)
    if datatype == BYTES:
        if values is not data or not kinds <= {str, list}:
            raise InputError(f"input {name!r} is of BYTES; expected a list of strings as its data.")
        return _shaped(name, _texts(_flat(values)), sizes, count)
    wanted = np.dtype("float32" if datatype == BF16 else NUMPY[datatype])
    if others := kinds - _FROM[wanted.kind] - {list}:
        held = " and ".join(sorted(_CALLED[kind] for kind in others))
        raise InputError(f"the data of input {name!r} hold {held}, and its datatype is {datatype}.")
    try:
        array = np.asarray(data, np.float64 if wanted.kind == "f" else None)
    except (ValueError, OverflowError) as error:
        raise InputError(f"the data of input {name!r} are no regular array: {error}.") from error
    if wanted.kind in "iu" and array.dtype.kind not in "iu":
        array = np.array(data, object)  # some are above 2^63, and numpy makes floats of these
    return _shaped(name, _cast(name, array, wanted, datatype), sizes, count)


def from_binary(name: str, shape: Any, datatype: Any, raw: memoryview) -> Array:
    """Returns a tensor that came as bytes; of numbers, a view of them that is not to be written to.

    bfloat16 becomes float32, which holds each of its numbers.

    Raises:
        InputError: there are more or fewer bytes than the shape says.
    """
    sizes, count = checked_shape(name, shape, datatype)
    if datatype == BYTES:
        return _shaped(name, _texts(_strings(name, raw, count)), sizes, count)
    stored = np.dtype("uint16" if datatype == BF16 else NUMPY[datatype]).newbyteorder("<")
    if len(raw) != count * stored.itemsize:
        raise InputError(
            f"input {name!r} has {len(raw)} bytes; the shape {list(sizes)} of {datatype} takes "
            f"{count * stored.itemsize}."
        )
    array = np.frombuffer(raw, stored).reshape(sizes) if count else np.zeros(sizes, stored)
    if datatype == BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.view(np.uint8) != 0 if datatype == BOOL else array


def to_binary(array: Array) -> bytes:
    """Returns the bytes of a tensor."""
    if array.dtype.kind in "USO":
        texts = (v if isinstance(v, bytes) else str(v).encode() for v in array.reshape(-1).tolist())
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).tobytes()


def to_json(array: Array) -> tuple[list[Any], int]:
    """Returns the elements of a tensor in row-major order, and how many JSON has no number for.

    Those, NaN and infinities, are null.
    """
    flat = array.reshape(-1)
    if flat.dtype.kind in "USO":
        texts = flat.tolist()
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in texts], 0
    if flat.dtype.kind not in "biu":
        flat = flat.astype(np.float64, copy=False)
        finite = np.isfinite(flat)
        lost = int(flat.size - np.count_nonzero(finite))
        if lost:
            pairs = zip(flat.tolist(), finite.tolist(), strict=True)
            return [value if is_finite else None for value, is_finite in pairs], lost
    values: list[Any] = flat.tolist()
    return values, 0


def name_of(array: Array) -> str:
    """Returns the protocol's name for the element type of an array.

    Raises:
        KeyError: it has none (complex numbers).
    """
    return BYTES if array.dtype.kind in "USO" else NAMES[array.dtype.name]


def _texts(found: list[str]) -> Array:
    """Returns texts as objects: in an array of texts each takes the space of the longest.

    None at all are an array of texts, which tells of what type they are.
    """
    return np.array(found, object) if found else np.zeros(0, np.str_)


def _strings(name: str, raw: memoryview, count: int) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(raw) and len(found) < count:
        if place + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4 + length
        if place > len(raw):
            break
        try:
            found.append(str(raw[place - length : place], "utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"input {name!r}: element {len(found)} is no UTF-8 text.") from error
    if place != len(raw) or len(found) != count:
        raise InputError(
            f"input {name!r} has {len(raw)} bytes, which are not {count} elements of BYTES, each "
            "its length in four bytes and its content."
        )
    return found


def _cast(name: str, array: Array, wanted: np.dtype[Any], datatype: str) -> Array:
    """Returns values in an element type that holds them.

    Raises:
        InputError: it does not.
    """
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(
                f"the data of input {name!r} do not fit into {datatype}, which goes from "
                f"{limits.min} to {limits.max}."
            )
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if wanted.kind == "f" and (np.isinf(cast) & np.isfinite(array)).any():
        raise InputError(
            f"the data of input {name!r} do not fit into {datatype}, whose largest number is "
            f"{float(np.finfo(wanted).max):.5g}."
        )
    return cast


def _shaped(name: str, array: Array, sizes: tuple[int, ...], count: int) -> Array:
    """Returns elements in their shape; nested lists must be nested as it says."""
    if array.size != count or (array.ndim > 1 and array.shape != sizes):
        raise InputError(
            f"input {name!r} has {array.size} elements in the shape {list(array.shape)}; its shape "
            f"{list(sizes)} takes {count}."
        )
    return array.reshape(sizes)


def _flat(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, list) else [value])
    return found


def _types_in(name: str, values: Sequence[Any], depth: int = 1) -> set[type]:
    """Returns the types of the values in lists; `list` is among them where lists hold lists.

    numpy is asked only afterwards: an array of texts would take the space of the longest for each.

    Raises:
        InputError: lists hold lists deeper than any tensor has axes.
    """
    found = set(map(type, values))
    if list in found:
        if depth == _MOST_AXES:
            raise InputError(f"the data of input {name!r} are lists more than {_MOST_AXES} deep.")
        inner = (value for value in values if isinstance(value, list))
        found = found.union(*(_types_in(name, value, depth + 1) for value in inner))
    return found
