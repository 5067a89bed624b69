"""Every error that probegen raises on purpose: one base class, one subclass a stage.

A message says what was wrong, what was expected and what would work. Code that catches
`ProbegenError` catches them all; most are also the builtin a reader would expect
(`ValueError`, `FileNotFoundError`), so that ordinary handlers work too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

#: What colours text in a terminal; Keras writes it into its messages.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class ProbegenError(Exception):
    """Base class of all errors raised by probegen.

    Messages quote what other libraries say; the codes by which those colour it are left out.
    """

    def __init__(self, message: str = "", *more: object) -> None:
        super().__init__(_COLOURS.sub("", message), *more)


class SpecError(ProbegenError, ValueError):
    """A probe, a target or a spec file is malformed."""


class SourceError(ProbegenError, ValueError):
    """The source is no model that can be instrumented: wrong file, not built, not loadable."""


class SelectionError(ProbegenError, ValueError):
    """A selector matches nothing, or matches something that cannot be probed that way."""


class InstrumentError(ProbegenError, ValueError):
    """The model cannot be instrumented as asked, for instance a gradient that cannot flow."""


class NotDifferentiableError(InstrumentError):
    """The target does not depend differentiably on what the gradient was asked for.

    `refusals` lists the operators of the exported graph that stop the gradient, with the layers
    they came from, where that is what was found out.
    """

    def __init__(self, message: str, refusals: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)


class ExportError(ProbegenError, ValueError):
    """The instrumented model cannot be expressed in the asked format."""


class UnsupportedOpsError(ExportError):
    """The graph holds operators that have no gradient rule or no ONNX form.

    `refusals` lists each of them once: operator, reason and the layers it came from.
    """

    def __init__(self, message: str, refusals: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)


class ManifestError(ProbegenError, ValueError):
    """The manifest is missing, damaged, foreign or of a newer schema."""


class VerificationError(ProbegenError):
    """The artefact does not agree with its source model; `report` holds the figures."""

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class ArtefactError(ProbegenError, ValueError):
    """The runtime cannot load the file: not there, truncated, or not made by probegen."""


class InputError(ProbegenError, ValueError):
    """What was fed to an artefact does not fit its inputs."""


class WriteError(ProbegenError, OSError):
    """A place cannot be written to: full, read-only, not permitted, or its name too long."""


class MissingFolderError(WriteError, FileNotFoundError):
    """The folder that a file was to be written into does not exist."""


class OutputExistsError(ProbegenError, FileExistsError):
    """The place to write to is taken and `overwrite=True` was not given."""


def did_you_mean(name: str, known: Iterable[str], limit: int = 5) -> str:
    """Returns `" Did you mean 'a', 'b'?"` with the nearest of `known`, or what there is.

    The returned text starts with a space, so that it can be appended to a sentence; it is
    empty where `known` is empty.
    """
    names = list(dict.fromkeys(known))
    if not names:
        return ""
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.5)
    if near:
        return " Did you mean " + ", ".join(repr(n) for n in near) + "?"
    shown = ", ".join(repr(n) for n in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f" There are {shown}{more}."
