"""Runs cases in a process of their own: one that dies or hangs takes no other with it."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator

from fuzz.outcome import HANGS, Outcome

#: After so many cases the process is replaced, or when it holds so many kB: TensorFlow keeps much
#: of what it traced.
_CASES_A_PROCESS = 1000
_MOST_MEMORY = 3_000_000
#: After so many cases objects are looked for that hold each other; what is there after the first
#: one, all modules among it, is not looked at.
_CASES_A_COLLECTION = 20
#: Suites of models, whose cases leave the search for such objects to the pool alone: what is made
#: of TensorFlow's graphs would be gone through again and again, for a tenth of the processor time.
_COLLECTED_HERE = frozenset({"keras", "onnx"})
#: Longer than this no case takes that does what it should.
_SECONDS_A_CASE = 400.0


def outcomes(
    suite: str, seed: int, minutes: float, first: int = 0, cut_down: bool = True
) -> Iterator[Outcome]:
    """Yields the outcomes of a suite's cases from one on, until the time is over.

    Args:
        suite: its name.
        seed: what all is drawn from.
        minutes: how long.
        first: the number of the first case.
        cut_down: look for the smallest model that shows a fault, the first time that it is met.
    """
    end = time.monotonic() + 60 * minutes
    at = first
    while time.monotonic() < end:
        count = 0
        for outcome in _of_one_process(suite, seed, at, end, cut_down):
            yield outcome
            count += 1
        at += max(count, 1)


def _of_one_process(
    suite: str, seed: int, first: int, end: float, cut_down: bool
) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "fuzz", "worker", suite, str(seed), str(first)]
    count = _CASES_A_PROCESS
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    with (
        subprocess.Popen(
            [*command, str(count), *([] if cut_down else ["--whole"])],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # a line that was read ahead would not be seen to wait
            env=quiet,
        ) as process,
        selectors.DefaultSelector() as waiting,
    ):
        if process.stdout is None:
            raise OSError("a worker without an output")
        waiting.register(process.stdout, selectors.EVENT_READ)
        done = 0
        try:
            while done < count and time.monotonic() < end:
                if not waiting.select(_SECONDS_A_CASE):
                    yield Outcome(f"{seed}:{first + done}", HANGS, "took too long")
                    return
                line = process.stdout.readline()
                if not line and process.wait() == 0:
                    return  # it had become too large
                if not line:
                    yield Outcome(f"{seed}:{first + done}", HANGS, "its process died")
                    return
                yield Outcome(**json.loads(line))
                done += 1
        finally:
            process.kill()


def work(suite: str, seed: int, first: int, count: int, whole: bool = False) -> None:
    """Tries cases in this process, and writes each outcome as a line of JSON."""
    from fuzz.suites import attempt  # TensorFlow comes with it

    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print
    known: set[str] = set()
    for done, number in enumerate(range(first, first + count), start=1):
        outcome = attempt(suite, f"{seed}:{number}", None if whole else known)
        if outcome.is_finding:
            known.add(outcome.kind)
        out.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        out.flush()
        if done == 1:
            gc.freeze()
            if suite in _COLLECTED_HERE:
                gc.disable()
        if done % _CASES_A_COLLECTION == 0:
            gc.collect()
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MOST_MEMORY:
                return
