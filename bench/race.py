"""Contestants side by side: each in a process of its own, running in turn over several rounds."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: The module that serves a job.
WORKER = "bench.worker"
#: Rest between two contestants, so that the threads of the first have gone to sleep.
_REST_SECONDS = 0.1
#: How long one contestant runs in a round.
_SLICE_SECONDS = 0.5
_MIN_RUNS = 2
_MAX_RUNS = 200


@dataclasses.dataclass(frozen=True)
class Timing:
    """One contestant's figures.

    Attributes:
        medians: the median run of each round, in seconds.
        peak_bytes: peak resident memory of its process.
        base_bytes: what the process held before it loaded its model.
        fastest: the fastest run of all rounds, in seconds: what others that use the machine
            disturb least.
    """

    medians: tuple[float, ...]
    peak_bytes: int
    base_bytes: int
    fastest: float = dataclasses.field(default=float("nan"), compare=False)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.medians)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A contestant over another: of medians, with the range of the rounds' own ratios."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(a: Timing, b: Timing, times: int = 1) -> Ratio:
    """Returns a over b, or over so many times b."""
    each = [x / (y * times) for x, y in zip(a.medians, b.medians, strict=True)]
    return Ratio(a.median / (b.median * times), min(each), max(each))


def race(jobs: Mapping[str, Mapping[str, Any]], rounds: int) -> dict[str, Timing]:
    """Times every job in turn, `rounds` times; one that cannot start is left out with a note."""
    workers: dict[str, subprocess.Popen[str]] = {}
    try:
        for name, job in jobs.items():
            workers[name] = _start(job)
            greeting = _answer(workers[name])
            if greeting != "ready":
                _end(workers.pop(name))
                print(f"  {name} left out: {greeting or 'it ended'}", file=sys.stderr)
        counts = {name: _runs_for_a_slice(worker) for name, worker in workers.items()}
        medians: dict[str, list[float]] = {name: [] for name in workers}
        fastest = dict.fromkeys(workers, float("inf"))
        for turn in range(rounds):
            order = list(workers) if turn % 2 == 0 else list(workers)[::-1]
            for name in order:
                time.sleep(_REST_SECONDS)
                seconds = _ask(workers[name], counts[name])
                medians[name].append(statistics.median(seconds))
                fastest[name] = min(fastest[name], *seconds)
        memory = {name: _ask(worker, "memory") for name, worker in workers.items()}
        return {
            name: Timing(
                tuple(medians[name]), memory[name]["peak"], memory[name]["base"], fastest[name]
            )
            for name in workers
        }
    finally:
        for worker in workers.values():
            _end(worker)


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def _start(job: Mapping[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", WORKER, json.dumps(job)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _runs_for_a_slice(worker: subprocess.Popen[str]) -> int:
    fastest = min(_ask(worker, 1))
    return max(_MIN_RUNS, min(_MAX_RUNS, int(_SLICE_SECONDS / fastest)))


def _ask(worker: subprocess.Popen[str], question: int | str) -> Any:
    if worker.stdin is None:
        raise RuntimeError("the worker has no standard input")
    print(question, file=worker.stdin, flush=True)
    return json.loads(_answer(worker))


def _answer(worker: subprocess.Popen[str]) -> str:
    if worker.stdout is None:
        raise RuntimeError("the worker has no standard output")
    return worker.stdout.readline().strip()
