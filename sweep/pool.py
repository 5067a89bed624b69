"""Sweeps rows in processes of their own, so that one that dies takes no other with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from sweep.outcome import FAILS, Outcome
from sweep.suites import sweep_one

#: After so many rows the processes are replaced: TensorFlow keeps every graph it traced.
_ROWS_A_PROCESS = 60


def sweep_all(suite: str, rows: Sequence[str], large: bool, jobs: int) -> Iterator[Outcome]:
    """Yields the outcome of each row, in their order."""
    done = 0
    while done < len(rows):
        batch = rows[done : done + _ROWS_A_PROCESS * jobs]
        with _pool(jobs) as pool:
            futures = [pool.submit(sweep_one, suite, row, large) for row in batch]
            try:
                for future in futures:
                    yield future.result()
                    done += 1
                continue
            except BrokenProcessPool:
                pass  # one of the rows under way did it: the next is tried by itself
        yield _alone(suite, rows[done], large)
        done += 1


def _alone(suite: str, row: str, large: bool) -> Outcome:
    with _pool(1) as pool:
        try:
            return pool.submit(sweep_one, suite, row, large).result()
        except BrokenProcessPool:
            return Outcome(row, FAILS, "its process died")


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_silence)


def _silence() -> None:
    """Keeps what TensorFlow and Keras tell of themselves off the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
