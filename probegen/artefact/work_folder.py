"""Hidden folders and files in which something is made before it is moved to its place.

They lie beside the place, so that moving is renaming, and have short names of their own. Who works
in one holds a lock on a file in it, which the system releases even if the process is killed; so
what such a process left is told from what another process is working on, and swept away later.
Where the system has no such locks, nothing is swept.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
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
_LOCK, _NEW, _OLD = "lock", "new", "old"
_MAGIC = "probegen work folder"
#: What is empty may be about to be locked; after so long nobody is.
_EMPTY_SECONDS = 3600.0


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
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=final.parent))
    with ExitStack() as held:
        try:
            lock = held.enter_context((folder / _LOCK).open("x", encoding="utf-8"))
            _hold(lock)  # before anything is in it, so that nobody takes it for an abandoned one
            json.dump({"what": _MAGIC, "for": final.name}, lock)
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
    place = final.with_name(f"{_PREFIX}{secrets.token_hex(4)}.part")
    with place.open("xb") as file:
        try:
            _hold(file)
            yield place, file
        finally:
            place.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes from a folder what killed processes of this user left of their work.

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
    old = time.time() - status.st_mtime > _EMPTY_SECONDS
    if stat.S_ISREG(status.st_mode) and _FILE.fullmatch(path.name):
        with path.open("rb") as file:
            if (status.st_size or old) and _hold(file):
                path.unlink()
        return
    if not stat.S_ISDIR(status.st_mode) or not _FOLDER.fullmatch(path.name):
        return
    lock = path / _LOCK
    if not lock.is_file():
        if old:
            path.rmdir()  # only if there is nothing in it
        return
    with lock.open(encoding="utf-8") as file:
        told = json.load(file)
        name = told.get("for") if isinstance(told, dict) else None
        if not isinstance(name, str) or told.get("what") != _MAGIC or Path(name).name != name:
            return
        if _hold(file):
            _discard(path, path.parent / name)


def _discard(folder: Path, final: Path) -> None:
    """Removes a work folder; what was replaced stays as long as nothing is at `final`."""
    old = folder_of_old(folder)
    if not os.path.lexists(final) and old.is_dir() and any(old.iterdir()):
        shutil.rmtree(folder_of_new(folder), ignore_errors=True)
        return
    shutil.rmtree(folder, ignore_errors=True)


def _hold(file: IO[Any]) -> bool:
    """Takes the lock on an open file until it is closed; False where another process has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or not possible on this file system
        return False
    return True
