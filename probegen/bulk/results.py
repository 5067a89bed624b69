"""Reads what a bulk run wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import as_described
from probegen.bulk.journal import is_journal, layout_in
from probegen.bulk.records import Records
from probegen.bulk.stores import FORMATS, Store
from probegen.errors import ArtefactError
from probegen.runtime.inputs import Array


class Results:
    """The records of a bulk run, read some at a time.

    Attributes:
        manifest: of the artefact that was run.
        finished: whether all samples have a record.
        samples: how many samples the input has.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a folder that `run` wrote.

        Raises:
            ArtefactError: it is none, or damaged.
        """
        place = Path(path)
        kind = FORMATS.get(place.suffix.lower())
        journal = None if kind is None else kind.journal(place)
        if kind is None or journal is None or not is_journal(journal):
            raise ArtefactError(f"{str(path)!r} holds no records of a bulk run.")
        try:
            layout = layout_in(journal)
            self.manifest = Manifest.from_json(journal["manifest"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"the journal in {str(path)!r} is damaged: {error}") from error
        self.finished = bool(journal["finished"])
        self.samples = layout.rows
        self._path = str(path)
        self._store: Store = kind(place, layout)

    def read(self, names: Sequence[str] | None = None) -> Iterator[Records]:
        """Gives records in order, some at a time; see `Store.read`.

        Raises:
            ArtefactError: a part is damaged.
        """
        try:
            yield from self._store.read(names)
        except Exception as error:  # pyarrow and zarr raise what they like of damaged files
            raise ArtefactError(f"{self._path!r} is damaged: {error}") from error

    def arrays(self, names: Sequence[str]) -> Iterator[tuple[dict[str, Array], Array | None, int]]:
        """Gives outputs as a run returns them, of samples that have some; each of one shape.

        Args:
            names: outputs that are wanted; those that were not written are passed over.

        Yields:
            Arrays by output name with their axes as in the manifest, the target of each sample
            (int32 `[batch]`, None where the artefact takes none), and the number of samples.
        """
        for records in self.read(names):
            alike: dict[tuple[Any, ...], list[int]] = {}
            for row, why in enumerate(records.errors):
                if why is None:
                    shapes = [np.asarray(values[row]).shape for values in records.values.values()]
                    alike.setdefault(tuple(shapes), []).append(row)
            targets = None if records.targets is None else np.array(records.targets, np.int32)
            for rows in alike.values():
                found = {
                    name: as_described(
                        np.stack([np.asarray(values[row]) for row in rows]),
                        self.manifest.output(name).axes,
                    )
                    for name, values in records.values.items()
                }
                yield found, None if targets is None else targets[rows], len(rows)


def holds_records(path: str | os.PathLike[str]) -> bool:
    """Tells whether a path is a folder whose name says that a bulk run wrote it."""
    return Path(path).suffix.lower() in FORMATS
