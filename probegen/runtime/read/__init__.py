"""Reads files into what an artefact takes: arrays, tables and images, one module a kind.

Nothing is guessed in silence: what a reader decides (a header, a size, a range of values) it says.
The command line and the server read by `read_input`, bulk runs by `read_file`; nothing here knows
of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.features import feature
from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.rows import BATCH, batch_axis
from probegen.errors import InputError
from probegen.runtime.inputs import STRING, Array, Inputs, name_inputs
from probegen.runtime.read import arrays, images, lines, tables
from probegen.runtime.read.ranges import doubts, scaled
from probegen.runtime.read.spelling import Spell, keyword
from probegen.runtime.texts import holds_text

__all__ = ["Read", "read_file", "read_input"]

#: Takes a line that says what a reader decided.
Say = Callable[[str], None]

#: Axes of strings that are looked up one by one.
_POSITIONS = ("time", "channel")

SUFFIXES = (*arrays.SUFFIXES, *tables.SUFFIXES, *images.SUFFIXES, *lines.SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read.

    Attributes:
        feed: what `Artefact.run` takes: one array, or arrays by input name or in a list.
        feature_names: names of the columns of a table that has some.
        files: of a folder, the name of the file that each row comes from.
        time: of a series in a table, what stands at its steps, `[time]`; of several files with as
            many steps `[batch, time]`.
    """

    feed: Inputs
    feature_names: list[str] | None = None
    files: tuple[str, ...] | None = None
    time: Array | None = None


def read_input(
    source: Path | Inputs,
    manifest: Manifest,
    *,
    scale: float | None = None,
    header: bool | None = None,
    time_column: str | None = None,
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
        time_column: of a series in a table: the name or number (from 1) of the column that says
            what stands at its steps; None takes a column of dates for that, if there is one.
        say: called with what the user should know of how the source was read.
        spell: how messages name `scale`, `header` and `time_column`; by default as arguments in
            Python.

    Raises:
        InputError: a file is damaged, of an unknown kind, or does not fit the inputs; the files of
            a folder do not fit each other, or there are none; an option does not apply.
    """
    say = say or _silent
    if scale is not None and not math.isfinite(scale):
        raise InputError(f"{spell('scale', scale)}: it must be a finite number.")
    how = _Tables(header, time_column)
    if not isinstance(source, Path) and holds_text(source) and manifest.texts:
        read, kinds = Read(source), {""}
    elif not isinstance(source, Path):
        named = name_inputs(source, manifest.inputs)
        read, kinds = Read({name: np.asarray(array) for name, array in named.items()}), {""}
    elif source.is_dir():
        read, kinds = _folder(source, manifest, how, say, spell)
    else:
        read, kinds = _file(source, manifest, how, say, spell), {source.suffix.lower()}
    _check_tables(how, kinds, source, spell)
    feed = read.feed
    if scale is not None:
        feed = scaled(feed, manifest.inputs, scale, spell)
    fed = {} if holds_text(feed) else feed
    for line in doubts(fed, manifest, kinds <= set(images.SUFFIXES), spell):
        say(line)
    return dataclasses.replace(read, feed=feed)


def read_file(
    path: Path,
    manifest: Manifest,
    *,
    header: bool | None = None,
    time_column: str | None = None,
    say: Say | None = None,
    spell: Spell = keyword,
) -> Read:
    """Returns what one file holds: nothing is scaled, and no doubts are said of its values.

    The arguments and errors are those of `read_input`.
    """
    how = _Tables(header, time_column)
    read = _file(path, manifest, how, say or _silent, spell)
    _check_tables(how, {path.suffix.lower()}, path, spell)
    return read


def as_given(manifest: Manifest) -> tuple[InputSpec, ...]:
    """Returns what a user gives: texts in the place of the inputs that are made of them.

    Recurrent states are none of it: what a file holds starts from zeros.
    """
    made = {name for text in manifest.texts for name in text.makes.values()}
    made |= {spec.name for spec in manifest.inputs if spec.next_state is not None}
    texts = {
        text.name: InputSpec(text.name, STRING, text.shape, (BATCH, *_POSITIONS)[: len(text.shape)])
        for text in manifest.texts
    }
    return (*texts.values(), *(spec for spec in manifest.inputs if spec.name not in made))


@dataclasses.dataclass(frozen=True)
class _Tables:
    """What the caller said about tables: see `read_input`."""

    header: bool | None
    time_column: str | None


def _check_tables(how: _Tables, kinds: set[str], source: Path | Inputs, spell: Spell) -> None:
    """Refuses options of tables where there is none among the suffixes of what was read."""
    if kinds & set(tables.SUFFIXES):
        return
    for option, given in (("header", how.header), ("time_column", how.time_column)):
        if given is not None:
            what = f"{source} is none" if isinstance(source, Path) else "arrays were given"
            raise InputError(f"{spell(option, given)} is for tables (.csv, .tsv); {what}.")


def _file(path: Path, manifest: Manifest, how: _Tables, say: Say, spell: Spell) -> Read:
    suffix = path.suffix.lower()
    try:
        if suffix in arrays.SUFFIXES:
            return Read(arrays.read(path))
        if suffix in tables.SUFFIXES:
            given = as_given(manifest)
            table = tables.read(path, given, how.header, spell, how.time_column)
            if table.time is not None:
                say(f"{path}: {table.time[0]} says what stands at the steps, and is no feature")
            named = _by_feature(path, table, given[0], say)
            return dataclasses.replace(named, time=None if table.time is None else table.time[1])
        if suffix in lines.SUFFIXES:
            return Read(lines.read(path, manifest))
        if suffix in images.SUFFIXES:
            return Read(images.read(path, manifest.inputs, say))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    raise InputError(f"cannot read {path}; expected .npy, .npz, .csv, .txt or an image.")


def _by_feature(path: Path, table: tables.Table, spec: InputSpec, say: Say) -> Read:
    """Returns a table with its columns in the order of the features that the artefact names.

    Columns of other names are taken in the order in which they stand, which is said.
    """
    names, features = table.names, spec.features
    if names is None or features is None or isinstance(table.feed, dict):
        return Read(table.feed, names)
    known = [f.name for f in features]
    called = [feature(name).name for name in names]
    if called == known:
        return Read(table.feed)
    if sorted(called) == sorted(known):
        say(f"{path}: columns are brought into the order of the features: {', '.join(known)}")
        return Read(table.feed[..., [called.index(name) for name in known]])
    say(
        f"{path}: columns are called {', '.join(called[:8])}, and the artefact's features "
        f"{', '.join(known[:8])}: they are taken in the order in which they stand"
    )
    return Read(table.feed, names)


def _folder(
    folder: Path, manifest: Manifest, how: _Tables, say: Say, spell: Spell
) -> tuple[Read, set[str]]:
    """Returns the rows of all files of a folder, and their suffixes."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}.") from error
    readable = SUFFIXES if lines.texts_of(manifest) else set(SUFFIXES) - set(lines.SUFFIXES)
    files = [
        p for p in inside
        if p.suffix.lower() in readable and p.is_file() and not p.name.startswith(".")
    ]  # fmt: skip
    if not files:
        raise InputError(f"the folder {folder} holds no file that can be read: .npy, .csv, images.")
    if left_out := [p.name for p in inside if p not in files]:
        say(f"left out of {folder}: {', '.join(left_out)}")
    parts = [_file(path, manifest, how, say, spell) for path in files]
    feeds = [_by_key(part.feed) for part in parts]
    along = _batch_axes(parts[0].feed, manifest)
    for path, part, feed in zip(files, parts, feeds, strict=True):
        if feed.keys() != feeds[0].keys() or part.feature_names != parts[0].feature_names:
            raise InputError(
                f"{path} and {files[0]} cannot be joined: they hold other arrays or columns."
            )
        for key, array in feed.items():
            shapes = [_without(a.shape, along[key]) for a in (array, feeds[0][key])]
            if shapes[0] is None or shapes[0] != shapes[1]:
                raise InputError(
                    f"{path} and {files[0]} cannot be joined: their rows have the shapes "
                    f"{shapes[0]} and {shapes[1]}.{_advice(manifest)}"
                )
    joined = {k: np.concatenate([feed[k] for feed in feeds], axis=along[k]) for k in feeds[0]}
    first = next(iter(joined))
    counts = [feed[first].shape[along[first]] for feed in feeds]
    rows = tuple(p.name for p, n in zip(files, counts, strict=True) for _ in range(n))
    times = [part.time for part in parts if part.time is not None]
    same = len(times) == len(parts) and len({(len(t), t.dtype.kind) for t in times}) == 1
    time = np.stack(times) if same else None
    read = Read(_like(parts[0].feed, joined), parts[0].feature_names, rows, time)
    return read, {path.suffix.lower() for path in files}


def _advice(manifest: Manifest) -> str:
    """Returns what to do with pictures of several sizes."""
    if all(spec.preprocessing is None for spec in manifest.inputs):
        return ""
    return (
        " Pictures of a batch have one size: run those of each size by themselves; the artefact "
        "takes each size as it is."
    )


def _batch_axes(feed: Any, manifest: Manifest) -> dict[Any, int]:
    """Returns which axis the rows of each array of a feed lie along, by the keys of `_by_key`."""
    axes = {spec.name: batch_axis(spec.axes) or 0 for spec in manifest.inputs}
    if isinstance(feed, Mapping):
        return {key: axes.get(key, 0) for key in feed}
    places = list(axes.values())
    if isinstance(feed, list):
        return {i: places[i] if i < len(places) else 0 for i in range(len(feed))}
    return {None: places[0]}


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...] | None:
    return shape[:axis] + shape[axis + 1 :] if axis < len(shape) else None


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
