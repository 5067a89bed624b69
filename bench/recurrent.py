"""Recurrent layers: explained over plain and beside `tf.function`, and growth over the length."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.make import make
from bench.race import Timing, race
from bench.subjects import FEATURES
from bench.tables import exponent, head, row

SUBJECTS = ("LSTM-128", "GRU-128", "SimpleRNN-128")
#: What is timed at one length.
LENGTH, BATCHES = 200, (1, 8)
#: What grows, at batch 1, and of which layers.
LENGTHS, GROWING = (100, 1000, 10_000), ("LSTM-128", "GRU-128")
ONE_LENGTH = ("layer", "batch", "plain ms", "explain/plain", "states/plain", "tf.function/explain")
GROWTH = ("layer", "length", "plain ms", "explain ms", "ratio", "plain MB", "explain MB", "KB more")


def recurrent(
    rounds: int,
    cpu: bool,
    subjects: Sequence[str] = SUBJECTS,
    growing: Sequence[str] = GROWING,
    lengths: Sequence[int] = LENGTHS,
) -> dict[str, Any]:
    """Prints both tables and returns their figures.

    Every contestant has one thread. Times are the fastest run of all rounds, in which contestants
    take turns; memory is the peak of a process above what it held before the model was loaded.

    Args:
        rounds: how many.
        cpu: time of the processor in the place of that on the wall.
        subjects: see `bench.subjects`; for the first table.
        growing: for the second.
        lengths: numbers of steps in the second.
    """
    figures: dict[str, Any] = {"one length": [], "growth": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        click.echo(f"{LENGTH} steps of {FEATURES} features:\n\n{head(ONE_LENGTH)}")
        for subject in subjects:
            for batch in BATCHES:
                found = _times(folder, subject, LENGTH, batch, rounds, cpu, peer=True)
                figures["one length"].append(
                    {"layer": subject, "batch": batch, **{n: t.fastest for n, t in found.items()}}
                )
                click.echo(row([subject, batch, *_over_plain(found)]))
        click.echo(f"\nbatch 1, over the length:\n\n{head(GROWTH)}")
        for subject in growing:
            points = []
            for length in lengths:
                point = _point(folder, subject, length, rounds, cpu)
                points.append(point)
                click.echo(row([subject, length, *_cells(point)]))
            slopes = {
                n: exponent(lengths, [p[n] for p in points]) for n in points[0] if n != "KB more"
            }
            shown = [f"{slopes[n]:.2f}" if n in slopes else "-" for n in GROWTH[2:]]
            click.echo(row([subject, "slope", *shown]))
            figures["growth"].append({"layer": subject, "points": points, "slopes": slopes})
    click.echo("\nslope: the p of length**p by least squares on logarithms")
    return figures


def _times(
    folder: Path, subject: str, length: int, batch: int, rounds: int, cpu: bool, *, peer: bool
) -> dict[str, Timing]:
    """Returns the times of what can run, of `plain`, `explain`, `states` and `tensorflow`."""
    place = folder / subject
    if not place.exists():
        place.mkdir()
        make({"stage": "recurrent", "subject": subject, "folder": str(place)})
    feed = place / f"feed_{length}_{batch}.npz"
    x = np.random.default_rng(0).normal(size=(batch, length, FEATURES)).astype(np.float32)
    np.savez(feed, x=x)
    common = {"feed": str(feed), "threads": 1, "cpu": cpu}
    names = ("plain", "explain", *(("states",) if peer else ()))
    jobs: dict[str, Mapping[str, Any]] = {
        n: {"runner": "onnx", "path": str(place / f"{n}.onnx"), **common} for n in names
    }
    if peer:
        jobs["tensorflow"] = {
            "runner": "tensorflow", "subject": subject, "eager": False, **common
        }  # fmt: skip
    return race(jobs, rounds)


def _over_plain(found: Mapping[str, Timing]) -> list[str]:
    def ratio(above: str, below: str) -> str:
        if above not in found:
            return "-"
        return f"{found[above].fastest / found[below].fastest:.2f}"

    return [
        f"{found['plain'].fastest * 1e3:.2f}",
        ratio("explain", "plain"),
        ratio("states", "plain"),
        ratio("tensorflow", "explain"),
    ]


def _point(folder: Path, subject: str, length: int, rounds: int, cpu: bool) -> dict[str, float]:
    found = _times(folder, subject, length, 1, rounds, cpu, peer=False)
    point = {f"{n} ms": t.fastest * 1e3 for n, t in found.items()}
    point["ratio"] = point["explain ms"] / point["plain ms"]
    point |= {f"{n} MB": (t.peak_bytes - t.base_bytes) / 2**20 for n, t in found.items()}
    sizes = [(folder / subject / f"{n}.onnx").stat().st_size for n in ("explain", "plain")]
    return {**point, "KB more": (sizes[0] - sizes[1]) / 1024}


def _cells(point: Mapping[str, float]) -> list[str]:
    places = {"ms": 2, "ratio": 2, "MB": 0, "more": 0}
    return [f"{point[n]:.{places[n.split()[-1]]}f}" for n in GROWTH[2:]]
