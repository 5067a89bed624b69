"""Where the time goes, op by op, from onnxruntime's own profile."""

from __future__ import annotations

import collections
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.make import make
from bench.tables import head, row
from bench.worker import make_session, select_inputs

#: Their time is that of the nodes inside them, which are listed themselves.
CONTAINERS = frozenset({"If", "Loop", "Scan"})
_WARMUP = 2


def profile(name: str, batch: int, runs: int) -> list[dict[str, Any]]:
    """Prints milliseconds a run by op type, plain beside explain, and returns the rows."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"subject": name, "folder": folder, "batches": [batch], "verify": False}
        make({**job, "stage": "convert"})
        make({**job, "stage": "compile"})
        with np.load(Path(folder) / f"feed_{batch}.npz") as loaded:
            feed = {n: loaded[n] for n in loaded.files}
        plain, explain = (
            profile_ops(Path(folder) / f"{n}.onnx", feed, runs) for n in ("plain", "explain")
        )
    rows = table(plain, explain)
    click.echo(f"{name}, batch {batch}: ms a run, mean of {runs} under the profiler\n")
    click.echo(head(("op", "plain ms", "calls", "explain ms", "calls", "more ms")))
    for r in rows:
        click.echo(row(_cells(r)))
    return rows


def profile_ops(path: Path, feed: Mapping[str, Any], runs: int) -> dict[str, tuple[float, float]]:
    """Returns op type -> milliseconds and calls a run, warm-up left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(str(path), profile=str(Path(folder) / "profile"))
        inputs = select_inputs(session, {**feed, "explain": np.array(True)})
        for _ in range(_WARMUP + runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    return by_op(events, _WARMUP, runs)


def by_op(
    events: Iterable[Mapping[str, Any]], warmup: int, runs: int
) -> dict[str, tuple[float, float]]:
    """Sums onnxruntime's events by op type, those of the last `runs` runs alone.

    Returns op type -> milliseconds and calls a run.
    """
    events = list(events)
    starts = sorted(e["ts"] for e in events if e.get("name") == "model_run")
    since = starts[warmup]
    sums: dict[str, float] = collections.defaultdict(float)
    calls: collections.Counter[str] = collections.Counter()
    for e in events:
        op = e.get("args", {}).get("op_name")
        kernel = e.get("cat") == "Node" and e["name"].endswith("_kernel_time")
        if op is None or not kernel or op in CONTAINERS or e["ts"] < since:
            continue
        sums[op] += e["dur"]
        calls[op] += 1
    return {op: (sums[op] / 1e3 / runs, calls[op] / runs) for op in sums}


def table(
    plain: Mapping[str, tuple[float, float]], explain: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Returns a row for each op type, what explaining adds most to first, and the total last."""
    none = (0.0, 0.0)
    rows = [
        {"op": op, "plain": plain.get(op, none), "explain": explain.get(op, none)}
        for op in {*plain, *explain}
    ]
    rows.sort(key=lambda r: (r["plain"][0] - r["explain"][0], r["op"]))
    total = {
        "op": "total",
        **{
            side: tuple(float(sum(r[side][i] for r in rows)) for i in (0, 1))
            for side in ("plain", "explain")
        },
    }
    return [*rows, total]


def _cells(r: Mapping[str, Any]) -> list[str]:
    (plain, plain_calls), (explain, explain_calls) = r["plain"], r["explain"]
    return [
        r["op"],
        f"{plain:.3f}",
        f"{plain_calls:.0f}",
        f"{explain:.3f}",
        f"{explain_calls:.0f}",
        f"{explain - plain:+.3f}",
    ]
