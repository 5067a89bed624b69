"""Reads files into what an artefact takes: arrays, tables and images, one module a kind.

Nothing is guessed in silence: what a reader decides (a header, a size, a range of values) it says.
The command line, the server and bulk runs read by `read_input` alone; nothing here knows of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import Manifest
from probegen.errors import InputError
from probegen.runtime.inputs import Inputs, name_inputs
from probegen.runtime.read import arrays, images, tables
from probegen.runtime.read.ranges import doubts, scaled
from probegen.runtime.read.spelling import Spell, keyword

__all__ = ["Read", "read_input"]

#: Takes a line that says what a reader decided.
Say = Callable[[str], None]

SUFFIXES = (*arrays.SUFFIXES, *tables.SUFFIXES, *images.SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read.

    Attributes:
        feed: what `Artefact.run` takes: one array, or arrays by input name or in a list.
        feature_names: names of the columns of a table that has some.
        files: of a folder, the name of the file that each row comes from.
    """

    feed: Inputs
    feature_names: list[str] | None = None
    files: tuple[str, ...] | None = None


def read_input(
    source: Path | Inputs,
    manifest: Manifest,
    *,
    scale: float | None = None,
    header: bool | None = None,
    say: Say | None = None,
    spell: Spell = keyword,
) -> Read:
    """Returns what a file, a folder or arrays hold for an artefact.

    Whether types, shapes and values fit the inputs is not asked here but by `Artefact.run`.

    Args:
        source: a `Path` of an `.npy`, `.npz`, `.csv` or `.tsv` file or an image; a `Path` of a
            folder of such files, whose rows are joined in the order of the files' names (what is
            no such file, or is hidden, is left out, which is said); or what `Artefact.run` takes.
        manifest: of the artefact.
        scale: multiplies the values of floating inputs.
        header: of tables: whether the first row holds names; None looks at the row.
        say: called with what the user should know of how the source was read.
        spell: how messages name `scale` and `header`; by default as arguments in Python.

    Raises:
        InputError: a file is damaged, of an unknown kind, or does not fit the inputs; the files of
            a folder do not fit each other, or there are none; an option does not apply.
    """
    say = say or _silent
    if scale is not None and not math.isfinite(scale):
        raise InputError(f"{spell('scale', scale)}: it must be a finite number.")
    if not isinstance(source, Path):
        named = name_inputs(source, manifest.inputs)
        read, kinds = Read({name: np.asarray(array) for name, array in named.items()}), {""}
    elif source.is_dir():
        read, kinds = _folder(source, manifest, header, say, spell)
    else:
        read, kinds = _file(source, manifest, header, say, spell), {source.suffix.lower()}
    if header is not None and not kinds & set(tables.SUFFIXES):
        what = f"{source} is none" if isinstance(source, Path) else "arrays were given"
        raise InputError(f"{spell('header', header)} is for tables (.csv, .tsv); {what}.")
    feed = read.feed
    if scale is not None:
        feed = scaled(feed, manifest.inputs, scale, spell)
    for line in doubts(feed, manifest, kinds <= set(images.SUFFIXES), spell):
        say(line)
    return dataclasses.replace(read, feed=feed)


def _file(path: Path, manifest: Manifest, header: bool | None, say: Say, spell: Spell) -> Read:
    suffix = path.suffix.lower()
    try:
        if suffix in arrays.SUFFIXES:
            return Read(arrays.read(path))
        if suffix in tables.SUFFIXES:
            return Read(*tables.read(path, manifest.inputs, header, spell))
        if suffix in images.SUFFIXES:
            return Read(images.read(path, manifest.inputs, say))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    raise InputError(f"cannot read {path}; expected .npy, .npz, .csv or an image.")


def _folder(
    folder: Path, manifest: Manifest, header: bool | None, say: Say, spell: Spell
) -> tuple[Read, set[str]]:
    """Returns the rows of all files of a folder, and their suffixes."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}.") from error
    files = [
        p for p in inside
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    ]  # fmt: skip
    if not files:
        raise InputError(f"the folder {folder} holds no file that can be read: .npy, .csv, images.")
    if left_out := [p.name for p in inside if p not in files]:
        say(f"left out of {folder}: {', '.join(left_out)}")
    parts = [_file(path, manifest, header, say, spell) for path in files]
    feeds = [_by_key(part.feed) for part in parts]
    for path, part, feed in zip(files, parts, feeds, strict=True):
        if feed.keys() != feeds[0].keys() or part.feature_names != parts[0].feature_names:
            raise InputError(
                f"{path} and {files[0]} cannot be joined: they hold other arrays or columns."
            )
        for key, array in feed.items():
            first = feeds[0][key]
            if array.ndim == 0 or array.shape[1:] != first.shape[1:]:
                raise InputError(
                    f"{path} and {files[0]} cannot be joined: their rows have the shapes "
                    f"{array.shape[1:]} and {first.shape[1:]}."
                )
    joined = {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}
    rows = tuple(
        path.name
        for path, feed in zip(files, feeds, strict=True)
        for _ in range(len(next(iter(feed.values()))))
    )
    read = Read(_like(parts[0].feed, joined), parts[0].feature_names, rows)
    return read, {path.suffix.lower() for path in files}


def _by_key(feed: Any) -> dict[Any, Any]:
    """Returns the arrays of one feed by name or place; one array has the key None."""
    if isinstance(feed, Mapping):
        return dict(feed)
    return dict(enumerate(feed)) if isinstance(feed, list) else {None: np.asarray(feed)}


def _like(feed: Any, joined: Mapping[Any, Any]) -> Any:
    """Returns arrays by key in the form of a feed."""
    if isinstance(feed, Mapping):
        return dict(joined)
    values: Sequence[Any] = list(joined.values())
    return values if isinstance(feed, list) else values[0]


def _silent(_: str) -> None:
    return None
