"""How time and memory grow with input size, batch and depth, beside the plain model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from bench.make import make
from bench.race import Timing, race
from bench.tables import exponent, head, row

SIZES = (96, 160, 224, 320)
BATCHES = (1, 2, 4, 8, 16)
DEPTHS = (4, 8, 16, 32)
#: Where the other two stand while one grows.
BASE = {"size": 160, "batch": 1, "depth": 8}
COLUMNS = ("plain ms", "explain ms", "explain/plain", "plain MB", "explain MB", "MB ratio")


def growth(
    rounds: int,
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
    depths: Sequence[int] = DEPTHS,
) -> list[dict[str, Any]]:
    """Prints a table for each thing that grows, and returns its points and slopes.

    Memory is the peak of a process above what it held before the model was loaded.
    """
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for axis, values in (("size", sizes), ("batch", batches), ("depth", depths)):
            points = []
            click.echo(f"\nwith {axis}:\n\n" + head((axis, *COLUMNS)))
            for value in values:
                at = {**BASE, axis: value}
                points.append(_point(at, _made(at, Path(folder), batches), rounds))
                click.echo(row([value, *_cells(points[-1])]))
            slopes = fit(values, points)
            click.echo(row(["slope", *_slope_cells(slopes)]))
            tables.append({"axis": axis, "values": values, "points": points, "slopes": slopes})
    click.echo(
        "\nslope: the p of (what grows)**p by least squares on logarithms; under a ratio, the "
        "difference of the slopes"
    )
    return tables


def fit(values: Sequence[float], points: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the exponent of each figure over `values`; empty for a single point."""
    if len(values) < 2:
        return {}
    return {key: exponent(values, [p[key] for p in points]) for key in points[0]}


def _made(at: dict[str, int], folder: Path, batches: Iterable[int]) -> Path:
    name = f"residual-{at['size']}-{at['depth']}"
    place = folder / name
    if not place.exists():
        place.mkdir()
        wanted = sorted({BASE["batch"], *batches})
        make({"stage": "growth", "subject": name, "folder": str(place), "batches": wanted})
    return place


def _point(at: dict[str, int], place: Path, rounds: int) -> dict[str, float]:
    feed = str(place / f"feed_{at['batch']}.npz")
    jobs = {
        n: {"runner": "onnx", "path": str(place / f"{n}.onnx"), "feed": feed}
        for n in ("plain", "explain")
    }
    timings = race(jobs, rounds)
    return {
        f"{name} {unit}": value
        for name, timing in timings.items()
        for unit, value in (("ms", timing.median * 1e3), ("MB", _megabytes(timing)))
    }


def _megabytes(timing: Timing) -> float:
    return (timing.peak_bytes - timing.base_bytes) / 2**20


def _cells(p: dict[str, float]) -> list[str]:
    return [
        f"{p['plain ms']:.2f}",
        f"{p['explain ms']:.2f}",
        f"{p['explain ms'] / p['plain ms']:.2f}",
        f"{p['plain MB']:.0f}",
        f"{p['explain MB']:.0f}",
        f"{p['explain MB'] / p['plain MB']:.2f}",
    ]


def _slope_cells(s: dict[str, float]) -> list[str]:
    if not s:
        return ["-"] * len(COLUMNS)
    cells = []
    for unit in ("ms", "MB"):
        plain, explain = s[f"plain {unit}"], s[f"explain {unit}"]
        cells += [f"{plain:.2f}", f"{explain:.2f}", f"{explain - plain:+.2f}"]
    return cells
