"""Targets against the outputs that they are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError
from probegen.methods.axes import Axes, position_axes
from probegen.methods.targets import ALL, Contrast, count_of_top, without_steps
from probegen.text import amount

#: What an axis of steps is called.
_STEPS = ("step", "time")


def steps_spec(
    target: Any, axes: Axes, shape: Sequence[int | None], name: str, class_axis: int | None
) -> TargetSpec | None:
    """Returns what is differentiated where that is each step of a sequence; None for others.

    `step` is then the axis of the steps in `axes`.

    Args:
        target: what the probe says.
        axes: of the output, the batch first.
        shape: of the output.
        name: what gives it: `output 'y'`.
        class_axis: the axis that classes lie along; None where there is none.

    Raises:
        InstrumentError: the output has no steps, or no such entry; says what it has.
    """
    inner = without_steps(target)
    if inner is None:
        return None
    places = position_axes(axes)
    named = [i for i in places if axes[i] in _STEPS] or list(places)
    if len(named) != 1:
        raise InstrumentError(
            f"target {target} is of each step, and {name} {tuple(shape)} has "
            f"{'several axes that may be steps' if named else 'no axis of steps'}: its axes are "
            f"{', '.join(axes)}. "
            + (
                "Give a tuple with an index or None for each of them."
                if named
                else "'all' explains each of its units."
            )
        )
    at = named[0]
    if isinstance(inner, str) and class_axis is None:
        inner = (None,) * (len(shape) - 2)
    if isinstance(inner, tuple):
        if len(inner) != len(shape) - 2:
            raise InstrumentError(
                f"target {target} has {amount(len(inner), 'entry')} beside 'steps'; {name} "
                f"{tuple(shape)} takes one for each of its {len(shape) - 2} other axes behind the "
                "batch, None meaning their sum."
            )
        inner = (*inner[: at - 1], None, *inner[at - 1 :])
    mode, index = target_index(inner, shape, name, class_axis)
    return TargetSpec(mode, index, count=shape[at], step=at)


def target_spec(
    target: Any, shape: Sequence[int | None], name: str, class_axis: int | None = -1
) -> TargetSpec:
    """Returns what is differentiated, of a target that is no callable; see `target_index`.

    Args:
        target: what the probe says.
        shape: of the output.
        name: what gives it: `output 'y'`.
        class_axis: the axis that classes lie along; None where there is none.

    Raises:
        InstrumentError: the output has no such entry or classes; says what it has.
    """
    count = count_of_top(target)
    if count is None and target != ALL and not isinstance(target, list | Contrast):
        return TargetSpec(*target_index(target, shape, name, class_axis))
    shown = repr(target) if isinstance(target, str) else str(target)
    if len(shape) < 2 or class_axis is None:
        raise InstrumentError(
            f"target {shown} is of classes, and {name} {tuple(shape)} has none: "
            f"{'it is one number a sample' if len(shape) < 2 else 'it has positions alone'}. "
            "Leave target out, or give a tuple with an index or None for each axis."
        )
    classes = shape[class_axis]
    if count is not None:
        if classes is not None and count > classes:
            raise InstrumentError(
                f"target {shown} asks for the {count} best classes, and {name} "
                f"{tuple(shape)} has {classes}; 'top:{classes}' or 'all' explains every one."
            )
        return TargetSpec("top", count=count)
    if isinstance(target, list):
        _check_classes(target, classes, shown, name, shape)
        return TargetSpec("list", count=len(target), chosen=tuple(target))
    if isinstance(target, Contrast):
        _check_classes(
            [i for i in (target.a, target.b) if isinstance(i, int)], classes, shown, name, shape
        )
        if classes == 1:
            raise InstrumentError(
                f"target {shown} compares two classes, and {name} {tuple(shape)} has one."
            )
        return TargetSpec("contrast", chosen=(target.a, target.b))
    return TargetSpec(ALL, count=classes)


def _check_classes(
    chosen: Sequence[int], classes: int | None, shown: str, name: str, shape: Sequence[int | None]
) -> None:
    wrong = [i for i in chosen if i < 0 or (classes is not None and i >= classes)]
    if wrong:
        legal = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise InstrumentError(
            f"target {shown} names the class {wrong[0]}, which {name} {tuple(shape)} does "
            f"not have: legal are {legal}."
        )


def target_index(
    target: Any, shape: Sequence[int | None], name: str, class_axis: int | None = -1
) -> tuple[str, tuple[int | None, ...] | None]:
    """Returns mode and index of a target that is no callable, checked against the output.

    Args:
        target: what the probe says.
        shape: of the output.
        name: what gives it: `output 'y'`.
        class_axis: the axis that classes lie along; None for one number a sample.

    Raises:
        InstrumentError: the output has no such entry; says what it has.
    """
    rank = len(shape)
    if isinstance(target, str):
        if target == "input" and rank < 2:
            raise InstrumentError(f"{name} is one number a sample; target='input' has no use.")
        return target, None
    if isinstance(target, int):
        at = rank - 1 if class_axis is None else class_axis % max(rank, 1)
        size = shape[at] if rank > 1 else 1
        if target < 0 or (size is not None and target >= size):
            has = "is counted from 0"
            if size is not None:
                single = "its single unit is target 0 or 'argmax'"
                has = f"has {amount(size, 'entry')} ({single if size == 1 else f'0 to {size - 1}'})"
            raise InstrumentError(
                f"target {target} is out of range: the {'last' if at == rank - 1 else 'class'} "
                f"axis of {name} {tuple(shape)} {has}."
            )
        return "index", tuple(target if i == at else None for i in range(1, rank))
    if len(target) != rank - 1:
        raise InstrumentError(
            f"target {target} has {amount(len(target), 'entry')}; {name} {tuple(shape)} takes one "
            f"for each axis behind the batch, {rank - 1} in all, None meaning their sum. "
            "Several classes are a list in Python, [1, 4], and a table in a spec, {classes = "
            "[1, 4]}."
        )
    for i, size in zip(target, shape[1:], strict=True):
        if i is not None and size is not None and not -size <= i < size:
            raise InstrumentError(
                f"target {target} is out of range for {name} of shape {tuple(shape)}."
            )
    return "index", tuple(target)
