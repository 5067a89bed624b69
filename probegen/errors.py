"""Every error that probegen raises on purpose: one base class, one subclass a stage.

A message says what was wrong, what was expected and what would work. Code that catches
`ProbegenError` catches them all; most are also the builtin a reader would expect
(`ValueError`, `FileNotFoundError`), so that ordinary handlers work too.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable

#: What colours text in a terminal; Keras writes it into its messages.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")

#: How many places (nodes, layers) a message names before it only counts the rest.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One operation that stands in the way of what was asked for.

    `str()` gives it in one sentence or two: operation, reason, place and advice. Whatever
    reports a refusal (an error, the table of costs) prints it so.

    Attributes:
        op_type: the operation, `""` where it is not a single one.
        reason: why it stands in the way.
        nodes: names of the graph's nodes concerned.
        layers: paths of the layers that they came from, where that is known.
        advice: what would work instead, where something does.
    """

    op_type: str
    reason: str
    nodes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    advice: str = ""

    @property
    def op(self) -> str:
        """The operation, by the name that the table of costs has for it."""
        return self.op_type

    @property
    def line(self) -> str:
        """Operation, reason and place, without the advice."""
        op = f"{self.op_type}: " if self.op_type else ""
        return f"{op}{self.reason.rstrip('.')}{self._place}"

    @property
    def _place(self) -> str:
        """Where it is: the layers, or the nodes where no layer is known."""
        named = [n for n in self.nodes if n]
        if self.layers:
            return f" in layer {_some(map(repr, self.layers))}"
        return f" (at {_some(named)})" if named else ""

    def __str__(self) -> str:
        return " ".join(filter(None, [f"{self.line}.", self.advice]))

    def in_layers(self, layer_of: Callable[[str], str]) -> Refusal:
        """Returns the refusal with its layers; `layer_of` gives that of a node, or `""`."""
        layers = sorted({layer_of(name) for name in self.nodes} - {""})
        return dataclasses.replace(self, layers=tuple(layers))


def merged(refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """Folds refusals of one operation for one reason together, in the order given."""
    found: dict[tuple[str, str, str], list[Refusal]] = {}
    for refusal in refusals:
        found.setdefault((refusal.op_type, refusal.reason, refusal.advice), []).append(refusal)
    return tuple(
        Refusal(
            op_type,
            reason,
            tuple(dict.fromkeys(name for one in alike for name in one.nodes)),
            tuple(dict.fromkeys(name for one in alike for name in one.layers)),
            advice,
        )
        for (op_type, reason, advice), alike in found.items()
    )


def _some(names: Iterable[str]) -> str:
    """Returns names with commas between, the first few where there are many."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


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

    def __init__(self, message: str, refusals: Iterable[Refusal] = ()) -> None:
        self.refusals = merged(refusals)
        super().__init__(_with_refusals(message, self.refusals))


class ExportError(ProbegenError, ValueError):
    """The instrumented model cannot be expressed in the asked format."""


class UnsupportedOpsError(ExportError):
    """The graph holds operators that have no gradient rule or no ONNX form.

    `refusals` lists each of them once: operator, reason and the layers it came from. The
    message is the given one, a line for each refusal, and what they advise.
    """

    def __init__(self, message: str, refusals: Iterable[Refusal] = ()) -> None:
        self.refusals = merged(refusals)
        super().__init__(_with_refusals(message, self.refusals))


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


def _with_refusals(message: str, refusals: Iterable[Refusal]) -> str:
    """Returns a message with a line for each refusal, and what they advise once at the end."""
    listed = list(refusals)
    advice = dict.fromkeys(r.advice for r in listed if r.advice)
    return "\n".join([message, *(f"  {r.line}" for r in listed), *advice])


def did_you_mean(name: str, known: Iterable[str], limit: int = 5) -> str:
    """Returns `" Did you mean 'a', 'b'?"` with the nearest of `known`, or what there is.

    The returned text starts with a space, so that it can be appended to a sentence; it is
    empty where `known` is empty.
    """
    names = list(dict.fromkeys(known))
    near = nearest(name, names, limit)
    if near or not names:
        return near
    shown = ", ".join(repr(n) for n in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f" There {'is' if len(names) == 1 else 'are'} {shown}{more}."


def nearest(name: str, known: Iterable[str], limit: int = 5) -> str:
    """Returns `" Did you mean 'a', 'b'?"` with the nearest of `known`, else nothing.

    For a sentence that lists them all itself.
    """
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=limit, cutoff=0.5)
    return " Did you mean " + ", ".join(repr(n) for n in near) + "?" if near else ""
