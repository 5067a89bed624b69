"""A model as it is written: for ONNX cut behind its text layers, on request with fed states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probegen.errors import ExportError
from probegen.methods.text_forms import from_dict
from probegen.plan.making import make_plan
from probegen.sources.base import Program, Source

#: What `states=` takes: the word, and behind a colon which layers.
STATES = "io"
#: What `states=` may be: see `compiler.export`.
AskedStates = str | Mapping[str, str] | None


def source_with_states(source: Source, asked: AskedStates) -> Source:
    """Returns a model with its states as inputs and outputs, where that is asked for.

    Raises:
        SelectionError, ExportError: see `Source.with_states`, or `states=` is none of what it
            takes.
    """
    if asked is None or source.view.carried:
        return source
    if isinstance(asked, Mapping) and asked and all(map(_is_name, (*asked, *asked.values()))):
        return source.with_states(None, dict(asked))
    word, colon, select = asked.partition(":") if isinstance(asked, str) else ("", "", "")
    if word != STATES or (colon and not select):
        raise ExportError(
            "states= takes 'io' (recurrent states as inputs and outputs: of the stateful layers, "
            "of all recurrent ones where none is), 'io:<selector>', a dict with the output that is "
            f"the next value of each state {{input: output}}, or None, got {asked!r}."
        )
    return source.with_states(select or None)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def with_states(program: Program, asked: AskedStates) -> Program:
    """Returns a program whose model has its states as inputs and outputs, where that is asked for.

    Raises:
        SelectionError, ExportError: see `source_with_states`; or a target is a callable, which is
            of the model as it was instrumented.
    """
    source = source_with_states(program.source, asked)
    if source is program.source:
        return program
    return _planned_anew(program, source, "whose states are fed")


def from_states(program: Program, carried: Mapping[str, str]) -> Program:
    """Returns a program whose model has the states of an artefact: input -> output.

    Raises:
        SelectionError, ExportError: see `with_states`.
    """
    return _planned_anew(program, program.source.with_carried(carried), "whose states are fed")


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
