"""Reads files into what an artefact takes: arrays, tables and images, one module a kind.

Nothing is guessed in silence: what a reader decides (a header, a size, a range of values) it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from probegen.artefact.manifest import Manifest
from probegen.errors import InputError
from probegen.runtime.inputs import Inputs
from probegen.runtime.read import arrays, images, tables
from probegen.runtime.read.ranges import doubts, scaled

__all__ = ["read_input"]

#: Takes a line that says what a reader decided.
Say = Callable[[str], None]


def read_input(
    path: Path,
    manifest: Manifest,
    *,
    scale: float | None = None,
    header: bool | None = None,
    say: Say | None = None,
) -> tuple[Inputs, list[str] | None]:
    """Returns what a file holds for an artefact, and names of features if it has some.

    Args:
        path: an `.npy`, `.npz`, `.csv` or `.tsv` file, or an image.
        manifest: of the artefact.
        scale: multiplies the values of floating inputs.
        header: of a table: whether its first row holds names; None looks at the row.
        say: called with what the user should know of how the file was read.

    Raises:
        InputError: the file is damaged, of an unknown kind, or does not fit the inputs.
    """
    say = say or _silent
    suffix = path.suffix.lower()
    names = None
    feed: Inputs
    try:
        if suffix in arrays.SUFFIXES:
            feed = arrays.read(path)
        elif suffix in tables.SUFFIXES:
            feed, names = tables.read(path, manifest.inputs, header)
        elif suffix in images.SUFFIXES:
            feed = images.read(path, manifest.inputs, say)
        else:
            raise InputError(f"cannot read {path}; expected .npy, .npz, .csv or an image.")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    if header is not None and suffix not in tables.SUFFIXES:
        raise InputError(f"--header and --no-header are of tables (.csv, .tsv); {path} is none.")
    if scale is not None:
        if not math.isfinite(scale):
            raise InputError(f"--scale is {scale}; it must be a finite number.")
        feed = scaled(feed, manifest.inputs, scale)
    for line in doubts(feed, manifest, pixels=suffix in images.SUFFIXES):
        say(line)
    return feed, names


def _silent(_: str) -> None:
    return None
