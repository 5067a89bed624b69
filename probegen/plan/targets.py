"""Targets against the outputs that they are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probegen.errors import InstrumentError


def target_index(
    target: Any, shape: Sequence[int | None], name: str, class_axis: int | None = -1
) -> tuple[str, tuple[int | None, ...] | None]:
    """Returns mode and index of a target that is no callable, checked against the output.

    Args:
        target: what the probe says.
        shape: of the output.
        name: of the output.
        class_axis: the axis that classes lie along; None for one number a sample.

    Raises:
        InstrumentError: the output has no such entry; says what it has.
    """
    rank = len(shape)
    if isinstance(target, str):
        if target == "input" and rank < 2:
            raise InstrumentError(
                f"output {name!r} is one number a sample; target='input' has no use."
            )
        return target, None
    if isinstance(target, int):
        at = rank - 1 if class_axis is None else class_axis % max(rank, 1)
        size = shape[at] if rank > 1 else 1
        if target < 0 or (size is not None and target >= size):
            legal = (
                "its single unit is target 0 or 'argmax'"
                if size == 1
                else f"0 to {(size or 1) - 1}"
            )
            raise InstrumentError(
                f"target {target} is out of range: the {'last' if at == rank - 1 else 'class'} "
                f"axis of output {name!r} {tuple(shape)} has {size} entries ({legal})."
            )
        return "index", tuple(target if i == at else None for i in range(1, rank))
    if len(target) != rank - 1:
        raise InstrumentError(
            f"target {target} has {len(target)} entries; output {name!r} {tuple(shape)} takes one "
            f"for each of its {rank - 1} axes behind the batch, None meaning their sum."
        )
    for i, size in zip(target, shape[1:], strict=True):
        if i is not None and size is not None and not -size <= i < size:
            raise InstrumentError(
                f"target {target} is out of range for output {name!r} of shape {tuple(shape)}."
            )
    return "index", tuple(target)
