"""Prints and writes the table of methods beside the libraries that people use today."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from peers.case import Row, run
from peers.libraries import LIBRARIES
from sweep.markdown import put_between


@click.command()
@click.argument("libraries", nargs=-1, type=click.Choice(list(LIBRARIES)))
@click.option("--page", type=click.Path(exists=True, path_type=Path), help="Write the table there.")
@click.option("--child", is_flag=True, hidden=True)
def main(libraries: tuple[str, ...], page: Path | None, child: bool) -> None:
    """Compare with LIBRARIES, or with all.

    The exit status is 1 where a difference is above its limit or a case cannot be computed.
    """
    chosen = libraries or tuple(LIBRARIES)
    if child:
        click.echo(json.dumps([dataclasses.asdict(row) for row in _compared(chosen[0])]))
        return
    rows = [row for library in chosen for row in _in_a_process(library)]
    _print(rows)
    if page is not None:
        put_between(page, "<!-- peers -->", "<!-- /peers -->", _markdown(rows))
    sys.exit(0 if all(row.agrees for row in rows) else 1)


def _compared(library: str) -> list[Row]:
    named = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in LIBRARIES[library])
    module = importlib.import_module(f"peers.libraries.{library}")
    return [run(named, case) for case in module.cases()]


def _in_a_process(library: str) -> list[Row]:
    command = [sys.executable, "-m", "peers", library, "--child"]
    told = subprocess.run(
        command,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        fault = (told.stderr.strip().splitlines() or ["it died"])[-1]
        return [Row(", ".join(LIBRARIES[library]), "all", "all", 0.0, "", fault=fault)]
    return [Row(**row) for row in json.loads(told.stdout.splitlines()[-1])]


def _print(rows: list[Row]) -> None:
    table = Table("library", "method", "peer", "difference", "limit", "")
    for row in rows:
        shown = "" if row.difference is None else f"{row.difference:.1e}"
        told = row.fault or ("" if row.agrees else "DIFFERS")
        table.add_row(row.library, row.method, row.peer, shown, f"{row.limit:.0e}", told)
    Console(width=200).print(table, markup=False)


def _markdown(rows: list[Row]) -> str:
    lines = ["| method | peer | largest difference | remark |", "|---|---|---|---|"]
    for row in rows:
        shown = "failed" if row.difference is None else f"{row.difference:.0e}"
        cells = (f"`{row.method}`", f"{row.library}: `{row.peer}`", shown, row.note)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(prog_name="python -m peers")
