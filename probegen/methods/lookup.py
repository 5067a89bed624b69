"""Probes as callers pass them, and methods by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from probegen.errors import SpecError, did_you_mean
from probegen.methods.base import OfInputs, Probe, all_methods


def as_probes(probes: object) -> tuple[Probe, ...]:
    """Returns what a caller passed as `probes` (one probe, several or none) as a tuple.

    Raises:
        SpecError: something is no probe.
    """
    if isinstance(probes, Probe):
        return (probes,)
    if not isinstance(probes, Sequence) or isinstance(probes, str):
        raise SpecError(
            f"expected a probe or a list of probes such as [pg.Saliency()], got {probes!r}."
        )
    for probe in probes:
        if isinstance(probe, type) and issubclass(probe, Probe):
            raise SpecError(f"{probe.__name__} is a class; write pg.{probe.__name__}(...).")
        if not isinstance(probe, Probe):
            raise SpecError(f"{probe!r} is no probe; write for instance pg.Saliency().")
    return tuple(probes)


def default_method(text_name: str, field: str) -> OfInputs:
    """Returns the method that explains inputs of a name in specs, as it is by default.

    Args:
        text_name: the name.
        field: where it was given, for messages.

    Raises:
        SpecError: there is none, or it has fields without a default.
    """
    known: dict[str, type[OfInputs]] = {}
    for method in all_methods(OfInputs):
        known.setdefault(method.text_name, method)
    if text_name not in known:
        hint = did_you_mean(text_name, known)
        raise SpecError(f"{field}= names the method {text_name!r}, which there is none of.{hint}")
    method = known[text_name]
    needed = [f.name for f in dataclasses.fields(method) if f.default is dataclasses.MISSING]
    if needed:
        raise SpecError(
            f"{field}={text_name!r}: that method needs {needed[0]}=; write "
            f"{field}=pg.{method.__name__}({needed[0]}=...)."
        )
    return method()


def has_defaults(probe: Probe) -> bool:
    """Tells whether all fields of a probe have their default values."""
    fields = dataclasses.fields(probe)
    return all(
        f.default is not dataclasses.MISSING and getattr(probe, f.name) == f.default for f in fields
    )
