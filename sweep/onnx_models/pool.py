"""Runs each case in child processes with a time limit, so that none takes another with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sweep.onnx_models.case import ABOUT, OWN, Case
from sweep.onnx_models.child import CHECK, WRITE
from sweep.onnx_models.outcome import FAILS, NOT_APPLICABLE, Outcome


def write_all(cases: Sequence[Case], place: Path, home: str, jobs: int) -> Iterator[Outcome]:
    """Writes the files of one environment that are not there yet; yields those that cannot be."""
    wanted = [c for c in cases if c.home == home]
    with ThreadPoolExecutor(jobs) as pool:
        yield from (o for o in pool.map(lambda c: _written(c, place), wanted) if o is not None)


def sweep_all(cases: Sequence[Case], place: Path, jobs: int) -> Iterator[Outcome]:
    """Yields the outcome of each case in their order; writes what is missing first."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda c: _sweep(c, place), cases)


def _sweep(case: Case, place: Path) -> Outcome:
    folder = place / case.folder
    told = folder / _REFUSAL
    if told.exists() and not (folder / ABOUT).exists():
        return Outcome(**json.loads(told.read_text()))
    if case.home == OWN:
        unwritten = _written(case, place)
        if unwritten is not None:
            return unwritten
    elif not (folder / ABOUT).exists():
        return Outcome(case.name, NOT_APPLICABLE, f"not written yet: needs the {case.home} extra")
    found = _child(CHECK, case, folder)
    return found or Outcome(case.name, FAILS, "its process gave no answer")


_REFUSAL = "unwritten.json"


def _written(case: Case, place: Path) -> Outcome | None:
    """Writes a case where that was not done; returns why it cannot be, None where it could."""
    folder = place / case.folder
    if (folder / ABOUT).exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = _child(WRITE, case, folder)
    if found is not None:
        (folder / _REFUSAL).write_text(json.dumps(vars(found)))
    return found


def _child(stage: str, case: Case, folder: Path) -> Outcome | None:
    with tempfile.TemporaryDirectory() as aside:
        answer = Path(aside) / "outcome.json"
        command = [sys.executable, "-m", "sweep.onnx_models.child"]
        command += [stage, case.name, str(folder), str(answer)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            subprocess.run(command, env=environment, timeout=case.limit, check=False)
        except subprocess.TimeoutExpired:
            verdict = NOT_APPLICABLE if stage == WRITE else FAILS
            return Outcome(case.name, verdict, f"{stage}: given up after {case.limit} seconds")
        if not answer.exists():
            verdict = NOT_APPLICABLE if stage == WRITE else FAILS
            return Outcome(case.name, verdict, f"{stage}: its process died")
        told = json.loads(answer.read_text())
    return None if told is None else Outcome(**told)
