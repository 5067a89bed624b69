"""Files and lists that options name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from probegen.errors import InputError


def read_text(path: str) -> str:
    """Returns the text of a file.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}") from error


def words(given: str | None) -> list[str] | None:
    """Returns the names in a file, one a line, or between commas."""
    if given is None:
        return None
    # Not Path.is_file, which raises where many names make one too long for a file.
    parts = read_text(given).splitlines() if os.path.isfile(given) else given.split(",")
    return [part.strip() for part in parts if part.strip()]


def load_arrays(path: str) -> Any:
    """Returns the arrays of an .npy or .npz file."""
    from probegen.runtime.read import arrays

    return arrays.read(Path(path))
