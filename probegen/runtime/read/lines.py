"""Reads text files: a text a line."""

from __future__ import annotations

from pathlib import Path

from probegen.artefact.manifest import Manifest
from probegen.errors import InputError
from probegen.runtime.inputs import STRING

SUFFIXES = (".txt",)


def texts_of(manifest: Manifest) -> list[str]:
    """Returns the names of the texts that an artefact takes."""
    own = [s.name for s in manifest.texts] + [s.name for s in manifest.inputs if s.dtype == STRING]
    return list(dict.fromkeys(own))


def read(path: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Returns the lines of a file, an empty one too, by the name of the text that is taken.

    A line ends at a line feed (and a carriage return before it), at nothing else.

    Raises:
        InputError: it is no UTF-8 or has no line; the artefact takes no text, or several.
    """
    names = texts_of(manifest)
    if not names:
        raise InputError(
            f"{path} is text, and the artefact takes numbers: compile the model together with its "
            "text layers, or with tokenizer='tokenizer.json'."
        )
    if len(names) > 1:
        raise InputError(
            f"{path} has a text a line, and the artefact takes several: "
            f"{', '.join(map(repr, names))}. Pass a .csv file with a column for each."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path} has no lines.")
    return {names[0]: [line.removesuffix("\r") for line in lines]}
