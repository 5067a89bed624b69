"""The table of methods as the README shows it."""

from __future__ import annotations

import dataclasses

from probegen import methods
from probegen.methods.base import OfInputs, Probe

#: Fields that several methods have, and that the README explains once.
_SHARED = frozenset({"target", "wrt", "name", "output", "logits"})
_HEADER = ("probe", "output name", "a number is", "in units of", "sign")


def markdown_table() -> str:
    """Returns a table in Markdown, a line a method, in the order of `METHODS`."""
    rows = [_HEADER, tuple("---" for _ in _HEADER), *map(_row, methods.METHODS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(method: type[Probe]) -> tuple[str, ...]:
    place = "<input>" if issubclass(method, OfInputs) else "<path>"
    source = f" ({method.paper})" if method.paper else ""
    return (
        f"`pg.{method.__name__}({', '.join(_arguments(method))})`",
        f"`{method.kind}/{place}`",
        _escaped(method.equation) + source,
        method.unit or "its own",
        method.sign,
    )


def _arguments(method: type[Probe]) -> list[str]:
    shown = []
    for field in dataclasses.fields(method):
        if field.name in _SHARED or field.kw_only:
            continue
        needed = field.default is dataclasses.MISSING
        value = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        shown.append(field.name if needed else f"{field.name}={value}")
    return shown


def _escaped(text: str) -> str:
    for character in "|*_":
        text = text.replace(character, f"\\{character}")
    return text
