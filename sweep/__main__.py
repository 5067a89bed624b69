"""Compiles small models around everything Keras has, and prints what works."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sweep.anew import put_anew
from sweep.coverage import kind_of, listed_name, write_coverage
from sweep.outcome import COLUMNS, FAULTS, Outcome
from sweep.pool import sweep_all
from sweep.suites import SUITES, subjects


@click.command()
@click.argument("names", nargs=-1)
@click.option("--large", is_flag=True, help="Every size in keras.applications: 20 minutes.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables.")
@click.option(
    "--from",
    "earlier",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Take rows from a file that --json wrote, in place of sweeping their suites.",
)
@click.option(
    "--coverage",
    type=click.Path(exists=True, path_type=Path),
    help="Write the coverage between the markers of a Markdown file.",
)
@click.option(
    "--anew",
    type=click.Path(exists=True, path_type=Path),
    help="Put the rows among NAMES into the coverage that a Markdown file has, with all rows of "
    "the same layer or operation.",
)
def main(
    names: tuple[str, ...],
    large: bool,
    jobs: int,
    json_path: Path | None,
    markdown: Path | None,
    earlier: tuple[Path, ...],
    coverage: Path | None,
    anew: Path | None,
) -> None:
    """Sweep the suites among NAMES (layers if left out), or all.

    Suites: layers, applications, hub; tensorflow, single operations and their forward pass alone.

    Other NAMES are patterns of rows, for example 'Conv2D*'. The exit status is 1 where an
    artefact differs from its model or cannot be made for another reason than a refusal.
    """
    found = {suite: rows for path in earlier for suite, rows in read(path).items()}
    default = [] if found else ["layers"]
    suites = [n for n in names if n in SUITES] or (list(SUITES) if "all" in names else default)
    patterns = [n for n in names if n not in SUITES and n != "all"]
    if anew and not patterns:
        raise click.UsageError("--anew takes names of rows, such as 'ops.stft'.")
    for suite in suites:
        every = [s.name for s in subjects(suite, large)]
        rows = [name for name in every if _asked_for(name, patterns)]
        if anew:  # a page counts the rows of a layer together
            listed = {_listed(suite, name) for name in rows}
            rows = [name for name in every if _listed(suite, name) in listed]
        made = sweep_all(suite, rows, large, jobs)
        shown = Console(stderr=True)
        found[suite] = list(track(made, suite, len(rows), console=shown, disable=not rows))
    report(found, json_path, markdown)
    if coverage:
        write_coverage(coverage, found)
    if anew:
        put_anew(anew, found)
    sys.exit(any(o.verdict in FAULTS for rows in found.values() for o in rows))


def _listed(suite: str, name: str) -> str:
    return listed_name(kind_of(suite, name), name)


def _asked_for(name: str, patterns: Sequence[str]) -> bool:
    short = name.partition(":")[0]
    return not patterns or any(fnmatchcase(n, p) for p in patterns for n in (name, short))


def report(found: dict[str, list[Outcome]], json_path: Path | None, markdown: Path | None) -> None:
    """Prints the tables with a count of verdicts, and writes the files asked for."""
    console = Console()
    for suite, rows in found.items():
        table = Table(*COLUMNS, title=suite)
        for outcome in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in outcome.cells()))
        console.print(table)
        console.print(summary(rows))
    if json_path:
        data = {suite: [dataclasses.asdict(o) for o in rows] for suite, rows in found.items()}
        json_path.write_text(json.dumps(data, indent=1))
    if markdown:
        markdown.write_text("\n".join(as_markdown(s, rows) for s, rows in found.items()))


def read(path: Path) -> dict[str, list[Outcome]]:
    """Returns the rows of each suite in a file that `report` wrote."""
    data = json.loads(path.read_text())
    return {suite: [Outcome(**row) for row in rows] for suite, rows in data.items()}


def summary(rows: Sequence[Outcome]) -> str:
    """Returns how many rows have which verdict."""
    counts = Counter(o.verdict for o in rows)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def as_markdown(suite: str, rows: Sequence[Outcome]) -> str:
    """Returns one suite's table in Markdown."""
    lines = [f"## {suite}", "", summary(rows), "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
    lines += [_row(o.cells()) for o in rows]
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


if __name__ == "__main__":
    main()
