"""The methods as the README lists them, and the page that describes each.

`make docs` writes both: `python -m probegen.methods.documentation README.md docs/METHODS.md`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path

from probegen import methods
from probegen.methods.base import OfInputs, Probe

START, END = "<!-- methods: written by make docs -->", "<!-- end of methods -->"

#: Fields that several methods have, and that are explained once.
_SHARED = frozenset({"target", "wrt", "name", "output", "logits"})
_HEADER = ("probe", "output", "what comes out")
#: An entry of a docstring's list of fields.
_FIELD = re.compile(r"    (?P<names>[a-z_][a-z_0-9, ]*): (?P<text>.*)")


def markdown_table() -> str:
    """Returns a table in Markdown, a line a method, in the order of `METHODS`."""
    rows = [_HEADER, tuple("---" for _ in _HEADER), *map(_row, methods.METHODS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown_page() -> str:
    """Returns a section in Markdown for each method, from what its class says of itself."""
    return "\n\n".join(map(_section, methods.METHODS))


def _row(method: type[Probe]) -> tuple[str, ...]:
    call = f"`pg.{method.__name__}({', '.join(_arguments(method, _SHARED))})`"
    return call, f"`{_output(method)}`", _escaped(method.help)


def _section(method: type[Probe]) -> str:
    facts = [
        f"- output `{_output(method)}`; in a shell `--{method.text_name.replace('_', '-')}`",
        f"- a number is {_escaped(method.equation)}",
    ]
    if method.paper:
        facts.append(f"- source: {_escaped(method.paper)}")
    facts.append(f"- unit: {method.unit or 'its own'}; sign: {method.sign}")
    parts = [
        f"## {method.title}",
        f"`pg.{method.__name__}({', '.join(_arguments(method, frozenset()))})`",
        "\n".join(facts),
        _described(inspect.cleandoc(method.__doc__ or "")),
    ]
    return "\n\n".join(parts)


def _described(text: str) -> str:
    """Returns a docstring with its list of fields as a list in Markdown."""
    lines, inside = [], False
    for line in text.splitlines():
        field = _FIELD.match(line) if inside else None
        if line == "Attributes:":
            inside = True
        elif field:
            names = ", ".join(f"`{name}`" for name in field["names"].split(", "))
            lines.append(f"- {names}: {field['text']}")
        elif inside and line.startswith(" "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines).strip()


def _output(method: type[Probe]) -> str:
    return f"{method.kind}/{'<input>' if issubclass(method, OfInputs) else '<path>'}"


def _arguments(method: type[Probe], left_out: frozenset[str]) -> list[str]:
    """Returns the fields with their defaults; without those left out, the main ones alone."""
    shown = []
    for field in sorted(dataclasses.fields(method), key=lambda field: bool(field.kw_only)):
        if field.name in left_out or (left_out and field.kw_only):
            continue
        needed = field.default is dataclasses.MISSING
        value = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        shown.append(field.name if needed else f"{field.name}={value}")
    return shown


def _escaped(text: str) -> str:
    for character in "|*_":
        text = text.replace(character, f"\\{character}")
    return text


def write(page: Path, text: str) -> None:
    """Puts text between the two marked lines of a page.

    Raises:
        ValueError: the page has no such lines.
    """
    whole = page.read_text(encoding="utf-8")
    if START not in whole or END not in whole:
        raise ValueError(f"{page} lacks the lines {START} and {END}")
    before, after = whole.partition(START)[0], whole.partition(END)[2]
    page.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    readme, described = map(Path, sys.argv[1:])
    write(readme, markdown_table())
    write(described, markdown_page())
