"""Times explained against plain models and prints ratios."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.race import race, ratio
from bench.subjects import DEFAULT, sample, subject

COLUMNS = (
    "model",
    "batch",
    "plain ms",
    "explain/plain",
    "gate off/plain",
    "activations/plain",
    "Grad-CAM/plain",
    "file/plain",
    "peak memory/plain",
    "compile/convert",
)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--batch", multiple=True, type=click.IntRange(1), default=(1,), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--peers", is_flag=True, help="Also time what people use today, where installed.")
@click.option("--json", "json_path", type=click.Path(), help="Write the figures to a file.")
def main(
    names: tuple[str, ...], batch: tuple[int, ...], rounds: int, peers: bool, json_path: str | None
) -> None:
    """Time NAMES (the demos and ResNet50 if left out): prediction and saliency over prediction.

    Each contestant runs in a process of its own with 2 threads; they take turns, and ratios are
    of medians, with the range over the rounds in brackets.
    """
    console = Console(width=max(Console().width, 150))
    table = Table(*COLUMNS, title="onnxruntime on CPU, 2 threads; ratios of medians (range)")
    peer_table = Table("model", "batch", "peer", "peer/explain", title="against peers")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or DEFAULT:
            made = _prepare(name, Path(folder))
            for size in batch:
                console.print(f"timing {name}, batch {size}")
                row, peer_rows = _time(made, size, rounds, peers)
                table.add_row(*row.values())
                for peer_row in peer_rows:
                    peer_table.add_row(*peer_row)
                figures.append({**row, "peers": peer_rows})
    console.print(table)
    if peers:
        console.print(peer_table)
    if json_path:
        Path(json_path).write_text(json.dumps(figures, indent=1))


def _prepare(name: str, folder: Path) -> dict[str, Any]:
    """Builds a subject's artefacts and times their making."""
    import keras

    import probegen as pg
    from probegen.errors import SelectionError

    chosen = subject(name)
    model = chosen.build()
    place = folder / name
    place.mkdir()
    start = time.perf_counter()
    convert_plainly(model, place / "plain.onnx")
    converted = time.perf_counter()
    exported = pg.compile(model, pg.Saliency(), place / "explain.onnx")
    compiled = time.perf_counter()
    activations = pg.Activations(chosen.activations)
    pg.compile(model, activations, place / "activations.onnx", verify=False)
    with contextlib.suppress(SelectionError):  # no layer with positions: the table says so
        pg.compile(model, pg.GradCAM(), place / "grad_cam.onnx", verify=False)
    keras.backend.clear_session()
    return {
        "name": name,
        "folder": place,
        "manifest": exported.manifest,
        "compile_ratio": (compiled - converted) / (converted - start),
    }


def convert_plainly(model: Any, path: Path) -> None:
    """Converts a model by tf2onnx as anybody would, predictions only."""
    import tensorflow as tf
    import tf2onnx

    signature = [
        tf.TensorSpec([None, *t.shape[1:]], t.dtype, name=f"input_{i}")
        for i, t in enumerate(model.inputs)
    ]

    @tf.function(input_signature=signature, autograph=False)
    def predict(*inputs: Any) -> Any:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    tf2onnx.convert.from_function(
        predict, input_signature=signature, opset=18, output_path=str(path)
    )


def _time(
    made: dict[str, Any], batch: int, rounds: int, peers: bool
) -> tuple[dict[str, str], list[list[str]]]:
    folder, name = made["folder"], made["name"]
    inputs = sample(made["manifest"], batch)
    renamed = {f"input_{i}": value for i, value in enumerate(inputs.values())}
    feed = folder / f"feed_{batch}.npz"
    np.savez(feed, **inputs, **renamed)
    onnx = {"runner": "onnx", "feed": str(feed)}
    jobs: dict[str, dict[str, Any]] = {
        "plain": {**onnx, "path": str(folder / "plain.onnx")},
        "explain": {**onnx, "path": str(folder / "explain.onnx")},
        "gate off": {**onnx, "path": str(folder / "explain.onnx"), "explain": False},
        "activations": {**onnx, "path": str(folder / "activations.onnx")},
        "grad_cam": {**onnx, "path": str(folder / "grad_cam.onnx")},
    }
    if not (folder / "grad_cam.onnx").exists():
        del jobs["grad_cam"]
    if peers:
        tensorflow = {"runner": "tensorflow", "subject": name, "feed": str(feed)}
        jobs["tf.function gradient"] = {**tensorflow, "eager": False}
        jobs["eager GradientTape"] = {**tensorflow, "eager": True}
        jobs["Xplique Saliency"] = {"runner": "xplique", "subject": name, "feed": str(feed)}
    timings = race(jobs, rounds)
    plain, explain = timings["plain"], timings["explain"]

    def over_plain(contestant: str) -> str:
        return str(ratio(timings[contestant], plain)) if contestant in timings else "-"

    bytes_over = _bytes(folder / "explain.onnx") / _bytes(folder / "plain.onnx")
    values = (
        name,
        str(batch),
        f"{plain.median * 1e3:.2f}",
        over_plain("explain"),
        over_plain("gate off"),
        over_plain("activations"),
        over_plain("grad_cam"),
        f"{bytes_over:.4f}",
        f"{explain.peak_bytes / plain.peak_bytes:.2f}",
        f"{made['compile_ratio']:.2f}",
    )
    standard = {"plain", "explain", "gate off", "activations", "grad_cam"}
    peer_rows = [
        [name, str(batch), peer, str(ratio(timing, explain))]
        for peer, timing in timings.items()
        if peer not in standard
    ]
    return dict(zip(COLUMNS, values, strict=True)), peer_rows


def _bytes(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main()
