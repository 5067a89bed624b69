"""How many samples a core gets through in a bulk run, and what ten million of them take.

Each run is a process of its own with one thread of the engine, on an `.npy` file or on a folder of
JPEG files, into Parquet: reading (of JPEG files decoding and resizing), running and writing are all
in it, loading is not. The rate is samples over seconds of processor time, which other work on the
machine changes little; reading goes on beside running, so that the wall clock of a machine of its
own shows no more.

`python -m bench.bulk JOB` carries out one run, and prints its figures.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.make import in_own_process, make
from bench.tables import head, row

COLUMNS = ("model", "bulk run", "samples/s a core", "range", "core hours for ten million", "record")
#: What is explained, beside nothing.
METHOD = "Saliency"
MILLIONS = 10
#: Samples that are run before the clock starts.
_WARM = 8
#: What is read: rows of one array, or pictures of the size that most of ImageNet's have.
ARRAY, PHOTOS = "x.npy", "photos"
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90


def core_hours(rate: float, samples: float = MILLIONS * 1e6) -> float:
    """Returns the hours of one core that samples take at a rate of so many a second."""
    return samples / rate / 3600


def bulk_rates(names: Sequence[str], samples: int, rounds: int) -> list[dict[str, Any]]:
    """Prints a table of rates of subjects' artefacts, plain and explained; returns its figures."""
    click.echo(head(COLUMNS))
    return [figures for name in names for figures in _rates(name, samples, rounds)]


def _rates(name: str, samples: int, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        job = {"subject": name, "folder": folder, "batches": [1], "stage": "method"}
        make({**job, "file": "explain", "probes": [[METHOD, {}]]})
        with np.load(Path(folder) / "feed_1.npz") as fed:
            (one,) = fed.values()
        rows = np.random.default_rng(0).choice(one.reshape(-1), (samples, *one.shape[1:]))
        np.save(Path(folder) / "x.npy", rows)  # no two alike, which would be stored as one
        np.save(Path(folder) / "warm.npy", rows[:_WARM])
        _write_photos(Path(folder) / PHOTOS, samples)
        ways = [(False, ARRAY), (True, ARRAY), (False, PHOTOS), (True, PHOTOS)]
        found: dict[tuple[bool, str], list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for (explain, given), runs in found.items():
                run = {"folder": folder, "explain": explain, "input": given}
                runs.append(in_own_process("bench.bulk", run, OMP_NUM_THREADS="1"))
    told = []
    for (explain, given), runs in found.items():
        how = f"with {METHOD}" if explain else "plain"
        how += ", of JPEG files" if given == PHOTOS else ""
        rates = [samples / run["seconds"] for run in runs]
        rate, size = statistics.median(rates), runs[0]["bytes"] / samples
        click.echo(
            row(
                [
                    name,
                    how,
                    f"{rate:.3g}",
                    f"{min(rates):.3g}-{max(rates):.3g}",
                    f"{core_hours(rate):.0f}",
                    f"{size / 1000:.3g} kB",
                ]
            )
        )
        told.append({"model": name, "how": how, "rates": rates, "bytes": size})
    return told


def _write_photos(folder: Path, count: int) -> None:
    """Writes JPEG files that take as long to decode as photographs: large shapes, some grain."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), np.float32)
        grain = smooth + rng.normal(0, 6, smooth.shape)
        photo = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
        photo.save(folder / f"{number:05}.jpg", quality=_QUALITY)


def _carry_out(job: dict[str, Any]) -> dict[str, float]:
    from probegen import bulk, runtime

    folder = Path(job["folder"])
    artefact = runtime.load(folder / "explain.onnx", threads=1)
    asked = bulk.Asked(explain=job["explain"])
    with tempfile.TemporaryDirectory(dir=folder) as out:
        bulk.run(artefact, folder / "warm.npy", Path(out) / "warm.parquet", asked=asked)
        place = Path(out) / "all.parquet"
        start = time.process_time()
        done = bulk.run(artefact, folder / job["input"], place, asked=asked)
        seconds = time.process_time() - start
        if done.failed:
            raise RuntimeError(
                f"{done.failed} of {done.samples} samples failed: {done.first_error}"
            )
        size = sum(path.stat().st_size for path in place.iterdir())
    return {"seconds": seconds, "bytes": float(size)}


if __name__ == "__main__":
    print(json.dumps(_carry_out(json.loads(sys.argv[1]))))
