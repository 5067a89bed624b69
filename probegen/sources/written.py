"""A program as it is written: for ONNX cut behind its text layers; with its states on request."""

from __future__ import annotations

from typing import Any

from probegen.errors import ExportError
from probegen.methods.text_forms import from_dict
from probegen.plan.making import make_plan
from probegen.sources.base import Program, Source

#: What `states=` takes: the word, and behind a colon which layers.
STATES = "io"


def states_of(asked: str | None) -> tuple[bool, str | None]:
    """Returns whether states are inputs and outputs, and of which layers: a selector or None.

    Raises:
        ExportError: `states=` is none of what it takes.
    """
    if asked is None:
        return False, None
    word, colon, select = asked.partition(":") if isinstance(asked, str) else ("", "", "")
    if word != STATES or (colon and not select):
        raise ExportError(
            "states= takes 'io' (recurrent states as inputs and outputs: of the stateful layers, "
            f"of all recurrent ones where none is), 'io:<selector>' or None, got {asked!r}."
        )
    return True, select or None


def with_states(program: Program, asked: str | None) -> Program:
    """Returns a program whose model has its states as inputs and outputs, where that is asked for.

    Raises:
        SelectionError, ExportError: see `Source.with_states`; or a target is a callable, which is
            of the model as it was instrumented.
    """
    wanted, select = states_of(asked)
    if not wanted or program.source.view.carried:
        return program
    return from_states(program, select)


def from_states(program: Program, select: Any) -> Program:
    """Returns a program whose model has states as inputs and outputs: of some layers.

    Raises:
        SelectionError, ExportError: see `with_states`.
    """
    return _planned_anew(program, program.source.with_states(select), "whose states are fed")


def as_written(program: Program, kind: str) -> Program:
    """Returns a program for a format, planned anew where the format takes another model.

    Raises:
        ExportError: the model cannot be cut, or a target is a callable, which is of the model as it
            was instrumented.
    """
    source = program.source.as_written(kind)
    if source is program.source:
        return program
    return _planned_anew(program, source, "that takes text")


def _planned_anew(program: Program, source: Source, what: str) -> Program:
    """Returns the probes of a program planned on another form of its model.

    Raises:
        ExportError: a target is a callable.
    """
    described = program.plan.manifest
    for group in program.plan.groups:
        if group.target.function is not None:
            raise ExportError(
                f"the target {group.target.spec.name} is a callable of a model {what}, "
                "which is planned anew: use pg.compile(model, probes, path), which plans it there."
            )
    probes = [from_dict(entry) for entry in described.probes]
    return Program(source, make_plan(source.view, probes, described.class_names, described))
