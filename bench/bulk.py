"""How many samples a core gets through in a bulk run, and what ten million of them take.

Each run is a process of its own with one thread of the engine, on an `.npy` file, into Parquet:
reading, running and writing are all in it, loading is not. The rate is samples over seconds of
processor time, which other work on the machine changes little; reading goes on beside running, so
that the wall clock of a machine of its own shows no more.

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
        found: dict[str, list[dict[str, float]]] = {"plain": [], "explained": []}
        for _ in range(rounds):
            for how, runs in found.items():
                run = {"folder": folder, "explain": how == "explained"}
                runs.append(in_own_process("bench.bulk", run, OMP_NUM_THREADS="1"))
    told = []
    for how, runs in found.items():
        rates = [samples / run["seconds"] for run in runs]
        rate, size = statistics.median(rates), runs[0]["bytes"] / samples
        click.echo(
            row(
                [
                    name,
                    how if how == "plain" else f"with {METHOD}",
                    f"{rate:.3g}",
                    f"{min(rates):.3g}-{max(rates):.3g}",
                    f"{core_hours(rate):.0f}",
                    f"{size / 1000:.3g} kB",
                ]
            )
        )
        told.append({"model": name, "how": how, "rates": rates, "bytes": size})
    return told


def _carry_out(job: dict[str, Any]) -> dict[str, float]:
    from probegen import bulk, runtime

    folder = Path(job["folder"])
    artefact = runtime.load(folder / "explain.onnx", threads=1)
    asked = bulk.Asked(explain=job["explain"])
    with tempfile.TemporaryDirectory(dir=folder) as out:
        bulk.run(artefact, folder / "warm.npy", Path(out) / "warm.parquet", asked=asked)
        place = Path(out) / "all.parquet"
        start = time.process_time()
        done = bulk.run(artefact, folder / "x.npy", place, asked=asked)
        seconds = time.process_time() - start
        if done.failed:
            raise RuntimeError(
                f"{done.failed} of {done.samples} samples failed: {done.first_error}"
            )
        size = sum(path.stat().st_size for path in place.iterdir())
    return {"seconds": seconds, "bytes": float(size)}


if __name__ == "__main__":
    print(json.dumps(_carry_out(json.loads(sys.argv[1]))))
