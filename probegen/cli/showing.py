"""Progress, notes and tables in a terminal, and imports that keep its output clean."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from probegen.errors import SourceError

if TYPE_CHECKING:
    from rich.console import Console


def note(line: str) -> None:
    """Prints a line on standard error."""
    click.echo(line, err=True)


def flag(name: str, value: object) -> str:
    """Returns how an option of a reader is set here."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name.replace('_', '-')} {value}"


def _import(modules: Sequence[str]) -> None:
    if modules:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise SourceError(f"--import {module}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def progress(first: str, modules: Sequence[str], model: str) -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is being done, one stage after the other.

    Args:
        first: the first stage.
        modules: imported before it.
        model: path of the model, which says whether TensorFlow is needed.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        _stage(first)
        _start(model)
        _import(modules)
        yield _stage
        return
    with console.status(first) as status:
        _start(model)
        _import(modules)
        yield status.update


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Shows on standard error how many of so many are done, and for how long it will go on.

    Nothing is shown where standard error is no terminal.

    Args:
        what: is counted.

    Yields:
        What is told how many are done, how many there are, and how many of them failed.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(what, total=None, failed="")

        def update(done: int, total: int, failed: int) -> None:
            said = f"{failed} with an error" if failed else ""
            bar.update(task, completed=done, total=total, failed=said)

        yield update


def _stage(what: str) -> None:
    click.echo(f"{what} ...", err=True)


def _start(model: str) -> None:
    from probegen.sources import kind_of

    if kind_of(model).needs_tensorflow:
        start_tensorflow()


def start_for(artefact: str) -> None:
    """Starts TensorFlow where an artefact is a SavedModel, which runs in it."""
    if os.path.isdir(artefact):
        start_tensorflow()


def start_tensorflow() -> None:
    """Imports TensorFlow without the notes that its libraries write past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: folded into a terminal, else with every row on one line."""
    console = _console()
    if not console.is_terminal:
        from probegen.text import indented_table

        click.echo(f"{title}\n{indented_table(columns, rows)}")
        return
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
