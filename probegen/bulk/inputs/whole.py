"""Tables of text and files of lines, which are read whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from probegen.artefact.rows import count_rows
from probegen.bulk.inputs.base import ArrayFile, Context, part_of
from probegen.runtime.inputs import Array, name_inputs
from probegen.runtime.read import read_file


class Whole(ArrayFile):
    """What the readers of the runtime read, in memory."""

    def __init__(self, path: Path, context: Context) -> None:
        """Reads a file.

        Raises:
            InputError: it is damaged, or does not fit the inputs.
        """
        super().__init__(path, context)
        read = read_file(
            path,
            context.manifest,
            header=context.header,
            time_column=context.time_column,
            say=context.say,
            spell=context.spell,
        )
        feed = (
            read.feed if isinstance(read.feed, Mapping) else name_inputs(read.feed, context.specs)
        )
        self._arrays = {name: np.asarray(values) for name, values in feed.items()}
        self.rows = count_rows(self._arrays, context.specs)

    def arrays(self, start: int, stop: int) -> dict[str, Array]:
        """Returns some rows."""
        return {
            spec.name: self._arrays[spec.name][part_of(spec.axes, start, stop)]
            for spec in self._context.specs
        }
