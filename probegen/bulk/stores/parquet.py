"""Parquet: a folder with a file for each part, which every reader of Parquet takes as one table.

An output is a column of lists, one flat list in row-major order for each sample; an output of one
number a sample is a column of numbers. The metadata of its field tell its shape, axes, kind, title
and unit, as JSON under `probegen`. Where sizes are open, a column `<output>/shape` tells those of
each sample. A file whose name starts with `_` is passed over by such readers: it is our journal.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from probegen.artefact.manifest import OutputSpec
from probegen.artefact.work_folder import sweep
from probegen.bulk.extras import pyarrow_parquet
from probegen.bulk.records import Records, described, sample_shape
from probegen.bulk.stores.base import Layout, Store
from probegen.errors import InputError
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import Array

JOURNAL = "_probegen.json"
_PART = re.compile(r"part-(\d{6,})\.parquet")
_KEY = b"probegen"


class ParquetStore(Store):
    """A folder of Parquet files."""

    @classmethod
    def check(cls, layout: Layout) -> None:
        """Refuses two columns of one name, and where pyarrow is not installed."""
        pyarrow_parquet()
        names = _schema(layout).names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"two columns would be called {twice[0]!r}: name the outputs that are to be "
                "written (--output)."
            )

    @staticmethod
    def journal(place: Path) -> dict[str, Any] | None:
        """Returns the journal of a folder; see `Store.journal`."""
        try:
            found = json.loads((place / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def __init__(self, place: Path, layout: Layout) -> None:
        self._place, self._layout = place, layout
        self._parquet = pyarrow_parquet()
        self._schema = _schema(layout)

    def clear(self) -> None:
        """Removes all parts."""
        for path in self._parts().values():
            path.unlink()

    def begin(self, journal: dict[str, Any]) -> None:
        """Writes the journal."""
        self._write(self._place / JOURNAL, lambda file: file.write(_json(journal).encode()))

    finish = begin

    def resume(self) -> None:
        """Removes files that were not finished."""
        sweep(self._place)

    def done(self) -> set[int]:
        """Returns the parts that are there and have all their rows."""
        return {part for part, path in self._parts().items() if self._whole(part, path)}

    def write(self, part: int, records: Iterable[Records]) -> None:
        """Writes a file, one group of rows after the other."""

        def fill(file: IO[bytes]) -> None:
            with self._parquet.ParquetWriter(
                file, self._schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for some in records:
                    writer.write_batch(self._batch(some))

        self._write(self._place / f"part-{part:06}.parquet", fill)

    def read(self, names: Sequence[str] | None = None) -> Iterator[Records]:
        """Gives the records of one group of rows after the other; see `Store.read`."""
        layout = self._layout
        wanted = [s for s in layout.outputs if names is None or s.name in names]
        columns = [layout.sample, layout.error]
        columns += [layout.target] if layout.target else []
        columns += [c for s in wanted for c in _columns_of(s)]
        for part, path in sorted(self._parts().items()):
            start = layout.range_of(part)[0]
            with self._parquet.ParquetFile(path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns)
                    yield self._records(table, start, wanted)
                    start += table.num_rows

    def _records(self, table: Any, start: int, wanted: Sequence[OutputSpec]) -> Records:
        layout = self._layout
        return Records(
            start,
            table.column(layout.sample).to_pylist(),
            table.column(layout.error).to_pylist(),
            table.column(layout.target).to_pylist() if layout.target else None,
            {spec.name: _values(table, spec) for spec in wanted},
        )

    def _parts(self) -> dict[int, Path]:
        found = {}
        for path in self._place.iterdir():
            name = _PART.fullmatch(path.name)
            if name is not None:
                found[int(name[1])] = path
        return found

    def _whole(self, part: int, path: Path) -> bool:
        start, stop = self._layout.range_of(part)
        with suppress(Exception):  # pyarrow raises what it likes of a damaged file
            return bool(self._parquet.read_metadata(path).num_rows == stop - start > 0)
        return False

    def _batch(self, records: Records) -> Any:
        import pyarrow as pa

        layout = self._layout
        arrays: list[Any] = [pa.array(records.samples, pa.string())]
        arrays.append(pa.array(records.errors, pa.string()))
        if layout.target is not None:
            arrays.append(pa.array(records.targets, pa.int32()))
        for spec in layout.outputs:
            values = records.values[spec.name]
            arrays.append(_column(values, self._schema.field(spec.name).type))
            if _is_open(spec):
                shapes = [None if v is None else list(v.shape) for v in values]
                arrays.append(pa.array(shapes, pa.list_(pa.int32())))
        return pa.record_batch(arrays, schema=self._schema)

    @staticmethod
    def _write(path: Path, fill: Any) -> None:
        def durable(file: IO[bytes]) -> None:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

        write_atomic(path, durable)


def _schema(layout: Layout) -> Any:
    import pyarrow as pa

    fields = [pa.field(layout.sample, pa.string()), pa.field(layout.error, pa.string())]
    if layout.target is not None:
        fields.append(pa.field(layout.target, pa.int32()))
    for spec in layout.outputs:
        kind = pa.string() if spec.dtype == "string" else pa.from_numpy_dtype(np.dtype(spec.dtype))
        if sample_shape(spec):
            kind = pa.list_(kind)
        fields.append(pa.field(spec.name, kind, metadata={_KEY: _json(described(spec))}))
        if _is_open(spec):
            fields.append(pa.field(_shape_name(spec), pa.list_(pa.int32())))
    return pa.schema(fields)


def _is_open(spec: OutputSpec) -> bool:
    return None in sample_shape(spec)


def _shape_name(spec: OutputSpec) -> str:
    return f"{spec.name}/shape"


def _columns_of(spec: OutputSpec) -> list[str]:
    return [spec.name, _shape_name(spec)] if _is_open(spec) else [spec.name]


def _column(values: Sequence[Array | None], kind: Any) -> Any:
    """Returns a column of arrays as one of pyarrow's."""
    import pyarrow as pa

    if not pa.types.is_list(kind):
        return pa.array([None if v is None else v[()] for v in values], kind)
    there = [np.asarray(v).reshape(-1) for v in values if v is not None]
    flat = np.concatenate(there) if there else np.empty(0)
    sizes = [0 if v is None else v.size for v in values]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    missing = np.array([v is None for v in values])
    inner = pa.array(flat.tolist() if flat.dtype.kind in "US" else flat, kind.value_type)
    return pa.ListArray.from_arrays(
        pa.array(offsets), inner, type=kind, mask=pa.array(missing) if missing.any() else None
    )


def _values(table: Any, spec: OutputSpec) -> list[Array | None]:
    """Returns the arrays of a column."""
    column = table.column(spec.name).combine_chunks()
    shape = sample_shape(spec)
    if not shape:
        return [None if v is None else np.asarray(v, _dtype(spec)) for v in column.to_pylist()]
    shapes = table.column(_shape_name(spec)).to_pylist() if _is_open(spec) else None
    found: list[Array | None] = []
    for row in range(len(column)):
        scalar = column[row]
        if not scalar.is_valid:
            found.append(None)
            continue
        values = scalar.values.to_numpy(zero_copy_only=False)
        sizes = shape if shapes is None else shapes[row]
        if values.size != math.prod(sizes):
            raise ValueError(f"{spec.name!r} has {values.size} values for the shape {sizes}")
        found.append(values.reshape(sizes))
    return found


def _dtype(spec: OutputSpec) -> Any:
    return np.str_ if spec.dtype == "string" else np.dtype(spec.dtype)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
