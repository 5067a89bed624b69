"""A bulk run on many machines: Ray Data hands the missing parts to a pool of actors.

Each actor opens the artefact once and writes the parts that it is given, as a run on one machine
does: the same samples at a time, the same records, whole or not at all. So nothing but numbers of
parts goes through Ray. What an actor was at when its machine was lost, another one does again; and
a run that was stopped altogether goes on where it was, with Ray or without.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probegen import errors
from probegen.bulk import extras
from probegen.bulk.inference import Asked, Inference
from probegen.bulk.inputs import Context, open_input
from probegen.bulk.inputs.base import identity
from probegen.bulk.journal import digest_of
from probegen.bulk.stores import Layout, Store, format_of
from probegen.bulk.worker import Progress, Worker
from probegen.errors import ArtefactError, InputError, ProbegenError
from probegen.runtime import load
from probegen.runtime.read import Say
from probegen.runtime.read.spelling import Spell
from probegen.stages import cause, stage

#: Parts that an actor has been handed at most: at the end of a run few wait for one another.
_HANDED = 2


@dataclasses.dataclass(frozen=True)
class Task:
    """What actors need to know; plain values, which any process reads.

    Attributes:
        artefact: path of the artefact.
        digest: of its contents, as the journal has it.
        engine: what runs it, as the journal has it.
        product: the engine's program.
        source: path of the input.
        identity: of the input's files, as the journal has it.
        place: path of the records.
        asked: what is asked of each sample.
        layout: how records are divided.
        batch_size: samples that run at a time.
        dtype, header, time_column: see `job.run`.
        stops: whether a damaged sample ends the run.
        spell: how messages name options.
        threads: of an actor.
    """

    artefact: str
    digest: str
    engine: str
    product: str
    source: str
    identity: str
    place: str
    asked: Asked
    layout: Layout
    batch_size: int
    dtype: str | None
    header: bool | None
    time_column: str | None
    stops: bool
    spell: Spell
    threads: int


def check(address: str, threads: int) -> None:
    """Refuses what no run on Ray can be made with, before anything is written.

    Args:
        address: of the cluster.
        threads: of each worker.

    Raises:
        InputError: Ray is not installed; or the address is one of Ray's client, or threads are
            none.
    """
    extras.ray_data()
    if threads < 1:
        raise InputError(f"ray_threads is {threads}; it must be 1 or more.")
    if "://" in address:
        raise InputError(
            f"{address!r} is an address of Ray's client, which Ray Data is not made for: run the "
            "command on a machine of the cluster with 'auto', or pass host:6379."
        )


def write_missing(task: Task, store: Store, address: str, progress: Progress, say: Say) -> int:
    """Writes all parts that are not there, on a cluster; returns how many records were.

    Args:
        task: what actors are told.
        store: of the records.
        address: of the cluster; see `job.run`.
        progress: called after each part.
        say: called with what the user should know, once each.

    Raises:
        InputError: Ray is not installed, no cluster answers, or a machine of it does not see
            artefact, input or place; else as `job.run`.
        ArtefactError: the cluster failed.
    """
    layout = task.layout
    done = store.done()
    before = sum(stop - start for start, stop in map(layout.range_of, done))
    missing = [part for part in range(layout.parts) if part not in done]
    progress(before, layout.rows, 0)
    if not missing:
        return before
    told: set[str] = set()
    rows, failed = before, 0
    failure = stage(f"the Ray cluster at {address!r} failed", ArtefactError)
    with _cluster(address) as (ray, data), failure:
        for result in _results(ray, data, task, missing):
            if result["error"]:
                raise getattr(errors, result["kind"])(result["error"])
            for line in result["said"].splitlines():
                if line not in told:
                    told.add(line)
                    say(line)
            rows, failed = rows + int(result["rows"]), failed + int(result["failed"])
            progress(rows, layout.rows, failed)
    left = len(set(range(layout.parts)) - store.done())
    if left:
        raise ArtefactError(
            f"{left} of {layout.parts} parts are not at {task.place!r}, though workers wrote them: "
            "it has to lie on a file system that all machines of the cluster share."
        )
    return before


def _results(ray: Any, data: Any, task: Task, missing: list[int]) -> Iterator[dict[str, Any]]:
    """Yields what actors say of each part."""
    cpus = ray.cluster_resources().get("CPU", 0)
    workers = int(cpus // task.threads)
    if not workers:
        raise InputError(
            f"the cluster has {cpus:g} CPUs, and a worker takes {task.threads}: take fewer with "
            "ray_threads= (--ray-threads)."
        )
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    pool = data.ActorPoolStrategy(
        min_size=1, max_size=min(workers, len(missing)), max_tasks_in_flight_per_actor=_HANDED
    )
    parts = data.from_items([{"part": part} for part in missing], override_num_blocks=len(missing))
    written = parts.map_batches(
        PartWriter,
        fn_constructor_args=(task,),
        compute=pool,
        batch_size=None,
        batch_format="numpy",
        num_cpus=task.threads,
    )
    yield from written.iter_rows()


class PartWriter:
    """An actor: an artefact that is open, and what writes parts of a run with it.

    What goes wrong is returned, not raised: Ray would try it again, and its errors hold ours within
    the tracebacks of other processes.
    """

    def __init__(self, task: Task) -> None:
        """Opens artefact, input and place."""
        self._said: list[str] = []
        self._worker: Worker | None = None
        self._failed: Exception | None = None
        try:
            self._worker = _opened(task, self._said.append)
        except Exception as error:
            self._failed = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes parts.

        Args:
            batch: their numbers, as `part`.

        Returns:
            For each the number of records in `rows` and `failed`; what is to be said, a line
            each, in `said`; and what went wrong in `kind`, a class of ours, and `error`.
        """
        results = [self._written(int(part)) for part in batch["part"]]
        return {name: [result[name] for result in results] for name in results[0]}

    def _written(self, part: int) -> dict[str, Any]:
        rows, failed, wrong = 0, 0, self._failed
        if self._worker is not None:
            try:
                rows, failed = self._worker.write(part, _quiet)
            except Exception as error:
                wrong = error
        kind = type(wrong).__name__ if isinstance(wrong, ProbegenError) else "ArtefactError"
        text = "" if wrong is None else _text(wrong)
        said, self._said[:] = "\n".join(self._said), []
        return {"rows": rows, "failed": failed, "said": said, "kind": kind, "error": text}


def _opened(task: Task, say: Say) -> Worker:
    """Opens on a machine of the cluster what a run needs.

    Raises:
        InputError: artefact, input or place are not those of the run there.
    """
    for what, path in (("artefact", task.artefact), ("input", task.source), ("place", task.place)):
        if not os.path.exists(path):
            raise _elsewhere(f"has no {path!r}, the {what} of the run")
    if digest_of(Path(task.artefact)) != task.digest:
        raise _elsewhere(f"has another artefact at {task.artefact!r}")
    if os.path.isdir(task.artefact):
        artefact = load(task.artefact)
    else:
        artefact = load(task.artefact, engine=task.product.lower(), threads=task.threads)
    if artefact.engine.name != task.engine:
        raise _elsewhere(f"runs it with {artefact.engine.name}, not with {task.engine}")
    manifest = artefact.manifest
    context = Context(manifest, task.dtype, task.header, say, task.spell, task.time_column)
    source = open_input(Path(task.source), context)
    if identity(source) != task.identity:
        raise _elsewhere(f"has another input at {task.source!r}: files, sizes or times differ")
    store = format_of(Path(task.place))(Path(task.place), task.layout)
    inference = Inference(artefact, task.asked)
    args = (inference, source, store, task.layout, task.batch_size, task.stops, say, task.spell)
    return Worker(*args)


def _elsewhere(what: str) -> InputError:
    import socket

    return InputError(
        f"a machine of the cluster ({socket.gethostname()}) {what}: artefact, input and records of "
        "a run on Ray lie on a file system that all machines share, under the same paths."
    )


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Any, Any]]:
    """Gives `ray` and `ray.data`, connected; one that was connected before is left so.

    Raises:
        InputError: no cluster answers.
    """
    ray, data = extras.ray_data()
    if ray.is_initialized():
        yield ray, data
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise InputError(
            f"no Ray cluster can be used at {address!r}: {cause(error)} Pass the address of one "
            "(host:6379), 'auto' on a machine of it, or 'local' for this machine alone."
        ) from error
    try:
        yield ray, data
    finally:
        ray.shutdown()


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, ProbegenError) else cause(error)


def _quiet(*_: int) -> None:
    return None
