"""Files and lists that options name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

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


def labels_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `--class-names` and `--feature-names` give, without options left out."""
    labels = {name: words(options[name]) for name in ("class_names", "feature_names")}
    return {name: given for name, given in labels.items() if given is not None}


def load_arrays(path: str) -> Any:
    """Returns the arrays of an .npy or .npz file, the lines of a .txt file, the lists of a .json.

    Raises:
        InputError: the file is damaged.
    """
    from probegen.runtime.read import arrays

    if Path(path).suffix.lower() == ".txt":
        return read_text(path).removesuffix("\n").split("\n")
    if Path(path).suffix.lower() == ".json":
        try:
            return json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON: {error}") from error
    return arrays.read(Path(path))


def with_verification(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say whether and on what its artefact is verified."""
    command = click.option(
        "--samples",
        type=click.Path(exists=True, dir_okay=False),
        help="Inputs to verify on (.npy, .npz; of text .txt, one a line, or .json, a list of "
        "texts or of pairs of texts).",
    )(command)
    return click.option(
        "--verify/--no-verify", default=True, help="Compare with the model, as is default."
    )(command)


def samples_of(given: str | None) -> Any:
    """Returns what `--samples` names, None where it names nothing."""
    return None if given is None else load_arrays(given)


def array_of(path: str | None) -> Any:
    """Returns an argument of a run (groups, a region) from an .npy file, None without one.

    Raises:
        InputError: the file is damaged, or no .npy file.
    """
    if path is None:
        return None
    found = load_arrays(path)
    if isinstance(found, dict | list):
        raise InputError(f"{path} holds no single array; expected an .npy file.")
    return found


def target_of(text: str | None) -> Any:
    """Returns the target of a run: an index or a name, or a list with one a row."""
    if text is None:
        return None
    parts = [_one_target(part.strip()) for part in text.split(",")]
    return parts if len(parts) > 1 else parts[0]


def rows_of(text: str) -> list[int]:
    """Returns the rows of a batch between commas.

    Raises:
        InputError: one is no number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.removeprefix("-").isdecimal() for part in parts):
        raise InputError(f"--sample takes rows of the batch such as 0 or 0,2; got {text!r}.")
    return [int(part) for part in parts]


def forecast_of(text: str | None) -> bool | list[str | int] | None:
    """Returns the features between commas, as names or numbers; True for all of them."""
    if text is None or text == "all":
        return None if text is None else True
    return [int(part) if part.isdecimal() else part for part in map(str.strip, text.split(","))]


def _one_target(text: str) -> int | str:
    if text == "argmax":
        return -1
    return int(text) if text.removeprefix("-").isdecimal() else text


def sizes_of(given: Sequence[str]) -> dict[str, int] | None:
    """Returns what `--size AXIS=N` says, None where it says nothing.

    Raises:
        InputError: one is not of the form.
    """
    found = {}
    for text in given:
        axis, _, size = text.partition("=")
        if not axis or not size.isdecimal():
            raise InputError(f"--size takes for instance height=64, got {text!r}.")
        found[axis] = int(size)
    return found or None
