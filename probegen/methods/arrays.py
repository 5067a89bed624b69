"""Arrays that are fields of a probe: baselines, backgrounds, groups, masks, concept vectors.

A field that takes an array takes whatever numpy makes one of, nested lists, and the path of an
`.npy` file (relative to the working directory), which is how specs and the command line say it.
It is read when the probe is made, checked, and from then on compared by its content. In a manifest
and in JSON small arrays are nested lists; larger ones are bytes with a digest, and an artefact
holds those once, in its graph (see `artefact.stored_arrays`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from probegen.artefact.stored_arrays import decoded, digest_of, encoded, is_encoded
from probegen.errors import SpecError

#: Arrays of so many elements are written as nested lists, and shown whole.
_FEW_WRITTEN, _FEW_SHOWN = 64, 8

V = TypeVar("V")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredArray:
    """An array that does not change: compared, hashed and shown by its content.

    Attributes:
        values: the array, which cannot be written to.
    """

    values: npt.NDArray[Any]

    def __post_init__(self) -> None:
        values = np.array(self.values, order="C")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.values.shape)

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of its bytes."""
        return digest_of(self.values)

    def as_type(self, dtype: str) -> StoredArray:
        """Returns the array with another element type."""
        return self if self.values.dtype.name == dtype else StoredArray(self.values.astype(dtype))

    def plain(self) -> Any:
        """Returns the text form: nested lists, or bytes where these would be long or lossy."""
        if self.values.size <= _FEW_WRITTEN:
            lists = self.values.tolist()
            if stored_array(lists, "", whole=self.values.dtype.kind == "i").equals(self):
                return lists
        return encoded(self.values)

    def equals(self, other: StoredArray) -> bool:
        """Tells whether both have the same shape, element type and content."""
        mine, theirs = self.values, other.values
        same = (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        return same and self.digest == other.digest

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, StoredArray) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.shape, self.digest))

    def __repr__(self) -> str:
        if self.values.size <= _FEW_SHOWN:
            return repr(self.values.tolist())
        return f"<{self.values.dtype.name} array of shape {self.shape}, {self.digest[:8]}>"


@dataclasses.dataclass(frozen=True)
class ByName(Generic[V]):
    """A value for each of several tensors, by the name of the input or layer.

    Attributes:
        items: pairs of a name and its value, in the order given.
    """

    items: tuple[tuple[str, V], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names."""
        return tuple(name for name, _ in self.items)

    def of(self, *names: str) -> V | None:
        """Returns the value of the first of some names that has one, else None."""
        known = dict(self.items)
        return next((known[name] for name in names if name in known), None)

    def plain(self) -> dict[str, Any]:
        """Returns the text form: a table."""
        return {n: v.plain() if isinstance(v, StoredArray) else v for n, v in self.items}

    def __repr__(self) -> str:
        return repr(dict(self.items))


def is_path(value: object) -> bool:
    """Tells whether a value of a field names an `.npy` file."""
    if isinstance(value, Path):
        return True
    return isinstance(value, str) and value.lower().endswith(".npy")


def is_array_like(value: object) -> bool:
    """Tells whether a value of a field is meant as an array: no number, no word, no table."""
    if isinstance(value, StoredArray) or is_path(value) or is_encoded(value):
        return True
    if isinstance(value, str | bytes | Mapping) or np.isscalar(value):
        return False
    sequence = isinstance(value, Sequence)
    return sequence or (hasattr(value, "__array__") and np.ndim(value) > 0)


def parse_number_or_array(text: str) -> float | str:
    """Reads what is typed for a field that takes a number or an array: a number, or a path."""
    try:
        return float(text)
    except ValueError:
        return text


def stored_array(value: Any, field: str, *, whole: bool = False) -> StoredArray:
    """Returns what was given for a field as an array.

    Floating numbers stay float64 only where float32 cannot hold them; whole numbers are int32.

    Args:
        value: an array or tensor, nested lists, an `.npy` file's path, or a text form.
        field: what the field is called in messages.
        whole: whether whole numbers are asked for.

    Raises:
        SpecError: it is none, is empty, or holds other than finite (or whole) numbers.
    """
    if isinstance(value, StoredArray):
        if value.values.dtype.kind == ("i" if whole else "f"):
            return value
        array = value.values
    elif is_encoded(value):
        array = decoded(value)
    elif is_path(value):
        array = _from_file(Path(value), field)
    else:
        array = _converted(value, field)
    if array.dtype.kind not in "fiub":
        raise SpecError(f"{field}= takes an array of numbers, got one of {array.dtype}.")
    if array.size == 0:
        raise SpecError(f"{field}= has the shape {array.shape}, which holds nothing.")
    if whole:
        return StoredArray(_whole(array, field))
    if not np.isfinite(array).all():
        raise SpecError(f"{field}= holds numbers that are NaN or infinite.")
    if is_encoded(value) and array.dtype.kind == "f":
        return StoredArray(array)  # as a graph holds it
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    wide = array.astype(np.float64)
    return StoredArray(narrow if np.array_equal(narrow, wide) else wide)


def _whole(array: npt.NDArray[Any], field: str) -> npt.NDArray[np.int32]:
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
        raise SpecError(f"{field}= takes whole numbers, got an array of {array.dtype}.")
    limits = np.iinfo(np.int32)
    if array.min() < limits.min or array.max() > limits.max:
        raise SpecError(f"{field}= holds numbers that int32 does not.")
    return array.astype(np.int32)


def _converted(value: Any, field: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, tensors of other libraries
        raise SpecError(f"{field}= cannot be read as an array: {error}") from error


def _from_file(path: Path, field: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise SpecError(f"{field}={str(path)!r} cannot be read as an .npy file: {error}") from error


def with_array_type(probe: Any, dtype: str) -> Any:
    """Returns a probe whose floating arrays have an element type: that of the graph's copy."""
    if dtype not in ("float16", "float32", "float64"):
        return probe
    changes = {}
    for field in dataclasses.fields(probe):
        value = getattr(probe, field.name)
        typed = _typed(value, dtype)
        if typed is not value:
            changes[field.name] = typed
    return dataclasses.replace(probe, **changes) if changes else probe


def _typed(value: Any, dtype: str) -> Any:
    if isinstance(value, StoredArray) and value.values.dtype.kind == "f":
        return value.as_type(dtype)
    if isinstance(value, ByName):
        items = tuple((name, _typed(v, dtype)) for name, v in value.items)
        same = all(a is b for (_, a), (_, b) in zip(items, value.items, strict=True))
        return value if same else ByName(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, StoredArray | type):
        return with_array_type(value, dtype)  # a probe within a probe
    return value
