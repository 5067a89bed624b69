"""A program as a format writes it: for ONNX, a model is cut behind its text layers."""

from __future__ import annotations

from probegen.errors import ExportError
from probegen.methods.text_forms import from_dict
from probegen.plan.making import make_plan
from probegen.sources.base import Program


def as_written(program: Program, kind: str) -> Program:
    """Returns a program for a format, planned anew where the format takes another model.

    Raises:
        ExportError: the model cannot be cut, or a target is a callable, which is of the model as it
            was instrumented.
    """
    source = program.source.as_written(kind)
    if source is program.source:
        return program
    described = program.plan.manifest
    for group in program.plan.groups:
        if group.target.function is not None:
            raise ExportError(
                f"the target {group.target.spec.name} is a callable of a model that takes text, "
                "which is cut for ONNX: use pg.compile(model, probes, path), which plans it there."
            )
    probes = [from_dict(entry) for entry in described.probes]
    return Program(source, make_plan(source.view, probes, described.class_names, described))
