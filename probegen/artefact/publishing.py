"""Where artefacts are put: written aside under their own name, then moved, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os.path import exists, isdir, isfile  # false where a name is too long; pathlib raises
from pathlib import Path

from probegen.artefact.explain_file import ExplainFile, explain_file_of, explain_path
from probegen.artefact.onnx_file import NO_DIGEST, digest_in
from probegen.artefact.weights_file import ExternalData, data_of, data_path, read_sha256
from probegen.artefact.work_folder import (
    folder_of_new,
    folder_of_old,
    moving_alone,
    note_moves,
    sweep,
    work_folder,
)
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


def check_companions(place: Path, final: Path, overwrite: bool) -> None:
    """Refuses to replace a file beside an artefact that something else may need.

    Replaced is what the artefact at `final` names as its own, and data with the same content.

    Args:
        place: the new artefact.
        final: where it goes.
        overwrite: replace any other file too.

    Raises:
        OutputExistsError: there is another file, or a folder.
    """
    with moving_alone(final.parent):  # between two moves of another, nothing belongs to anything
        for companion in COMPANIONS:
            companion.check(place, final, overwrite)


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


def link_or_copy(source: Path, path: Path) -> None:
    """Makes a file the same as another; by a link where the file system can, so that no disk goes.

    Artefacts are replaced and never changed in place, so that a link stays what it was.
    """
    try:
        os.link(source.resolve(), path)
    except OSError:
        shutil.copyfile(source, path)


def put(place: Path, final: Path) -> None:
    """Moves a finished artefact to where it belongs, with the files beside it if it has some.

    A model without such files replaces another in one step. With some there is no one step; the
    order is such that no model ever lies beside the data of another build:

    - files that lie nowhere yet, or with the same content, come first;
    - else the old model is moved away, then the old files, and the new ones come before the new
      model. Between the two there is no model; one that was opened just before finds by
      `check_data` and `check_explain_file` that its files are gone.

    Of several that go to one folder at once, each waits until another has moved all that it has.

    What fails on the way is undone. What is replaced lies in the work folder and goes with it: if
    the process is killed on the way, the next that writes or opens something there takes it back.

    Raises:
        WriteError: it cannot be moved.
    """
    with writing(final), moving_alone(final.parent):
        for path in _move(place, final, place.parent.parent):
            path.unlink(missing_ok=True)
    sweep(final.parent)


def _move(place: Path, final: Path, folder: Path) -> list[Path]:
    """Renames what `put` has to; returns files beside `final` that nothing needs any more."""
    pairs = [(c, c.beside(place), c.beside(final)) for c in COMPANIONS]
    stale = [p for c, new, p in pairs if not exists(new) and isfile(p) and c.named_by(final, p)]
    new = [pair for pair in pairs if exists(pair[1])]
    for companion, source, target in list(new):
        if exists(target) and companion.same(target, source):
            os.replace(source, target)  # whichever of the two lies there serves both models
            new.remove((companion, source, target))
    others = [target for _, _, target in new if exists(target)]
    replaced = [final, *others] if others or isdir(final) else []
    old = folder_of_old(folder)
    first = [(path, old / path.name) for path in replaced if exists(path)]
    note_moves(folder, [source for _, source, _ in new], stale)
    _rename([*first, *((source, target) for _, source, target in new)], (place, final))
    return stale


def _rename(first: Sequence[tuple[Path, Path]], last: tuple[Path, Path]) -> None:
    """Renames in order; where one fails, those before it are undone, the latest first."""
    with ExitStack() as undo:
        for source, target in first:
            os.rename(source, target)
            undo.callback(os.rename, target, source)
        os.replace(*last)
        undo.pop_all()


def _same_data(one: Path, other: Path) -> bool:
    return read_sha256(one) == read_sha256(other)


def _same_explain_file(one: Path, other: Path) -> bool:
    """Tells whether two files carry one digest; one that is not sealed yet carries none."""
    found = {digest_in(path) for path in (one, other)}
    return len(found) == 1 and not found & {None, NO_DIGEST}


@dataclasses.dataclass(frozen=True)
class Companion:
    """A kind of file that an artefact may have beside it.

    Attributes:
        what: what it is called in messages.
        beside: where that of an artefact lies.
        of: what an artefact says of its own, None where it has none; raises an ArtefactError
            where that is damaged.
        same: whether two of them are interchangeable.
    """

    what: str
    beside: Callable[[Path], Path]
    of: Callable[[Path], ExternalData | ExplainFile | None]
    same: Callable[[Path, Path], bool]

    def check(self, place: Path, final: Path, overwrite: bool) -> None:
        """See `check_companions`."""
        new, old = self.beside(place), self.beside(final)
        if not exists(new) or not exists(old):
            return
        if isdir(old):
            raise OutputExistsError(
                f"{old} is a folder; {self.what} of {final.name} goes into a file."
            )
        if not (overwrite or self.named_by(final, old) or self.same(old, new)):
            raise OutputExistsError(
                f"{old}, where {self.what} of {final.name} goes, exists and does not belong "
                "to it; move it away, choose another name, or pass overwrite=True (--overwrite) to "
                "replace it."
            )

    def named_by(self, model: Path, file: Path) -> bool:
        """Tells whether a model was written by probegen with a file of that name."""
        if not isfile(model):
            return False
        try:
            known = self.of(model)
        except ArtefactError:
            return False
        return known is not None and known.location == file.name


COMPANIONS = (
    Companion("the data", data_path, data_of, _same_data),
    Companion("the second graph", explain_path, explain_file_of, _same_explain_file),
)
