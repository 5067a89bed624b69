"""What demos and examples share: training, the output folder, progress in the terminal, tables.

Import this before Keras: it asks TensorFlow for silence and for sums in one fixed order, so
that a demo prints the same figures on every machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import probegen as pg

CONSOLE = Console()
OUT = Path(__file__).resolve().parents[1] / "out"


def headline(title: str, what: str) -> None:
    """Prints the heading of a demo."""
    CONSOLE.rule(f"[bold]{title}", align="left")
    CONSOLE.print(what, style="dim")


def begin(name: str, title: str, what: str, out: Path | None = None) -> Path:
    """Prints the heading, seeds all random numbers, and returns the new folder `out/<name>`."""
    headline(title, what)
    keras.utils.set_random_seed(0)
    return fresh_folder(name, out)


def fresh_folder(name: str, out: Path | None = None) -> Path:
    """Returns `out/<name>`, new and empty."""
    folder = (out or OUT) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Shows what is going on, and afterwards how long it took."""
    start = time.perf_counter()
    with CONSOLE.status(text):
        yield
    done(text, start)


@contextlib.contextmanager
def training(text: str, epochs: int) -> Iterator[keras.callbacks.Callback]:
    """Shows a bar of epochs; yields the callback that moves it."""
    start = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task(text, total=epochs)
        yield keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: progress.advance(task))
    done(text, start)


def falling(rate: float, samples: int, epochs: int, batch: int) -> Any:
    """Returns a learning rate that falls along a cosine, from `rate` to 0 when training ends."""
    return keras.optimizers.schedules.CosineDecay(rate, epochs * -(-samples // batch))


def fit(
    model: keras.Model,
    x: Any,
    y: Any,
    epochs: int,
    batch: int,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> None:
    """Fits a compiled model in place, and prints nothing."""
    model.fit(x, y, epochs=epochs, batch_size=batch, callbacks=list(callbacks), verbose=0)


def done(text: str, start: float) -> None:
    """Prints that a step which began at `start` (of `time.perf_counter`) is over."""
    CONSOLE.print(f"[green]✓[/] {text} [dim]{time.perf_counter() - start:.1f} s[/]")


def fact(text: str) -> None:
    """Prints a figure worth reading."""
    CONSOLE.print(f"  {text}", soft_wrap=True)


def run_all(what: str, modules: Iterable[Any], out: Path | None = None) -> list[Path]:
    """Runs examples one after the other; returns the folders with their results.

    Args:
        what: what they are called when all are done.
        modules: theirs.
        out: the folder for all results.
    """
    start = time.perf_counter()
    folders = [module.main(out) for module in modules]
    CONSOLE.rule("[bold]Done", align="left")
    CONSOLE.print(f"{what} in {time.perf_counter() - start:.0f} s; look at")
    for folder in folders:
        CONSOLE.print(f"  {shown(folder / 'report.html')}")
    return folders


def closing_table(folder: Path, **artefacts: pg.Exported) -> None:
    """Prints how far each artefact is from the source model, and what lies in the folder.

    Args:
        folder: where the demo wrote to.
        artefacts: name of the format -> what `pg.export` returned, verified.
    """
    parity = Table(title="max |a - b| / max |b| against the Keras model", title_justify="left")
    reports = [artefact.report for artefact in artefacts.values()]
    parity.add_column("output")
    for name in artefacts:
        parity.add_column(name, justify="right")
    for output in reports[0]:
        parity.add_row(output, *(f"{report[output].max_rel:.1e}" for report in reports))
    CONSOLE.print(parity)

    files = Table(title=f"in {shown(folder)}/", title_justify="left", show_header=False)
    for path in sorted(folder.iterdir()):
        files.add_row(path.name + "/" * path.is_dir(), human(size_of(path)))
    CONSOLE.print(files)


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def human(size: float) -> str:
    """Returns a number of bytes as people write it."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def shown(path: Path) -> str:
    """Returns a path relative to where the user stands, if it lies below."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
