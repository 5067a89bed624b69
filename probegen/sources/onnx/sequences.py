"""Sequences within a graph that hold tensors which are known one by one.

PyTorch writes lists of tensors so: put together by SequenceConstruct or SplitToSequence, and taken
apart by SequenceAt or ConcatFromSequence. No gradient passes a sequence; each of these has a form
without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.values import attribute, constant_of, dims_of, shape_of
from probegen.sources.onnx.parts import Part, Parts, optional, required


def _members(value: ir.Value) -> list[ir.Value] | None:
    """Returns what a sequence was put together of, None where that is not known."""
    made = value.producer()
    if made is None or made.domain or made.op_type != "SequenceConstruct":
        return None
    return [v for v in made.inputs if v is not None]


def _concatenated(b: Builder, node: ir.Node) -> Parts | None:
    """`ConcatFromSequence(SequenceConstruct(x, y))` -> `Concat(x, y)`."""
    members = _members(required(node, 0))
    if not members:
        return _of_steps(b, node)
    axis = attribute(node, "axis")
    if attribute(node, "new_axis", 0):
        members = [b.op("Unsqueeze", v, b.ints(axis)) for v in members]
    return [b.op("Concat", *members, axis=axis)]


def _of_steps(b: Builder, node: ir.Node) -> Parts | None:
    """`ConcatFromSequence(SplitToSequence(x))` -> `x`, its entries along another axis.

    A list that a loop has put together is written so; see `lists_of_loops`.
    """
    made = required(node, 0).producer()
    if made is None or made.domain or made.op_type != "SplitToSequence":
        return None
    source = required(made, 0)
    shape = shape_of(source)
    if optional(made, 1) is not None or attribute(made, "keepdims", 1) or shape is None:
        return None
    if not attribute(node, "new_axis", 0):
        rank, axis = len(shape) - 1, attribute(node, "axis")
        return [joined_steps(b, source, axis % rank)] if attribute(made, "axis", 0) == 0 else None
    rank = len(shape)
    start, end = (attribute(n, "axis", 0) % rank for n in (made, node))
    order = [i for i in range(rank) if i != start]
    order.insert(end, start)
    return [b.transpose(source, order)]


def joined_steps(b: Builder, stacked: ir.Value, at: int) -> ir.Value:
    """Writes `[steps, ...]` as its entries one behind the other along an axis of theirs."""
    shape = dims_of(stacked)
    rank = len(shape)
    turned = b.transpose(stacked, [*range(1, at + 1), 0, *range(at + 1, rank)])
    if shape[at + 1] == 1:
        return b.squeeze(turned, [at + 1])
    sizes: list[Size] = [(turned, i) for i in range(rank)]
    sizes[at : at + 2] = [-1]
    return b.reshape(turned, sizes)


def _member(b: Builder, node: ir.Node) -> Parts | None:
    """`SequenceAt(SequenceConstruct(x, y), 1)` -> `y`, and the same of a SplitToSequence."""
    position = constant_of(required(node, 1))
    if position is None:
        return None
    index, members = int(position.reshape(())), _members(required(node, 0))
    if members is not None:
        return [members[index]] if -len(members) <= index < len(members) else None
    made = required(node, 0).producer()
    if made is None or made.domain or made.op_type != "SplitToSequence":
        return None
    source, split = required(made, 0), optional(made, 1)
    axis = attribute(made, "axis", 0)
    if split is None:
        kept = attribute(made, "keepdims", 1)
        place = np.asarray([index] if kept else index, dtype=np.int64)
        return [b.op("Gather", source, b.const(place), axis=axis)]
    bounds = _bounds(constant_of(split), index, source, axis)
    return None if bounds is None else [b.op("Slice", source, *map(b.ints, (*bounds, axis)))]


def _bounds(
    sizes: npt.NDArray[Any] | None, index: int, source: ir.Value, axis: int
) -> tuple[int, int] | None:
    """Returns where one part of a split begins and ends."""
    if sizes is None:
        return None
    if sizes.ndim:
        ends = np.cumsum(sizes)
        return int(ends[index] - sizes[index]), int(ends[index])
    size, shape = int(sizes), shape_of(source)
    if index < 0:  # counted from the end, of which the length has to be known
        whole = None if shape is None else shape[axis]
        if not isinstance(whole, int):
            return None
        index += -(-whole // size)
    return index * size, (index + 1) * size


def _length(b: Builder, node: ir.Node) -> Parts | None:
    members = _members(required(node, 0))
    return None if members is None else [b.const(np.asarray(len(members), dtype=np.int64))]


#: Operator -> what it is without sequences.
PARTS: Mapping[str, Part] = {
    "ConcatFromSequence": _concatenated,
    "SequenceAt": _member,
    "SequenceLength": _length,
}
