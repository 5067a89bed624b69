"""Zarr: a group with an array for each output, the samples first, and one for each other column.

Samples without outputs hold NaN (0 of whole numbers, an empty text), and the reason in the array
of errors, which is empty for all others. Attributes of an array tell its axes, kind, title and
unit; those of the group hold our journal. Which parts are there tells an array of its own, `DONE`,
which is written after them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.bulk.extras import zarr
from probegen.bulk.records import Records, described, sample_shape
from probegen.bulk.stores.base import Layout, Store
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.stages import writing

DONE = "@done"
_ATTRIBUTE = "probegen"
_ROOT = "zarr.json"
#: What zarr writes aside before it moves it to its place.
_ASIDE = "*.partial"


class ZarrStore(Store):
    """A group of Zarr's arrays."""

    @classmethod
    def check(cls, layout: Layout) -> None:
        """Refuses sizes that differ between samples, and where zarr is not installed."""
        zarr()
        names = {spec.name for spec in layout.outputs}
        for spec in layout.outputs:
            if None in sample_shape(spec):
                raise InputError(
                    f"the sizes of the output {spec.name!r} may differ between samples, and an "
                    "array of Zarr's has one size for all: write .parquet."
                )
            above = [part for part in _above(spec.name) if part in names]
            if above:
                raise InputError(
                    f"{spec.name!r} would lie within the array {above[0]!r}, which Zarr cannot "
                    "hold: write .parquet, or name the outputs that are to be written (--output)."
                )

    @staticmethod
    def journal(place: Path) -> dict[str, Any] | None:
        """Returns the journal in a group's attributes; see `Store.journal`."""
        try:
            found = json.loads((place / _ROOT).read_text(encoding="utf-8"))["attributes"]
            found = found[_ATTRIBUTE]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def __init__(self, place: Path, layout: Layout) -> None:
        self._place, self._layout = place, layout
        self._zarr = zarr()

    def clear(self) -> None:
        """Removes all arrays."""
        shutil.rmtree(self._place / DONE, ignore_errors=True)
        for path in self._place.iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def begin(self, journal: dict[str, Any]) -> None:
        """Writes the group with the journal."""
        if self.journal(self._place) is not None:
            self.finish(journal)
            return
        with writing(self._place):
            self._zarr.create_group(self._place, attributes={_ATTRIBUTE: journal}, zarr_format=3)

    def resume(self) -> None:
        """Removes files that were not finished, and makes arrays that are missing."""
        for path in self._place.rglob(_ASIDE):
            path.unlink(missing_ok=True)
        layout = self._layout
        with writing(self._place):
            group = self._group("r+")
            rows = (layout.rows,)
            _make(group, DONE, (layout.parts,), (1,), "int8", {})
            _make(group, layout.sample, rows, (layout.rows_at_once,), "str", {})
            _make(group, layout.error, rows, (layout.rows_at_once,), "str", {})
            if layout.target is not None:
                _make(group, layout.target, rows, (layout.rows_at_once,), "int32", {})
            for spec in layout.outputs:
                shape = tuple(n or 0 for n in sample_shape(spec))
                dtype = "str" if spec.dtype == "string" else spec.dtype
                chunks = (layout.rows_at_once, *(max(n, 1) for n in shape))
                _make(group, spec.name, (*rows, *shape), chunks, dtype, described(spec))

    def done(self) -> set[int]:
        """Returns the parts that are there."""
        group = self._group("r")
        if DONE not in group:
            return set()
        return {int(part) for part in np.flatnonzero(np.asarray(group[DONE][:]))}

    def write(self, part: int, records: Iterable[Records]) -> None:
        """Writes whole chunks of each array, then that the part is there."""
        layout = self._layout
        group = self._group("r+")
        for some in records:
            rows = slice(some.start, some.stop)
            with writing(self._place):
                group[layout.sample][rows] = np.array(some.samples, object)
                group[layout.error][rows] = np.array([e or "" for e in some.errors], object)
                if layout.target is not None:
                    group[layout.target][rows] = np.array(some.targets, np.int32)
                for spec in layout.outputs:
                    array = group[spec.name]
                    values = np.full((len(some.samples), *array.shape[1:]), _nothing(spec.dtype))
                    for row, value in enumerate(some.values[spec.name]):
                        if value is not None:
                            values[row] = value
                    array[rows] = values
        with writing(self._place):
            group[DONE][part : part + 1] = np.ones(1, np.int8)

    def finish(self, journal: dict[str, Any]) -> None:
        """Writes the journal anew."""
        with writing(self._place):
            self._group("r+").attrs.put({_ATTRIBUTE: journal})

    def read(self, names: Sequence[str] | None = None) -> Iterator[Records]:
        """Gives the records of one chunk after the other; see `Store.read`."""
        layout = self._layout
        wanted = [s for s in layout.outputs if names is None or s.name in names]
        group = self._group("r")
        for part in sorted(self.done()):
            first, end = layout.range_of(part)
            for start in range(first, end, layout.rows_at_once):
                rows = slice(start, min(start + layout.rows_at_once, end))
                errors = [str(why) or None for why in group[layout.error][rows]]
                targets = group[layout.target][rows].tolist() if layout.target else None
                values: dict[str, list[Array | None]] = {}
                for spec in wanted:
                    found = np.asarray(group[spec.name][rows])
                    values[spec.name] = [
                        v if why is None else None for v, why in zip(found, errors, strict=True)
                    ]
                samples = [str(name) for name in group[layout.sample][rows]]
                yield Records(start, samples, errors, targets, values)

    def _group(self, mode: str) -> Any:
        return self._zarr.open_group(self._place, mode=mode)


def _make(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    attributes: dict[str, Any],
) -> None:
    if name not in group:
        fill = "" if dtype == "str" else _nothing(dtype)
        group.create_array(
            name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, attributes=attributes
        )


def _nothing(dtype: str) -> Any:
    """Returns what stands in the place of an output that a sample does not have."""
    if dtype == "string":
        return np.array("", object)
    kind = np.dtype(dtype)
    return kind.type(np.nan) if kind.kind == "f" else kind.type(0)


def _above(name: str) -> list[str]:
    """Returns the names of the groups that a name lies in."""
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
