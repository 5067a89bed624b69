"""Where artefacts are put: written aside under their own name, then moved, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os.path import exists, isdir, isfile  # false where a name is too long; pathlib raises
from pathlib import Path

from probegen.artefact.weights_file import data_of, data_path, read_sha256
from probegen.artefact.work_folder import folder_of_new, folder_of_old, sweep, work_folder
from probegen.errors import ArtefactError, OutputExistsError, WriteError
from probegen.stages import check_name, writing


def check_place(path: Path, kind: str, overwrite: bool) -> None:
    """Refuses a place that an artefact cannot be put at.

    Raises:
        OutputExistsError: there is a file for a folder, a folder for a file, or a folder that
            was not to be replaced, or that is worked in.
        WriteError: nothing can be written there, or not under this name.
    """
    check_name(path)
    above = next((p for p in path.parents if p.exists()), path.parent)
    if not above.is_dir():
        raise OutputExistsError(f"{above} is a file; no folder {path.parent} can be made.")
    if not os.access(above, os.W_OK):
        raise WriteError(
            f"cannot write {str(path)!r}: there is no permission to write into {str(above)!r}, or "
            "its file system is read-only. Change that, or write to another place."
        )
    if path.exists() and not path.is_dir() and not path.is_file():
        raise OutputExistsError(f"{path} is no ordinary file; choose another name.")
    if path.is_dir() and kind != "savedmodel":
        raise OutputExistsError(f"{path} is a folder; give the name of a file.")
    if path.is_file() and kind == "savedmodel":
        raise OutputExistsError(f"{path} is a file; a SavedModel is a folder. Choose another name.")
    if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
        raise OutputExistsError(
            f"the folder {str(path)!r} is the one you work in, or holds it, and all in it would be "
            "deleted. Give the name of a new folder."
        )
    if path.is_dir() and not overwrite:
        raise OutputExistsError(
            f"the folder {path} exists; pass overwrite=True (--overwrite) to replace it."
        )


def check_not_source(source: object, path: str | os.PathLike[str]) -> None:
    """Refuses to write an artefact over the model that it is made from.

    Raises:
        OutputExistsError: the two are one file.
    """
    if not isinstance(source, str | os.PathLike) or not isfile(source):
        return
    if exists(path) and os.path.samefile(source, path):
        raise OutputExistsError(
            f"{os.fspath(path)} is the model itself, which the artefact would replace; choose "
            "another name."
        )


def check_data_place(place: Path, final: Path, overwrite: bool) -> None:
    """Refuses to replace a data file that something else may need.

    Replaced is what the artefact at `final` names as its data, and what has the same content.

    Args:
        place: the new artefact.
        final: where it goes.
        overwrite: replace any other file too.

    Raises:
        OutputExistsError: there is another file, or a folder.
    """
    new, old = data_path(place), data_path(final)
    if not exists(new) or not exists(old):
        return
    if isdir(old):
        raise OutputExistsError(f"{old} is a folder; the weights of {final.name} go into a file.")
    if overwrite or _names(final, old) or read_sha256(old) == read_sha256(new):
        return
    raise OutputExistsError(
        f"{old}, where the weights of {final.name} go, exists and does not belong to it; move it "
        "away, choose another name, or pass overwrite=True (--overwrite) to replace it."
    )


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Gives a place beside `path` under its own name, and removes whatever is left of it.

    So are folders that were made for it, where it is not moved to `path`, and what processes that
    were killed have left beside it earlier.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            folder = stack.enter_context(work_folder(path))
        yield folder_of_new(folder) / path.name


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # they hold the artefact
        for folder in folders:
            folder.rmdir()


def put(place: Path, final: Path) -> None:
    """Moves a finished artefact to where it belongs, with its data file if it has one.

    A model without data replaces another in one step. With data there are two files and no one
    step; the order is such that no model ever lies beside the data of another build:

    - where no data file lies there, or one with the same content, it comes first;
    - else the old model is moved away, then the old data, and the new data come before the new
      model. Between the two there is no model; one that was opened just before finds by
      `check_data` that its data are gone.

    What fails on the way is undone. What is replaced lies in the work folder until all is done,
    from where it can be taken back should the process be killed.

    Raises:
        WriteError: it cannot be moved.
    """
    old = folder_of_old(place.parent.parent)
    with writing(final):
        stale = _move(place, final, old)
        for replaced in old.iterdir():
            shutil.rmtree(replaced, ignore_errors=True)
        if stale is not None:
            stale.unlink(missing_ok=True)
    sweep(final.parent)


def _move(place: Path, final: Path, old: Path) -> Path | None:
    """Renames what `put` has to; returns a data file that nothing needs any more."""
    new_data, data = data_path(place), data_path(final)
    if not exists(new_data):
        stale = data if isfile(data) and _names(final, data) else None
        _rename([(final, old / final.name)] if isdir(final) else [], (place, final))
        return stale
    if exists(data) and read_sha256(data) == read_sha256(new_data):
        os.replace(new_data, data)  # whichever of the two lies there serves both models
        _rename([], (place, final))
        return None
    replaced = [p for p in (final, data) if exists(p)] if exists(data) else []
    _rename([*((p, old / p.name) for p in replaced), (new_data, data)], (place, final))
    return None


def _rename(first: Sequence[tuple[Path, Path]], last: tuple[Path, Path]) -> None:
    """Renames in order; where one fails, those before it are undone, the latest first."""
    with ExitStack() as undo:
        for source, target in first:
            os.rename(source, target)
            undo.callback(os.rename, target, source)
        os.replace(*last)
        undo.pop_all()


def _names(model: Path, data: Path) -> bool:
    """Tells whether a model was written by probegen with a data file of that name."""
    if not isfile(model):
        return False
    try:
        known = data_of(model)
    except ArtefactError:
        return False
    return known is not None and known.location == data.name
