"""Runs cases in places, each in a process of its own, and judges what comes out."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runs_where.case import Case, Request
from runs_where.exchange import arrays, tensors
from runs_where.places import LIMIT, ROOT, Place, Step

#: Seconds that a worker may take.
_LIMIT = 300


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of an artefact in a place.

    Attributes:
        distance: how far its numbers are at most from the untouched model's and from those of the
            default runtime, as a share of an output's largest; None where nothing ran.
        words: why it was refused, or which output differs and by how much; empty if neither.
        versions: what ran.
    """

    distance: float | None
    words: str
    versions: str

    @property
    def equal(self) -> bool:
        """True where every number agrees."""
        return self.distance is not None and not self.words

    def __str__(self) -> str:
        if self.distance is None:
            return f"refused: {self.words}"
        return f"differs: {self.words}" if self.words else f"{self.distance:.0e}"


def run(case: Case, place: Place) -> Outcome:
    """Runs an artefact's requests in a place and compares."""
    said: list[str] = []
    answer: dict[str, Any] = {}
    for step in place.steps:
        answer = _work(step, case)
        said += [answer["versions"]] if answer["versions"] else []
        if "refused" in answer:
            break
    return judge(case, answer, ", ".join(said))


def judge(case: Case, answer: Mapping[str, Any], versions: str) -> Outcome:
    """Compares what a worker answered with what is right."""
    if "refused" in answer:
        return Outcome(None, _short(answer["refused"]), versions)
    distance, words = 0.0, ""
    for request, given in zip(case.requests, answer["answers"], strict=True):
        off, fault = compare(request, arrays(given))
        distance = max(distance, off)
        words = words or fault
    return Outcome(distance, words, versions)


def compare(request: Request, got: dict[str, npt.NDArray[Any]]) -> tuple[float, str]:
    """Returns how far off the outputs of a request are, and what is wrong, if anything is."""
    largest = 0.0
    for name, expected in request.expected.items():
        if name not in got:
            return np.inf, f"{name} does not come out"
        array = got[name]
        if expected is None:
            if array.size:
                return np.inf, f"{name} comes out with the gate off"
            continue
        for right in expected:
            if array.shape != right.shape:
                return np.inf, f"{name} has the shape {array.shape}, not {right.shape}"
            scale = max(float(np.abs(right).max()), 1e-30)
            off = float(np.abs(array.astype(np.float64) - right).max()) / scale
            off = np.inf if np.isnan(off) else off
            if off > LIMIT:
                return off, f"{name} is off by {off:.1e} of its largest number"
            largest = max(largest, off)
    return largest, ""


def job_of(step: Step, case: Case) -> dict[str, Any]:
    """Returns what a worker is asked; see `runs_where.exchange`."""
    return {
        "options": dict(step.options),
        "requests": [{"model": str(r.model), "feeds": tensors(r.feeds)} for r in case.requests],
    }


def _work(step: Step, case: Case) -> dict[str, Any]:
    """Returns the answer of a worker; one that ends without an answer has refused."""
    job = job_of(step, case)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "job.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(job))
        searched = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": searched, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                [*step.command, str(asked), str(answered)],
                cwd=ROOT,
                env=env,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"versions": "", "refused": f"did not run: {error}"}
        if answered.is_file():
            answer: dict[str, Any] = json.loads(answered.read_text())
            return answer
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        if done.returncode < 0:
            last = f"crashes: {signal.Signals(-done.returncode).name}"
        return {"versions": "", "refused": last}


def _short(words: str) -> str:
    """Returns the words of a refusal on one line, without paths, of bearable length."""
    line = " ".join(words.split())
    line = line.replace(str(ROOT), "")
    return line if len(line) <= 300 else line[:297] + "..."
