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

from probegen import runtime
from probegen.artefact import answers
from probegen.runtime.loaded import Feeds
from probegen.runtime.verification import feeds_of

#: Milliseconds that one figure of a round takes at least.
_ENOUGH = 300


def time_artefact(
    path: str, device: str | None, batches: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Times an artefact's runs with explanations off and on, and prints a row a batch size.

    Args:
        path: an artefact that keeps answers: what it was asked then it is asked here.
        device: see `probegen.runtime.load`.
        batches: numbers of samples.
        rounds: how often both take their turn; figures are medians over the rounds.
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
    asked = {on: dataclasses.replace(feeds, explain=on) for on in (False, True)}
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for on, milliseconds in taken.items():
            milliseconds.append(_milliseconds(partial(artefact.compute, asked[on])))
    ratios = [e / p for p, e in zip(taken[False], taken[True], strict=True)]
    plain, explained = statistics.median(taken[False]), statistics.median(taken[True])
    figures = {"plain": plain, "explained": explained, "ratio": explained / plain}
    return {**figures, "least": min(ratios), "most": max(ratios)}


def _of_batch(array: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    return array[np.arange(batch) % len(array)] if array.ndim else array


def _milliseconds(run: Callable[[], Any]) -> float:
    """Returns the median time of one run, after one that does not count."""
    run()
    taken: list[float] = []
    while sum(taken) < _ENOUGH or len(taken) < 3:
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)
