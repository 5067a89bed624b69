"""Reads plain JSON into dataclasses, as their type hints say; what does not fit is named.

The hints of the dataclasses are the whole schema: there is no second description that could
differ from them. Nothing is guessed or converted, and nothing that was read can be of another type
than its hint says, so that no later code has to ask.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar, Union

from probegen.errors import did_you_mean

T = TypeVar("T")

#: Values without a schema of their own may be nested so deep.
_DEEPEST = 32
#: Numbers beyond this are no sizes, indices or counts.
_LARGEST = 2**63 - 1
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class SchemaError(ValueError):
    """A value does not fit; the message names its place and what was expected there."""


def parse(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
        SchemaError: it is no JSON (NaN and infinity are none), has a key twice, or is nested too
            deep.
    """
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_unique)
    except SchemaError:
        raise
    except RecursionError as error:
        raise SchemaError("it is nested too deep") from error
    except ValueError as error:
        raise SchemaError(f"it is not valid JSON: {error}") from error


def read(kind: type[T], value: Any, place: str = "") -> T:
    """Returns a JSON value as a dataclass (or another type that can stand in a hint of one).

    Args:
        kind: the type.
        value: what `parse` returned.
        place: where the value stands, for messages.

    Raises:
        SchemaError: a field is missing or unknown, or its value is of another type.
    """
    found: T = _read(kind, value, place)
    return found


def _read(kind: Any, value: Any, place: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return _plain(value, place, _DEEPEST)
    if origin in (Union, types.UnionType, Literal):
        return _read_choice(kind, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _misfit(place, "a list", value)
        entry = typing.get_args(kind)[0]
        return tuple(_read(entry, v, f"{place}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _misfit(place, "an object", value)
        entry = typing.get_args(kind)[1]
        return {_text(k, place): _read(entry, v, _field(place, k)) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, place)
    return _read_scalar(kind, value, place)


def _read_object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _misfit(place, "an object", value)
    fields, hints = _fields(kind)
    for key in value:
        if key not in fields:
            raise SchemaError(
                f"{_field(place, key)} is no field that this probegen knows."
                f"{did_you_mean(key, fields)}"
            )
    for name, needed in fields.items():
        if needed and name not in value:
            raise SchemaError(f"{_field(place, name)} is missing")
    return kind(**{k: _read(hints[k], v, _field(place, k)) for k, v in value.items()})


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, bool], dict[str, Any]]:
    """Returns the names of a dataclass' fields, each with whether it is needed, and their types."""
    missing = dataclasses.MISSING
    fields = {
        f.name: f.default is missing and f.default_factory is missing
        for f in dataclasses.fields(kind)
    }
    return fields, typing.get_type_hints(kind)


def _read_choice(kind: Any, value: Any, place: str) -> Any:
    """Reads a value of one of several types, of which at most one takes this kind of JSON."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return value
    elif value is None and type(None) in choices:
        return None
    else:
        for choice in choices:
            try:
                return _read(choice, value, place)
            except SchemaError:
                # Where there is one type beside null, its own words say more than ours.
                if len(choices) == 2 and type(None) in choices and choice is not type(None):
                    raise
    raise _misfit(place, _described(kind), value)


def _read_scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and abs(value) <= _LARGEST if isinstance(value, int) else fits
        fits = fits and math.isfinite(value)
    elif kind is int:
        fits = type(value) is int and abs(value) <= _LARGEST
    else:
        fits = type(value) is kind
    if not fits:
        raise _misfit(place, _described(kind), value)
    return _text(value, place) if kind is str else value


def _plain(value: Any, place: str, levels: int) -> Any:
    """Checks a value that may be any JSON."""
    if levels == 0:
        raise SchemaError(f"{place} is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, dict):
        return {_text(k, place): _plain(v, _field(place, k), levels - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, f"{place}[{i}]", levels - 1) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise _misfit(place, "a finite number", value)
    return value


def _text(value: str, place: str) -> str:
    """Refuses text that cannot be written to a file, or that would steer a terminal."""
    for character in value:
        if "\ud800" <= character <= "\udfff":
            raise SchemaError(f"{place} holds half a character: {value[:60]!a}")
        if character < " " and character not in "\n\r\t":
            raise SchemaError(f"{place} holds a control character: {value[:60]!a}")
    return value


def _field(place: str, name: str) -> str:
    shown = name if name.isidentifier() else ascii(name[:60])
    return f"{place}.{shown}" if place else shown


def _described(kind: Any) -> str:
    if kind is None or kind is type(None):
        return "null"
    if typing.get_origin(kind) is Literal:
        return " or ".join(json.dumps(choice) for choice in typing.get_args(kind))
    choices = typing.get_args(kind)
    if choices and typing.get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_described, choices))
    return _NAMES.get(kind, "something else")


def _misfit(place: str, expected: str, value: Any) -> SchemaError:
    shown = ascii(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return SchemaError(f"{place or 'it'} is {shown}, expected {expected}")


def _no_number(text: str) -> NoReturn:
    raise SchemaError(f"{text} is no number in JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"the key {twice[:60]!a} stands there twice")
    return found
