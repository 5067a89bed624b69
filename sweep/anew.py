"""Rows that were swept anew, in a page of coverage that a whole sweep has written.

The page holds names, verdicts and counts, not the figures of each row: the median of a table stays
what the whole sweep has found, and the worst is raised where a new row is worse.
"""

from __future__ import annotations

import bisect
import datetime
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweep.coverage import END, START, exception, kind_of, listed_name
from sweep.markdown import put_between
from sweep.outcome import AGREES, NOT_APPLICABLE, Outcome

_SAID = "Swept anew on "


def put_anew(page: Path, found: Mapping[str, Sequence[Outcome]]) -> None:
    """Puts rows into a page in the place of those that it has of their names.

    Args:
        page: a Markdown file with the coverage between its two markers.
        found: by suite, all rows of each name.

    Raises:
        ValueError: the page has no such markers or tables, or a row is no longer applicable.
    """
    text = page.read_text(encoding="utf-8").partition(START)[2].partition(END)[0].strip("\n")
    by_name: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for suite, rows in found.items():
        for row in rows:
            kind = kind_of(suite, row.name)
            by_name[kind, listed_name(kind, row.name)].append(row)
    for (kind, name), rows in by_name.items():
        if any(row.verdict == NOT_APPLICABLE for row in rows):
            raise ValueError(f"{name} is not applicable: run the whole sweep")
        text = _with(text, kind, name, rows)
    put_between(page, START, END, _dated(text, [name for _, name in by_name]))


def _with(text: str, kind: str, name: str, rows: Sequence[Outcome]) -> str:
    """Returns the coverage with the rows of one name in the place of those before."""
    agree = [row for row in rows if row.verdict == AGREES]
    others = [row for row in rows if row.verdict != AGREES]
    text, agreed = _listed(text, kind, name, len(agree))
    text, refused = _refused(text, kind, name, others)
    worst = max((row.parity for row in agree if row.parity is not None), default=0.0)
    return _counted(text, kind, len(agree) - agreed, len(others) - refused, worst)


def _listed(text: str, kind: str, name: str, count: int) -> tuple[str, int]:
    """Puts a name among those that agree; returns as well how many models of it agreed before."""
    title = re.escape(f"<summary>{kind}: what agrees</summary>")
    match = re.search(rf"({title}\n\n)(.*?)(\n\n</details>)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"the page has no list of {kind}")
    names = [entry for entry in match[2].split(", ") if entry]
    own = [
        i for i, entry in enumerate(names) if re.fullmatch(rf"{re.escape(name)}( \(\d+\))?", entry)
    ]
    before = sum(_number(names[i]) for i in own)
    at = own[0] if own else bisect.bisect(names, name)
    names = [entry for i, entry in enumerate(names) if i not in own]
    if count:
        names.insert(at, name + (f" ({count})" if count > 1 else ""))
    return text[: match.start(2)] + ", ".join(names) + text[match.end(2) :], before


def _number(entry: str) -> int:
    counted = re.search(r"\((\d+)\)$", entry)
    return int(counted[1]) if counted else 1


def _refused(text: str, kind: str, name: str, rows: Sequence[Outcome]) -> tuple[str, int]:
    """Puts rows among those that do not agree; returns as well how many there were before."""
    head = "| model | verdict | why |\n|---|---|---|\n"
    if head not in text:
        raise ValueError("the page has no table of what does not agree")
    start = text.index(head) + len(head)
    end = text.index("\n\n</details>", start)
    shown = f"policy {name}" if kind == "dtype policies" else name
    lines = [line for line in text[start:end].split("\n") if line]
    own = [i for i, line in enumerate(lines) if _is_of(line, shown)]
    at = own[0] if own else len(lines)
    lines = [line for i, line in enumerate(lines) if i not in own]
    lines[at:at] = [exception(kind, row) for row in rows]
    return text[:start] + "\n".join(lines) + text[end:], len(own)


def _is_of(line: str, name: str) -> bool:
    model = line.removeprefix("| ").partition(" | ")[0]
    return model == name or model.startswith(f"{name}: ")


def _counted(text: str, kind: str, agree: int, others: int, worst: float) -> str:
    """Adds to the counts of a kind."""
    row = re.compile(
        rf"\| {re.escape(kind)} \| (\d+) \| (\d+) \| (\S+) \((\S+)\) \| (\d+) \| (\d+) \|"
    )
    match = row.search(text)
    if match is None:
        raise ValueError(f"the page has no counts of {kind}")
    tried, agreed, median, before, refused, aside = match.groups()
    cells = [kind, int(tried) + agree + others, int(agreed) + agree]
    figures = f"{median} ({max(worst, float(before)):.0e})"
    line = " | ".join(map(str, [*cells, figures, int(refused) + others, aside]))
    return f"{text[: match.start()]}| {line} |{text[match.end() :]}"


def _dated(text: str, names: Sequence[str]) -> str:
    """Says when rows were swept anew; a name stands with its last day alone."""
    first, _, rest = text.partition("\n\n")
    days: dict[str, list[str]] = {}
    if rest.startswith(_SAID):
        said, _, rest = rest.partition("\n\n")
        for line in said.split("\n"):
            day, _, known = line.removeprefix(_SAID).removesuffix(".").partition(": ")
            days[day] = [name for name in known.split(", ") if name not in names]
    today = datetime.date.today().isoformat()
    days[today] = [*days.get(today, ()), *names]
    said = "\n".join(f"{_SAID}{day}: {', '.join(known)}." for day, known in days.items() if known)
    return f"{first}\n\n{said}\n\n{rest}"
