"""Times explained against plain models and prints ratios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.artefact import time_artefact
from bench.bulk import bulk_rates
from bench.compare import compare
from bench.growth import growth
from bench.methods import METHODS, compare_methods
from bench.profile import profile
from bench.recurrent import recurrent
from bench.serving import serve_load
from bench.subjects import DEFAULT, subject


class _Commands(click.Group):
    """A group whose first command is the one that is meant where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["compare", *args]
        return super().parse_args(ctx, args)


_json = click.option("--json", "json_path", type=click.Path(), help="Write figures to a file.")


@click.group(cls=_Commands)
def main() -> None:
    """Benchmarks. `python -m bench NAMES` is short for `python -m bench compare NAMES`."""


@main.command("compare")
@click.argument("names", nargs=-1)
@click.option("--batch", multiple=True, type=click.IntRange(1), help="1 by default; --batch 1 8.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--peers", is_flag=True, help="Also time what people use today, where installed.")
@_json
def compare_command(
    names: tuple[str, ...], batch: tuple[int, ...], rounds: int, peers: bool, json_path: str | None
) -> None:
    """Time NAMES (all large models if left out): explained over plain, and over peers.

    Each contestant runs in a process of its own with 2 threads; they take turns, and ratios are
    of medians, with the range over the rounds in brackets. Rows appear as they are measured.
    """
    batches = (*batch, *(int(n) for n in names if n.isdigit())) or (1,)
    chosen = [n for n in names if not n.isdigit()] or DEFAULT
    for name in chosen:
        _require(name)
    _write(json_path, compare(chosen, batches, rounds, peers))


@main.command("artefact")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--device", help="Where it computes, see `probegen run`.")
@click.option("--batch", multiple=True, type=click.IntRange(1), default=(1, 8), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@_json
def artefact_command(
    paths: tuple[str, ...],
    device: str | None,
    batch: tuple[int, ...],
    rounds: int,
    json_path: str | None,
) -> None:
    """Time the artefacts at PATHS with explanations off and on; needs neither model nor Keras."""
    rows = [row for path in paths for row in time_artefact(path, device, batch, rounds)]
    _write(json_path, rows)


@main.command("serve")
@click.argument("names", nargs=-1)
@click.option("--connections", type=click.IntRange(1), default=4, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=5.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
@_json
def serve_command(
    names: tuple[str, ...], connections: int, seconds: float, rounds: int, json_path: str | None
) -> None:
    """Load on `probegen serve` with NAMES (digits and MobileNetV2 if left out), over loopback."""
    for name in names:
        _require(name)
    chosen = names or ("digits", "MobileNetV2")
    _write(json_path, [serve_load(name, connections, seconds, rounds) for name in chosen])


@main.command("bulk")
@click.argument("names", nargs=-1)
@click.option("--samples", type=click.IntRange(8), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@_json
def bulk_command(names: tuple[str, ...], samples: int, rounds: int, json_path: str | None) -> None:
    """Samples a second and core of bulk runs of NAMES (MobileNetV2 if left out)."""
    for name in names:
        _require(name)
    _write(json_path, bulk_rates(names or ("MobileNetV2",), samples, rounds))


@main.command("methods")
@click.argument("names", nargs=-1, type=click.Choice(list(METHODS)))
@click.option("--model", default="ResNet50", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--peers", is_flag=True, help="Also time Xplique and captum, where installed.")
@click.option("--cpu", is_flag=True, help="Processor time with one thread: for machines in use.")
@_json
def methods_command(
    names: tuple[str, ...], model: str, rounds: int, peers: bool, cpu: bool, json_path: str | None
) -> None:
    """Time methods NAMES (all if left out) over the passes they are made of, and over peers."""
    _require(model)
    _write(json_path, compare_methods(model, names or tuple(METHODS), rounds, peers, cpu))


@main.command("growth")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@_json
def growth_command(rounds: int, json_path: str | None) -> None:
    """Time and memory of a residual network over input size, batch and depth."""
    _write(json_path, growth(rounds))


@main.command("recurrent")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--cpu", is_flag=True, help="Processor time: for machines in use.")
@_json
def recurrent_command(rounds: int, cpu: bool, json_path: str | None) -> None:
    """Recurrent layers: explained over plain, beside tf.function, and up to 10,000 steps."""
    _write(json_path, recurrent(rounds, cpu))


@main.command("profile")
@click.argument("name")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True)
@_json
def profile_command(name: str, batch: int, runs: int, json_path: str | None) -> None:
    """Where the time of NAME goes, op by op, plain beside explained."""
    _require(name)
    _write(json_path, profile(name, batch, runs))


def _require(name: str) -> None:
    try:
        subject(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _write(path: str | None, figures: Any) -> None:
    if path:
        Path(path).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(prog_name="python -m bench")
