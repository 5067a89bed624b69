"""Reads samples, runs them and writes their records, part by part."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from pathlib import Path

from probegen.bulk.inference import Inference
from probegen.bulk.inputs import Input
from probegen.bulk.inputs.base import Samples
from probegen.bulk.records import Records, joined
from probegen.bulk.stores import Layout, Store
from probegen.errors import InputError
from probegen.runtime.read import Say, images
from probegen.runtime.read.ranges import doubts
from probegen.runtime.read.spelling import Spell
from probegen.stages import stage

#: Called with how many records are there, how many there will be, and how many that were made just
#: now hold an error.
Progress = Callable[[int, int, int], None]


class Worker:
    """Writes parts of a run."""

    def __init__(
        self,
        inference: Inference,
        source: Input,
        store: Store,
        layout: Layout,
        batch_size: int,
        stops: bool,
        say: Say,
        spell: Spell,
    ) -> None:
        self._inference = inference
        self._source, self._store, self._layout = source, store, layout
        self._batch_size, self._stops = batch_size, stops
        self._say, self._spell = say, spell
        self._looked = False
        self._done = self._failed = 0

    def write_missing(self, progress: Progress) -> int:
        """Writes all parts that are not there; returns how many records were."""
        done = self._store.done()
        ranges = [self._layout.range_of(part) for part in done]
        self._done = before = sum(stop - start for start, stop in ranges)
        progress(self._done, self._layout.rows, 0)
        for part in range(self._layout.parts):
            if part not in done:
                self.write(part, progress)
        return before

    def write(self, part: int, progress: Progress) -> tuple[int, int]:
        """Writes a part; returns how many records it has, and how many hold an error."""
        failed = self._failed
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            self._store.write(part, self._records(part, reader, progress))
        start, stop = self._layout.range_of(part)
        return stop - start, self._failed - failed

    def _records(
        self, part: int, reader: concurrent.futures.Executor, progress: Progress
    ) -> Iterator[Records]:
        """Gives the records of a part, `Layout.rows_at_once` at a time."""
        first, end = self._layout.range_of(part)
        starts = range(first, end, self._batch_size)
        held: list[Records] = []
        ahead = reader.submit(self._read, first, end)
        for start in starts:
            samples = ahead.result()
            if start + self._batch_size < end:  # read while the engine runs
                ahead = reader.submit(self._read, start + self._batch_size, end)
            held.append(self._run(start, end, samples))
            self._done += len(held[-1].samples)
            self._failed += sum(why is not None for why in held[-1].errors)
            if held[-1].stop - held[0].start >= self._layout.rows_at_once:
                yield joined(held)
                held = []
            progress(self._done, self._layout.rows, self._failed)
        if held:
            yield joined(held)

    def _read(self, start: int, end: int) -> Samples:
        with stage("the input cannot be read", InputError):
            return self._source.read(start, min(start + self._batch_size, end))

    def _run(self, start: int, end: int, samples: Samples) -> Records:
        names = self._source.names(start, min(start + self._batch_size, end))
        samples = self._inference.scaled(samples)
        if samples.blocks and not self._looked:
            self._looked = True
            pixels = Path(names[0]).suffix.lower() in images.SUFFIXES
            for line in doubts(
                samples.blocks[0].feed, self._inference.manifest, pixels, self._spell
            ):
                self._say(line)
        found = self._inference.records(start, names, samples)
        if self._stops:
            for name, why in zip(names, found.errors, strict=True):
                if why is not None:
                    raise InputError(f"sample {name}: {why}")
        return found
