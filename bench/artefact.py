"""One artefact with explanations on and off, wherever it lies: no model, no Keras."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from bench.race import Timing, ratio
from bench.worker import timed
from probegen import runtime
from probegen.artefact import answers
from probegen.runtime.feeds import Feeds
from probegen.runtime.verification import feeds_of

#: Seconds that one figure of a round takes at least.
_ENOUGH = 0.3


def time_artefact(
    path: str, device: str | None, batches: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Times an artefact's runs with explanations off and on, and prints a row a batch size.

    Args:
        path: an artefact that keeps answers: what it was asked then it is asked here.
        device: see `probegen.runtime.load`.
        batches: numbers of samples.
        rounds: how often both take their turn; figures are medians over the rounds.

    Raises:
        ValueError: it keeps no answers.
    """
    artefact = runtime.load(path, device=device)
    kept = answers.answers_of(Path(path))
    if kept is None or not kept.requests:
        raise ValueError(f"{path} keeps no answers, so what it can be asked is not known.")
    asked = feeds_of(kept.requests[0])
    console, rows = Console(), []
    console.print(f"{Path(path).name} in {artefact.engine.name}")
    for batch in batches:
        feeds = Feeds(
            {name: _of_batch(array, batch) for name, array in asked.inputs.items()},
            {name: _of_batch(array, batch) for name, array in asked.asked.items()},
            explain=True,
        )
        figures = _timed(artefact, feeds, rounds)
        console.print(
            "batch {batch}: plain {plain:.2f} ms, explained {explained:.2f} ms, {ratio:.2f} times "
            "({least:.2f} to {most:.2f})".format(batch=batch, **figures)
        )
        rows.append({"path": path, "engine": artefact.engine.name, "batch": batch, **figures})
    return rows


def _timed(artefact: runtime.Artefact, feeds: Feeds, rounds: int) -> dict[str, float]:
    """Returns the milliseconds of both, their ratio, and its range over the rounds."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for explain, seconds in taken.items():
            asked = dataclasses.replace(feeds, explain=explain)
            seconds.append(_median_run(partial(artefact.compute, asked)))
    plain, explained = (Timing(tuple(seconds), 0, 0) for seconds in taken.values())
    over = ratio(explained, plain)
    figures = {"plain": plain.median * 1e3, "explained": explained.median * 1e3}
    return {**figures, "ratio": over.middle, "least": over.low, "most": over.high}


def _of_batch(array: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    return array[np.arange(batch) % len(array)] if array.ndim else array


def _median_run(run: Callable[[], Any]) -> float:
    """Returns the median seconds of one run, after one that does not count."""
    run()
    taken: list[float] = []
    while sum(taken) < _ENOUGH or len(taken) < 3:
        taken.append(timed(run, time.perf_counter))
    return statistics.median(taken)
