"""Parquet files, a sample a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.rows import batch_axis
from probegen.bulk.extras import pyarrow_parquet
from probegen.bulk.inputs.base import Block, Context, OneFile, Samples
from probegen.bulk.inputs.columns import columns_of, rows_of
from probegen.errors import InputError
from probegen.runtime.inputs import Array

#: Bytes of a file that are read ahead; else pyarrow reads whole columns of a group of rows.
_BUFFER = 2**20


class ParquetRows(OneFile):
    """The rows of a Parquet file, read forward; reading back starts at the first again."""

    def __init__(self, path: Path, context: Context) -> None:
        """Opens a file.

        Raises:
            InputError: it is damaged, has no rows, or its columns do not fit the inputs.
        """
        super().__init__(path, context)
        self._file = self._opened()
        self._columns = columns_of(self._file.schema_arrow, context, path)
        self.rows = int(self._file.metadata.num_rows)
        if not self.rows:
            raise InputError(f"{path} holds no samples.")
        aside = [s.name for s in context.specs if batch_axis(s.axes) is None]
        if aside:
            raise InputError(
                f"the input {aside[0]!r} has no samples, so that no row of {path} can hold one of "
                "it. Pass an .npz file."
            )
        self._batches: Iterator[Any] | None = None
        self._kept: Any = None
        self._next = 0

    def _opened(self) -> Any:
        try:
            return pyarrow_parquet().ParquetFile(
                self._path,
                buffer_size=_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,  # of pages that have one
            )
        except Exception as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self._path} is no Parquet file that can be read: {error}"
            ) from error

    def read(self, start: int, stop: int) -> Samples:
        """Reads some rows; see `Input.read`."""
        table = self._taken(start, stop)
        specs = self._context.specs
        found = {
            spec.name: rows_of([table.column(c) for c in self._columns[spec.name]], spec)
            for spec in specs
        }
        errors: dict[int, str] = {}
        alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for row in range(stop - start):
            values = [found[spec.name][row] for spec in specs]
            wrong = next((value for value in values if isinstance(value, str)), None)
            if wrong is not None:
                errors[row] = f"row {start + row} of {self._path}: {wrong}"
            else:
                shapes = tuple(np.asarray(value).shape for value in values)
                alike.setdefault(shapes, []).append(row)
        blocks = []
        for rows in alike.values():
            feed: dict[str, Array] = {}
            for spec in specs:
                stacked = np.stack([np.asarray(found[spec.name][row]) for row in rows])
                feed[spec.name] = np.moveaxis(stacked, 0, batch_axis(spec.axes) or 0)
            blocks.append(Block(rows, feed))
        return Samples(blocks, errors)

    def _taken(self, start: int, stop: int) -> Any:
        """Returns the rows from `start` to `stop` as a table."""
        import pyarrow as pa

        columns = list(dict.fromkeys(c for own in self._columns.values() for c in own))
        if self._batches is None or start < self._next:
            self._file.close()
            self._file = self._opened()
            first, groups = self._group_of(start)
            self._batches = self._file.iter_batches(
                max(stop - start, 1), groups, columns, use_threads=False
            )
            self._next, self._kept = first, None
        parts = []
        while self._next < stop:
            try:
                batch = self._kept if self._kept is not None else next(self._batches)
            except Exception as error:
                raise InputError(f"{self._path} is damaged: {error}") from error
            skipped = batch.slice(max(start - self._next, 0))
            wanted = skipped.slice(0, stop - max(start, self._next))
            used = batch.num_rows - skipped.num_rows + wanted.num_rows
            self._kept = batch.slice(used) if used < batch.num_rows else None
            self._next += used
            if wanted.num_rows:
                parts.append(wanted)
        return pa.Table.from_batches(parts)

    def _group_of(self, row: int) -> tuple[int, list[int]]:
        """Returns the first row of the group that holds a row, and that group and all after it."""
        first = 0
        meta = self._file.metadata
        for group in range(meta.num_row_groups):
            size = meta.row_group(group).num_rows
            if row < first + size:
                return first, list(range(group, meta.num_row_groups))
            first += size
        return first, []
