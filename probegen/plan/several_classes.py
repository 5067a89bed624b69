"""Outputs of targets of several classes or steps: their axis, and which classes they are."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from probegen.artefact.manifest import ANY_SIGN, CLASS, CLASSES, OutputSpec
from probegen.methods.axes import BATCH, behind_batch
from probegen.plan.plan import ChainOutput, GradientOutput, TargetPlan

_Output = TypeVar("_Output", bound=GradientOutput | ChainOutput)


def with_classes(output: _Output, target: TargetPlan | None) -> _Output:
    """Returns an output with the axis `class` or `step` where its target is of several.

    With `"top:k"` there is one more output beside it, `"<its name>/classes"`.

    Args:
        output: as it is for one class, under its final name.
        target: what is differentiated; None where nothing is.
    """
    if target is None or not target.spec.several:
        return output
    spec = with_class_axis(output.spec, target)
    beside = (_classes(spec, target),) if target.spec.mode == "top" else ()
    return dataclasses.replace(output, spec=spec, beside=beside)


def with_class_axis(spec: OutputSpec, target: TargetPlan) -> OutputSpec:
    """Returns the description of an output with the axis of several right behind the batch."""
    if not target.spec.several:
        return spec
    at = behind_batch(spec.axes)
    return dataclasses.replace(
        spec,
        axes=(*spec.axes[:at], target.spec.axis, *spec.axes[at:]),
        shape=(*spec.shape[:at], target.spec.count, *spec.shape[at:]),
    )


def _classes(spec: OutputSpec, target: TargetPlan) -> OutputSpec:
    """Returns the output that says which classes an attribution explains.

    `[batch, k]`; where the best class is another at each position, `[batch, k, ...positions]`.
    """
    positions = slice(1, 1 if target.spec.layer else -1)
    return spec.companion(
        f"{spec.name}/{CLASSES}",
        CLASSES,
        dtype="int32",
        shape=(target.sizes[0], target.spec.count, *target.sizes[positions]),
        axes=(BATCH, CLASS, *target.axes[positions]),
        target=target.spec,
        method=f"indices of the classes that {spec.name!r} explains, best first",
        title="Classes",
        unit="class index",
        sign=ANY_SIGN,
    )
