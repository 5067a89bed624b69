"""The table of engines: what runs artefacts. An engine is one file here and one line below."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from probegen.errors import ArtefactError, nearest
from probegen.runtime.engines import onnxruntime, openvino, savedmodel
from probegen.runtime.engines.base import Engine

#: What an artefact can be: an ONNX file or a SavedModel directory.
Form = Literal["file", "folder"]

_FORMS: Mapping[Form, str] = {"file": "ONNX file", "folder": "SavedModel directory"}
_PLURALS: Mapping[Form, str] = {"file": "ONNX files", "folder": "SavedModel directories"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        name: what a caller asks for it by.
        opens: the form of artefact that it runs; by default by the first engine that does.
        open: opens a path; its keyword arguments are the options that the engine takes.
    """

    name: str
    opens: Form
    open: Callable[..., Engine]

    @property
    def options(self) -> list[str]:
        """Names of the options that it takes."""
        parameters = inspect.signature(self.open).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


ENGINES: tuple[Entry, ...] = (
    Entry("onnxruntime", "file", onnxruntime.open_file),
    Entry("savedmodel", "folder", savedmodel.open_folder),
    Entry("openvino", "file", openvino.open_file),
)


def open_with(name: str | None, path: Path, form: Form, options: Mapping[str, Any]) -> Engine:
    """Opens an artefact with the engine of a name, or with the first that runs its form.

    Raises:
        ArtefactError: there is no such engine, it runs artefacts of another form, takes no such
            option, is not installed, or cannot load the artefact.
    """
    entry = _entry(name, path, form)
    for option in options:
        if option not in entry.options:
            takers = [e.name for e in ENGINES if option in e.options]
            whose = f"is an option of {' and '.join(takers)}" if takers else "is no option"
            takes = ", ".join(entry.options) or "no options"
            raise ArtefactError(
                f"{option} {whose}, and {str(path)!r} is opened with {entry.name}, which takes "
                f"{takes}.{'' if takers else nearest(option, entry.options)}"
            )
    return entry.open(path, **options)


def _entry(name: str | None, path: Path, form: Form) -> Entry:
    able = [entry for entry in ENGINES if entry.opens == form]
    if name is None:
        return able[0]
    entry = next((entry for entry in ENGINES if entry.name == name), None)
    if entry is None:
        known = ", ".join(repr(e.name) for e in ENGINES)
        raise ArtefactError(f"there is no engine {name!r}; there are {known}.")
    if entry not in able:
        raise ArtefactError(
            f"{str(path)!r} is no {_FORMS[entry.opens]}, and the engine {name!r} runs nothing "
            f"else. {_PLURALS[form]} run with {' or '.join(repr(e.name) for e in able)}."
        )
    return entry
