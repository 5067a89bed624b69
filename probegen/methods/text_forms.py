"""Probes as text: plain dictionaries, JSON and TOML, and back.

Layer objects, predicates and callable targets have no text form and are refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from probegen import methods
from probegen.errors import SpecError, did_you_mean
from probegen.methods.arrays import ByName, StoredArray
from probegen.methods.base import Probe
from probegen.methods.lookup import as_probes
from probegen.methods.targets import as_text_form, of_text_form


def by_text_name() -> dict[str, type[Probe]]:
    """Returns what specs call a method -> the method."""
    return {method.text_name: method for method in methods.METHODS}


def to_dict(probe: Probe) -> dict[str, Any]:
    """Returns the plain form of a probe, without what has its default value.

    Raises:
        SpecError: the probe holds a layer object, a predicate or a callable.
    """
    plain: dict[str, Any] = {"probe": type(probe).text_name}
    for field in dataclasses.fields(probe):
        value = getattr(probe, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        where = f"{type(probe).__name__}({field.name}=...)"
        if field.name == "target":
            value = as_text_form(value)
        plain[field.name] = _plain(value, where)
    return plain


def from_dict(data: Mapping[str, Any]) -> Probe:
    """Reads what `to_dict` wrote.

    Raises:
        SpecError: an unknown probe or field, named with the nearest known ones.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a probe is a table such as {{probe = 'saliency'}}, got {data!r}.")
    table = by_text_name()
    fields = {name: _field(value, table) for name, value in data.items()}
    kind = fields.pop("probe", None)
    if not isinstance(kind, str) or kind not in table:
        raise SpecError(f"unknown probe {kind!r}.{did_you_mean(str(kind), table)}")
    cls = table[kind]
    known = [f.name for f in dataclasses.fields(cls)]
    for name in fields:
        if name not in known:
            raise SpecError(f"probe {kind!r} has no field {name!r}.{did_you_mean(name, known)}")
    if "target" in fields:
        fields["target"] = of_text_form(fields["target"])
    try:
        return cls(**fields)
    except TypeError as error:
        raise SpecError(f"probe {kind!r}: {error}") from error


def _field(value: Any, table: Mapping[str, type[Probe]]) -> Any:
    """Returns the value of a field; the table of a probe, which some take, as that probe."""
    kind = value.get("probe") if isinstance(value, Mapping) else None
    return from_dict(value) if isinstance(kind, str) and kind in table else value


def to_json(probes: Sequence[Probe], indent: int | None = None) -> str:
    """Returns probes as JSON text; see `to_dict` for what cannot be written."""
    return json.dumps({"probes": [to_dict(p) for p in as_probes(probes)]}, indent=indent)


def from_json(text: str) -> tuple[Probe, ...]:
    """Reads what `to_json` wrote.

    Raises:
        SpecError: the text is no JSON or holds no list of probes.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SpecError(f"the spec is not valid JSON: {error}") from error
    return _read_list(data)


def from_toml(text: str) -> tuple[Probe, ...]:
    """Reads probes from TOML: one `[[probes]]` table each, with its class under `probe`.

    For example::

        [[probes]]
        probe = "grad_cam"
        layer = "conv5_block3_out"

    Raises:
        SpecError: the text is no TOML or holds no list of probes.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"the spec is not valid TOML: {error}") from error
    return _read_list(data)


def _read_list(data: object) -> tuple[Probe, ...]:
    if not isinstance(data, Mapping) or not isinstance(data.get("probes"), list):
        raise SpecError("a spec holds a list named 'probes', in TOML as [[probes]] tables.")
    return as_probes([from_dict(entry) for entry in data["probes"]])


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, StoredArray | ByName):
        return value.plain()
    if isinstance(value, Probe):
        return to_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(v, where) for v in value]
    if isinstance(value, dict):
        return {key: _plain(v, where) for key, v in value.items()}
    raise SpecError(
        f"{where} holds {value!r}, which has no text form; use a layer's path or a class index."
    )
