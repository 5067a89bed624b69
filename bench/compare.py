"""Explained against plain models, and against peers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.make import MakeError, make
from bench.race import Timing, race, ratio
from bench.tables import failed, head, row

COLUMNS = (
    "model",
    "batch",
    "plain ms",
    "explain/plain",
    "gate off/plain",
    "activations/plain",
    "grad_cam/plain",
    "file/plain",
    "peak memory/plain",
    "split off/plain",
    "split off memory/plain",
    "compile/convert",
)
PEER_COLUMNS = ("model", "batch", "peer", "peer/explain")
STANDARD = ("plain", "explain", "gate off", "activations", "grad_cam", "split off")
NOTES = (
    "\\* plain tf2onnx without its safety copies of the graph; † plain tf2onnx writes no file that "
    "runs, the baseline is its conversion with the holes mended (see bench/make.py)"
)


def compare(
    names: Sequence[str], batches: Sequence[int], rounds: int, peers: bool
) -> list[dict[str, Any]]:
    """Prints a row for each subject and batch as it is measured, and returns the figures."""
    figures: list[dict[str, Any]] = []
    click.echo(head(COLUMNS))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = prepare(name, Path(folder), batches)
            except MakeError as error:
                click.echo(failed(COLUMNS, name, error))
                figures.append({"model": name, "error": str(error)})
                continue
            for batch in batches:
                timings = race(_jobs(name, Path(folder), batch, peers), rounds)
                figures.append(_figures(name, batch, made, timings))
                click.echo(row(figures[-1][column] for column in COLUMNS))
    click.echo(f"\nratios of medians (range over the rounds); {NOTES}")
    if peers:
        _print_peers(figures)
    return figures


def prepare(name: str, folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Makes a subject's artefacts; returns `file` and `compile` over plain, `lean` and `mended`.

    Raises:
        MakeError: a stage failed.
    """
    job = {"subject": name, "folder": str(folder), "batches": list(batches)}
    converted = make({**job, "stage": "convert"})
    compiled = make({**job, "stage": "compile"})
    make({**job, "stage": "others"})
    plain, explain = (folder / f"{n}.onnx" for n in ("plain", "explain"))
    return {
        "file": explain.stat().st_size / plain.stat().st_size,
        "compile": compiled["seconds"] / converted["seconds"],
        "lean": converted["lean"],
        "mended": converted["mended"],
    }


def _jobs(name: str, folder: Path, batch: int, peers: bool) -> dict[str, dict[str, Any]]:
    feed = {"feed": str(folder / f"feed_{batch}.npz")}

    def onnx(file: str, **more: Any) -> dict[str, Any]:
        return {"runner": "onnx", "path": str(folder / f"{file}.onnx"), **feed, **more}

    jobs = {
        "plain": onnx("plain"),
        "explain": onnx("explain"),
        "gate off": onnx("explain", explain=False),
        "activations": onnx("activations"),
        "split off": onnx("split"),
    }
    if (folder / "grad_cam.onnx").exists():
        jobs["grad_cam"] = onnx("grad_cam")
    if peers:
        source = {"subject": name, **feed}
        jobs["tf.function gradient"] = {"runner": "tensorflow", "eager": False, **source}
        jobs["eager GradientTape"] = {"runner": "tensorflow", "eager": True, **source}
        jobs["Xplique Saliency"] = {"runner": "xplique", **source}
        jobs["captum Saliency"] = {"runner": "captum", **source}
    return jobs


def _figures(
    name: str, batch: int, made: dict[str, Any], timings: dict[str, Timing]
) -> dict[str, Any]:
    plain, explain = timings["plain"], timings["explain"]

    def over_plain(contestant: str) -> str:
        return str(ratio(timings[contestant], plain)) if contestant in timings else "-"

    values = (
        name + ("†" if made["mended"] else ""),
        batch,
        f"{plain.median * 1e3:.2f}",
        *(over_plain(contestant) for contestant in STANDARD[1:-1]),
        f"{made['file']:.4f}",
        f"{explain.peak_bytes / plain.peak_bytes:.2f}",
        over_plain("split off"),
        f"{timings['split off'].peak_bytes / plain.peak_bytes:.2f}",
        f"{made['compile']:.2f}" + ("\\*" if made["lean"] else ""),
    )
    peers = {
        peer: str(ratio(timing, explain))
        for peer, timing in timings.items()
        if peer not in STANDARD
    }
    return {**dict(zip(COLUMNS, values, strict=True)), "peers": peers}


def _print_peers(figures: Sequence[dict[str, Any]]) -> None:
    click.echo("\n" + head(PEER_COLUMNS))
    for figure in figures:
        for peer, over_explain in figure.get("peers", {}).items():
            click.echo(row([figure["model"], figure["batch"], peer, over_explain]))
