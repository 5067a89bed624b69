"""Puts requests that arrive together into one run.

Requests wait in a bounded queue, sorted by what a batch must have in common: whether it is
explained, and the sizes of a sample. So a prediction never waits for another's explanation to be
computed with it, and no request can make another one fail: where a run fails, each of its requests
is run by itself.

While a run goes on, others gather. A batch leaves the queue when it is full, or when its oldest
request has waited `max_delay`; with a delay of 0 requests wait only for the run before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from probegen.errors import ProbegenError
from probegen.runtime.inputs import Array
from probegen.serve.inference import Job, Served, batch_key, can_be_merged, divided, merged

Arrays = Mapping[str, Array]


class QueueFullError(ProbegenError):
    """No more requests can wait. The sender may come back in a while."""


class StoppingError(ProbegenError):
    """The server is about to stop, and takes no more requests."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How requests are put together.

    Attributes:
        max_batch: the most samples in a batch; a request that has more of them runs alone.
        max_delay: seconds that the oldest request of a batch waits for others to join it.
        queue_size: the most requests that wait.
        runs: how many batches run at a time.
    """

    max_batch: int = 16
    max_delay: float = 0.0
    queue_size: int = 256
    runs: int = 1


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of a job.

    Attributes:
        arrays: its outputs by name.
        waited: seconds in the queue.
        ran: seconds of the run.
        batch: samples in its batch.
    """

    arrays: Arrays
    waited: float
    ran: float
    batch: int


@dataclasses.dataclass(eq=False)
class _Waiting:
    job: Job
    future: asyncio.Future[Done]
    since: float


class Batcher:
    """The queue of one model, and what runs its batches.

    `start` and `stop` it in the event loop that `submit` is called in.
    """

    def __init__(
        self,
        served: Served,
        limits: Limits,
        on_batch: Callable[[Sequence[Job], float], None] | None = None,
    ) -> None:
        """Takes a model, and what is told of each batch: its jobs, and the seconds that it ran."""
        self._served = served
        self._limits = limits
        self._on_batch = on_batch
        self._merges = can_be_merged(served.artefact)
        self._waiting: dict[Hashable, list[_Waiting]] = defaultdict(list)
        self._changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(limits.runs, "probegen-run")
        self._workers: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._waiting.values()))

    def start(self) -> None:
        """Starts to run batches."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._limits.runs)]

    async def stop(self) -> None:
        """Takes no more requests, and returns when all that wait are answered."""
        self._stopping = True
        self._changed.set()
        await asyncio.gather(*self._workers)
        self._pool.shutdown()

    async def submit(self, job: Job) -> Done:
        """Returns what a job gave, after its batch has run.

        Raises:
            QueueFullError: too many wait.
            StoppingError: the server is about to stop.
            ProbegenError: the artefact could not be run.
        """
        if self._stopping:
            raise StoppingError("the server is about to stop and takes no more requests.")
        if self.waiting >= self._limits.queue_size:
            raise QueueFullError(
                f"{self._limits.queue_size} requests wait already, which is the most; try again "
                "in a moment."
            )
        waiting = _Waiting(job, asyncio.get_running_loop().create_future(), time.monotonic())
        key = batch_key(self._served, job) if self._merges else object()
        self._waiting[key].append(waiting)
        self._changed.set()
        try:
            return await waiting.future
        except asyncio.CancelledError:  # the client has gone: nobody waits for it any more
            with contextlib.suppress(KeyError, ValueError):
                self._waiting[key].remove(waiting)
            raise

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while (batch := await self._next()) is not None:
            started = time.monotonic()
            jobs = [waiting.job for waiting in batch]
            results = await loop.run_in_executor(self._pool, self._run, jobs)
            ran = time.monotonic() - started
            rows = sum(job.rows for job in jobs)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.future.done():
                    continue
                if isinstance(result, BaseException):
                    waiting.future.set_exception(result)
                else:
                    waiting.future.set_result(Done(result, started - waiting.since, ran, rows))
            if self._on_batch is not None:
                self._on_batch(jobs, ran)

    async def _next(self) -> list[_Waiting] | None:
        """Returns the next batch as soon as there is one; None where none will come any more."""
        while True:
            self._changed.clear()
            now = time.monotonic()
            queues = [(key, queue) for key, queue in self._waiting.items() if queue]
            if not queues and self._stopping:
                self._changed.set()  # the other workers are to see it as well
                return None
            full = [q for q in queues if self._rows(q[1]) >= self._limits.max_batch]
            key, queue = min(full or queues, key=lambda q: q[1][0].since, default=(None, []))
            if not queue:
                await self._changed.wait()
                continue
            left = queue[0].since + self._limits.max_delay - now
            if full or left <= 0 or self._stopping or not self._merges:
                return self._take(key, queue)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _take(self, key: Hashable, queue: list[_Waiting]) -> list[_Waiting]:
        """Takes a batch from the front of a queue."""
        batch = [queue.pop(0)]
        rows = batch[0].job.rows
        while queue and rows + queue[0].job.rows <= self._limits.max_batch:
            batch.append(queue.pop(0))
            rows += batch[-1].job.rows
        if not queue:
            del self._waiting[key]
        return batch

    def _run(self, jobs: Sequence[Job]) -> list[Arrays | BaseException]:
        """Runs a batch; returns what each of its jobs gave."""
        if len(jobs) > 1:
            with contextlib.suppress(Exception):  # whichever is wrong is told below, to one alone
                return list(self._together(jobs))
        return [self._alone(job) for job in jobs]

    def _together(self, jobs: Sequence[Job]) -> Sequence[Arrays]:
        outputs = list(dict.fromkeys(name for job in jobs for name in job.outputs))
        arrays = self._served.artefact.compute(merged(self._served, jobs), outputs)
        return divided(self._served, jobs, arrays)

    def _alone(self, job: Job) -> Arrays | BaseException:
        try:
            return self._served.artefact.compute(job.feeds, job.outputs)
        except Exception as error:  # told to whoever sent the job
            return error

    @staticmethod
    def _rows(queue: Sequence[_Waiting]) -> int:
        return sum(waiting.job.rows for waiting in queue)
