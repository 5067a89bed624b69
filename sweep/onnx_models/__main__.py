"""Compiles ONNX files that strangers' tools wrote, and prints what works."""

from __future__ import annotations

import dataclasses
import importlib.metadata
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

from sweep.onnx_models.case import COMPILER, OWN, Case
from sweep.onnx_models.outcome import COLUMNS, FAULTS, Outcome
from sweep.onnx_models.pool import sweep_all, write_all
from sweep.onnx_models.sets import cases
from sweep.onnx_models.table import write_table

_PLACE = Path("out/onnx_models")
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "skl2onnx", "onnx", "onnxruntime")


@click.command()
@click.argument("patterns", nargs=-1)
@click.option(
    "--write",
    "home",
    type=click.Choice([OWN, COMPILER]),
    help="Only write the files that this environment makes.",
)
@click.option("--place", type=click.Path(path_type=Path), default=_PLACE, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiply the time limits by it, for a machine with other work.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
@click.option(
    "--from",
    "earlier",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Take the rows from files that --json wrote, in place of sweeping.",
)
@click.option(
    "--coverage",
    type=click.Path(exists=True, path_type=Path),
    help="Write the table between the markers of a Markdown file.",
)
@click.option("--list", "listed", is_flag=True, help="Print the names of the cases.")
def main(
    patterns: tuple[str, ...],
    home: str | None,
    place: Path,
    jobs: int,
    patience: float,
    json_path: Path | None,
    earlier: tuple[Path, ...],
    coverage: Path | None,
    listed: bool,
) -> None:
    """Sweep the cases whose names match PATTERNS, for example 'timm:*', or all.

    Files are written once and kept. The exit status is 1 where an artefact differs from its
    source or cannot be made for another reason than a refusal.
    """
    wanted = [
        dataclasses.replace(c, limit=int(c.limit * patience))
        for c in cases()
        if _asked_for(c, patterns)
    ]
    if listed:
        click.echo("\n".join(c.name for c in wanted))
        return
    shown = Console(stderr=True)
    if home is not None:
        for outcome in write_all(wanted, place, home, jobs):
            shown.print(f"{outcome.name}: {outcome.reason}", markup=False)
        return
    if earlier:
        rows = [Outcome(**row) for path in earlier for row in json.loads(path.read_text())]
    else:
        made = sweep_all(wanted, place, jobs)
        rows = []
        for row in track(made, "files", len(wanted), console=shown, disable=not wanted):
            rows.append(row)
            if json_path:  # after each, so that a sweep that is stopped keeps what it did
                _write_rows(json_path, rows)
    report(rows)
    if json_path:
        _write_rows(json_path, rows)
    if coverage:
        write_table(coverage, rows, versions())
    sys.exit(any(r.verdict in FAULTS for r in rows))


def _write_rows(path: Path, rows: Sequence[Outcome]) -> None:
    path.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1))


def _asked_for(case: Case, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(case.name, p) for p in patterns)


def report(rows: Sequence[Outcome]) -> None:
    """Prints the table and a count of verdicts."""
    console = Console()
    table = Table(*COLUMNS, title="ONNX files")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row.cells()))
    console.print(table)
    counts = Counter(r.verdict for r in rows)
    console.print(", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()))


def versions() -> dict[str, str]:
    """Returns the versions of the packages that wrote files and ran them."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
