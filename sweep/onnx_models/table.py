"""The coverage of strangers' ONNX files as Markdown: what agrees, what does not, and why."""

from __future__ import annotations

import datetime
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sweep.markdown import put_between
from sweep.onnx_models.outcome import AGREES, NOT_APPLICABLE, REFUSED, Outcome

START, END = "<!-- onnx models: start -->", "<!-- onnx models: end -->"
_MOST = 160


def write_table(path: Path, rows: Sequence[Outcome], versions: Mapping[str, str]) -> None:
    """Puts the table between the two markers of a Markdown file.

    Raises:
        ValueError: the file has no such markers.
    """
    put_between(path, START, END, as_markdown(rows, versions))


def as_markdown(rows: Sequence[Outcome], versions: Mapping[str, str]) -> str:
    """Returns the coverage: a table of counts, the exceptions, and every file with its figures."""
    families: dict[str, list[Outcome]] = defaultdict(list)
    for row in rows:
        families[row.family].append(row)
    made = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return "\n\n".join(
        [
            f"Made by `make sweep-onnx` on {datetime.date.today().isoformat()} with {made}.",
            "\n".join(_counts(families)),
            _folded("what does not agree, and why", "\n".join(_exceptions(rows))),
            *(_folded(f"{name}: each file", "\n".join(_each(of))) for name, of in families.items()),
        ]
    )


def _counts(families: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    yield (
        "| | files | agree | gradient rel L2 to torch, median (worst) "
        "| to differences, median (worst) | confirmed by differences when compiled "
        "| refused | fail or differ | not applicable |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name, rows in families.items():
        tried = [r for r in rows if r.verdict != NOT_APPLICABLE]
        agree = [r for r in tried if r.verdict == AGREES]
        torch = [r.gradient for r in agree if r.gradient is not None and "torch" in r.against]
        other = [r.gradient for r in agree if r.gradient is not None and "torch" not in r.against]
        refused = sum(r.verdict == REFUSED for r in tried)
        confirmed, of = (sum(r.witnessed[i] for r in agree if r.witnessed) for i in (0, 1))
        cells = (
            *(name, len(tried), len(agree), _middle(torch), _middle(other)),
            *(f"{confirmed} of {of}" if of else "", refused),
            *(len(tried) - len(agree) - refused, len(rows) - len(tried)),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def _middle(figures: Sequence[float]) -> str:
    return f"{statistics.median(figures):.0e} ({max(figures):.0e})" if figures else ""


def _exceptions(rows: Iterable[Outcome]) -> Iterable[str]:
    yield "| file | written by | verdict | why |"
    yield "|---|---|---|---|"
    for row in rows:
        if row.verdict != AGREES:
            cells = (row.name, row.tool, row.verdict, _short(row.reason))
            yield f"| {' | '.join(cells)} |"


def _each(rows: Iterable[Outcome]) -> Iterable[str]:
    yield "| file | gradient | torch float32's own | nodes plain / explained | seconds | |"
    yield "|---|---:|---:|---:|---:|---|"
    for row in rows:
        name, figure, own, nodes, seconds, _ = row.cells()
        note = _short(row.reason) if row.verdict == AGREES else row.verdict
        cells = (name.partition(": ")[2], figure, own, nodes, seconds, note)
        yield f"| {' | '.join(cells)} |"


def _short(reason: str) -> str:
    cut = reason if len(reason) <= _MOST else reason[: _MOST - 1].rstrip() + "…"
    return cut.replace("|", "\\|").replace("](", "]\\(")  # a cell ends, a link begins


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
