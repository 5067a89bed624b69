"""Which tensors a target sees at one position alone.

Where a classifier reads its class token, or the last step of a sequence, the gradient at every
other position of the layers just before is exactly 0: a map of such a layer says nothing. Only what
mixes positions (attention's keys and values, a convolution, a mean) brings the others in.

    tokens -> attention -> normalisation -> [:, 0] -> scores: one position of the normalisation
    counts, and all of what the attention reads
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from probegen.plan.positions import Link, Positions, Size, Step

#: For each part of each axis of a tensor, the slowest first: whether one entry of it counts.
_Parts = list[bool]


def axes_seen_at_one_entry(positions: Positions, end: Hashable) -> dict[Hashable, set[int]]:
    """Returns along which axes of the tensors before a target only one entry counts.

    Args:
        positions: of a graph that was followed whole.
        end: the tensor that the target is taken from, all of whose entries count.

    Returns:
        Tensor -> axes; tensors that all of their entries count of are left out.
    """
    single: dict[Hashable, _Parts] = {end: [False] * len(_flat(positions, end))}
    for step in reversed(positions.steps):
        if not any(tensor in single for tensor, _ in step.results):
            continue
        for operand in dict.fromkeys(step.operands):
            if not positions.knows(operand):
                continue
            found = _of_operand(positions, step, operand, single)
            before = single.get(operand)
            single[operand] = (
                found if before is None else [a and b for a, b in zip(found, before, strict=True)]
            )
    return {t: axes for t, parts in single.items() if (axes := _whole_axes(positions, t, parts))}


def _of_operand(
    positions: Positions, step: Step, operand: Hashable, single: dict[Hashable, _Parts]
) -> _Parts:
    """Returns of which parts of an operand one entry counts, by this operation alone."""
    parts = [True] * len(_flat(positions, operand))
    for tensor, sizes in step.results:
        if tensor not in single:
            continue
        if step.reshaped == (operand, tensor):
            found = _through_reshape(positions, operand, tensor, single[tensor])
        else:
            found = _through_links(positions, step, operand, tensor, sizes, single[tensor])
        parts = [a and b for a, b in zip(parts, found, strict=True)]
    return parts


def _through_links(
    positions: Positions,
    step: Step,
    operand: Hashable,
    result: Hashable,
    sizes: Sequence[Size],
    of_result: _Parts,
) -> _Parts:
    kept = _pairs(step.kept, operand, result)
    moved = _pairs(step.moved, operand, result)
    along = _by_axis(positions, result, of_result)
    found: _Parts = []
    for axis, factors in enumerate(positions.axes_of(operand)):
        if axis in kept and axis not in step.mixed:
            there = along[kept[axis]]
            found += there if len(there) == len(factors) else [False] * len(factors)
        else:
            gone = axis not in moved or sizes[moved[axis]] == 1
            one = step.selects and axis not in kept and gone
            found += [one] * len(factors)
    return found


def _through_reshape(
    positions: Positions, operand: Hashable, result: Hashable, of_result: _Parts
) -> _Parts:
    """Returns the parts of what is reshaped: those that both have, from the front and behind."""
    before, behind = _flat(positions, operand), _flat(positions, result)
    found = [False] * len(before)
    for order in (1, -1):
        for i in range(min(len(before), len(behind))):
            at = i if order == 1 else -1 - i
            if before[at] != behind[at]:
                break
            found[at] = of_result[at]
    return found


def _pairs(links: Sequence[Link], operand: Hashable, result: Hashable) -> dict[int, int]:
    chosen = [link for link in links if (link.operand, link.result) == (operand, result)]
    return {a: b for link in chosen for a, b in link.pairs}


def _flat(positions: Positions, tensor: Hashable) -> list[int]:
    """Returns the labels of the parts of all axes."""
    return [label for axis in positions.axes_of(tensor) for label in axis]


def _by_axis(positions: Positions, tensor: Hashable, parts: _Parts) -> list[_Parts]:
    left = list(parts)
    return [[left.pop(0) for _ in axis] for axis in positions.axes_of(tensor)]


def _whole_axes(positions: Positions, tensor: Hashable, parts: _Parts) -> set[int]:
    """Returns the axes of which one entry counts; one that has no more than one does not."""
    return {
        axis
        for axis, found in enumerate(_by_axis(positions, tensor, parts))
        if found and all(found)
    }
