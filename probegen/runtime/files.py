"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from probegen.artefact.work_folder import follow, sweep, work_file
from probegen.errors import MissingFolderError
from probegen.stages import check_name, writing


def write_atomic(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> Path:
    """Lets `write` fill a file beside `path`, then renames it to `path`; returns `path`.

    A symbolic link is followed. A device or a pipe, such as `/dev/stdout`, is written to.

    Raises:
        MissingFolderError: the folder does not exist.
        WriteError: the place is full, read-only, not permitted, or its name too long.
    """
    path = Path(path)
    final = follow(path)
    if not final.parent.is_dir():
        raise MissingFolderError(
            f"cannot write {str(path)!r}: the folder {str(final.parent)!r} does not exist."
        )
    check_name(final)
    with writing(path):
        if final.exists() and not final.is_file() and not final.is_dir():
            with final.open("wb") as file:
                write(file)
            return path
        sweep(final.parent)
        with work_file(final) as (aside, file):
            write(file)
            file.flush()
            aside.replace(final)
    return path
