"""Hidden folders and files in which something is made before it is moved to its place.

They lie beside the place, so that moving is renaming, and have short names of their own. Who works
in one holds a lock on a file in it, which the system releases even if the process is killed; so
what such a process left is told from what another process is working on, and swept away later.
If it was killed between the moves of one artefact of several files, these are undone, or finished,
by what it wrote down before the first of them. Where the system has no such locks, nothing is
swept. What was swept before it could be locked is made anew.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".probegen-"
_FOLDER = re.compile(r"\.probegen-[a-z0-9_]{8}")
_FILE = re.compile(r"\.probegen-[0-9a-f]{8}\.part")
_LOCK, _NEW, _OLD, _MOVES = "lock", "new", "old", "moves"
_COMING, _STALE = "coming", "stale"
_MAGIC = "probegen work folder"
#: So often a folder or file is made anew that was swept before it was locked.
_TRIES = 100


def follow(path: Path) -> Path:
    """Returns what a path means: where it is a symbolic link, what that leads to."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


@contextmanager
def work_folder(final: Path) -> Iterator[Path]:
    """Gives a folder in which to make what goes to `final`, whose folder exists.

    It has an empty folder for what is new, `folder_of_new`, and one for what is replaced,
    `folder_of_old`. Both go at the end; but as long as nothing is at `final`, what was replaced
    stays.
    """

    def lock_in_new_folder() -> Path:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=final.parent)) / _LOCK

    lock = _held(lock_in_new_folder)
    folder = Path(lock.name).parent
    with lock:
        try:
            lock.write(json.dumps({"what": _MAGIC, "for": final.name}).encode())
            lock.flush()
            folder_of_new(folder).mkdir()
            folder_of_old(folder).mkdir()
            yield folder
        finally:
            _discard(folder, final)


def folder_of_new(folder: Path) -> Path:
    """Returns where new things are made in a work folder."""
    return folder / _NEW


def folder_of_old(folder: Path) -> Path:
    """Returns where replaced things are kept in a work folder until all is done."""
    return folder / _OLD


@contextmanager
def work_file(final: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Gives a file, open for writing, to be renamed to `final`; removes what is left of it."""
    with _held(lambda: final.with_name(f"{_PREFIX}{secrets.token_hex(4)}.part")) as file:
        place = Path(file.name)
        try:
            yield place, file
        finally:
            place.unlink(missing_ok=True)


def _held(name: Callable[[], Path]) -> IO[bytes]:
    """Returns a new file that is open for writing and locked.

    Args:
        name: returns where it is made; called again where another process took it for an abandoned
            one before it was locked.
    """
    for _ in range(_TRIES):
        path = name()
        try:
            file = path.open("xb")
        except FileNotFoundError:
            if path.parent.parent.is_dir() and not path.parent.is_dir():
                continue
            raise
        try:
            _hold(file, wait=True)
            if path.exists():
                return file
        except BaseException:
            file.close()
            raise
        file.close()
    raise OSError(errno.EBUSY, "it is removed by another process, time and again", str(path))


def sweep(folder: Path) -> None:
    """Removes from a folder what killed processes of this user left of their work.

    What they had begun to move to its place is moved back, or what is left to do is done.
    Touched is only what has a name of ours and a lock file of ours that nobody holds.
    """
    if fcntl is None:
        return
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if not entry.name.startswith(_PREFIX):
                continue
            with suppress(OSError, ValueError):
                _sweep_one(Path(entry.path), entry.stat(follow_symlinks=False))


def _sweep_one(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.getuid():
        return
    if stat.S_ISREG(status.st_mode) and _FILE.fullmatch(path.name):
        with path.open("rb") as file:
            if _hold(file):
                path.unlink()
        return
    if not stat.S_ISDIR(status.st_mode) or not _FOLDER.fullmatch(path.name):
        return
    lock = path / _LOCK
    if not lock.is_file():
        path.rmdir()  # only if there is nothing in it
        return
    with lock.open(encoding="utf-8") as file:
        if not lock.stat().st_size:
            if _hold(file):
                _remove_empty(path)
            return
        told = json.load(file)
        name = told.get("for") if isinstance(told, dict) else None
        if not isinstance(name, str) or told.get("what") != _MAGIC or Path(name).name != name:
            return
        if _hold(file):
            _discard(path, path.parent / name)


def _discard(folder: Path, final: Path) -> None:
    """Removes a work folder; what was replaced stays as long as nothing is at `final`."""
    with moving_alone(final.parent):
        _settle(folder, final)
    new, old = folder_of_new(folder), folder_of_old(folder)
    shutil.rmtree(new, ignore_errors=True)
    if not os.path.lexists(final) and old.is_dir() and any(old.iterdir()):
        return
    shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):
        (folder / _MOVES).unlink(missing_ok=True)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Removes a work folder that holds its lock alone; the lock goes last."""
    if [path.name for path in folder.iterdir()] == [_LOCK]:
        (folder / _LOCK).unlink()
        folder.rmdir()


@contextmanager
def moving_alone(folder: Path) -> Iterator[None]:
    """Lets no other process move artefacts to places in a folder; waits until none does.

    The lock is on the folder itself, and leaves nothing behind. Where the system has no such
    locks, others may move at the same time.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            if fcntl is not None:
                opened = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, opened)
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def note_moves(folder: Path, coming: Iterable[Path], stale: Iterable[Path]) -> None:
    """Writes into a work folder what is about to be done beside the place, for `sweep`.

    Files are told by their number in the file system, which moving does not change, so that nothing
    else that came to lie there is taken for them.

    Args:
        folder: the work folder.
        coming: new files that are moved to lie beside the place, before what goes to it.
        stale: old ones that are removed after that.
    """
    noted = {
        _COMING: {path.name: path.stat().st_ino for path in coming},
        _STALE: {path.name: path.stat().st_ino for path in stale},
    }
    (folder / _MOVES).write_text(json.dumps(noted), encoding="utf-8")


def _settle(folder: Path, final: Path) -> None:
    """Undoes moves that were begun, or finishes them where what goes to `final` is there.

    What was replaced comes back only where nothing else is at `final` by now.
    """
    try:
        noted = json.loads((folder / _MOVES).read_text(encoding="utf-8"))
        coming, stale = noted[_COMING], noted[_STALE]
    except (OSError, ValueError, LookupError, TypeError):
        return  # it was not written to its end, so that nothing has been moved
    if not os.path.lexists(folder_of_new(folder) / final.name):
        _remove_noted(stale, final.parent)
        return
    _remove_noted(coming, final.parent)
    old = folder_of_old(folder)
    if not os.path.lexists(final):
        for place in sorted(old.iterdir(), key=lambda path: path.name == final.name):
            os.rename(place, final.parent / place.name)


def _remove_noted(files: Mapping[str, int], folder: Path) -> None:
    for name, number in files.items():
        path = folder / Path(name).name
        if path.is_file() and path.stat().st_ino == number:
            path.unlink()


def _hold(file: IO[Any], wait: bool = False) -> bool:
    """Takes the lock on an open file until it is closed; False where another process has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held, or not possible on this file system
        return False
    return True
