"""What TensorFlow's operations do to positions: see `probegen.plan.positions`."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from probegen.plan.directions import Turn, turned_round
from probegen.plan.positions import (
    Link,
    Positions,
    Size,
    Step,
    Weights,
    factor_pairs,
    summed_letters,
)
from probegen.sources.keras.links import constant, contracted, letters, links

#: Operations that tell sizes, whose results do not depend on what is fed.
_SIZES = frozenset({"Shape", "ShapeN", "Size", "Rank"})
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
_WINDOWS = frozenset(
    {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MaxPool", "MaxPool3D", "AvgPool", "AvgPool3D"}
)
#: Operations of which `links` says that they keep axes, though entries move along them.
_MOVING = frozenset(
    {"ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"}
    | {"SpaceToBatchND", "BatchToSpaceND", "MirrorPad", "TopKV2"}
    | {"ExtractImagePatches", "ExtractVolumePatches"}
    | {"Conv2DBackpropInput", "Conv3DBackpropInputV2"}
)
_LOOK_UPS = frozenset({"ResourceGather", "GatherV2"})
_REDUCING = frozenset({"Mean", "Max", "Min", "Sum", "Prod"})
_SELECTING = frozenset({"StridedSlice", "Squeeze", "TensorListGetItem", "GatherV2", "GatherNd"})
#: Axes of what has no positions.
_PLAIN = 2


def follow_graph(
    graph: Any,
    inputs: Sequence[tuple[Any, int | None, int | None]],
    weights: Mapping[Hashable, Weights],
    told_sizes: bool = False,
) -> Positions:
    """Follows positions through a graph.

    Args:
        graph: the graph.
        inputs: the model's inputs, each with its axis of the batch and that of channels.
        weights: id of a tensor of attention weights -> where it has what.
        told_sizes: follow the first axis through reshapes that are told its size as it is.
    """
    positions = Positions(weights)
    for tensor, batch, channel in inputs:
        positions.feed(id(tensor), _sizes(tensor), batch, channel)
    for op in graph.get_operations():
        if op.inputs and op.outputs and op.type not in _SIZES:
            step = _step(op)
            if told_sizes and step.reshaped is not None and _keeps_first(op, positions):
                step = dataclasses.replace(step, keeps_first=True)
            positions.follow(step)
    return positions


def turned_tensors(
    graph: Any, inputs: Sequence[Any], unrolled: Sequence[tuple[Sequence[Any], Sequence[Any], bool]]
) -> frozenset[Hashable]:
    """Returns the ids of the tensors of a graph whose positions run against those of an input.

    Args:
        graph: the graph.
        inputs: the model's inputs.
        unrolled: what layers read and give that take steps apart, and whether they go backwards.
    """
    whole = {id(made): (read, backwards) for read, each, backwards in unrolled for made in each}
    steps: list[Turn] = []
    for op in graph.get_operations():
        read, turns = op.inputs, _turns(op)
        for tensor in op.outputs:
            if id(tensor) in whole:
                read, turns = whole[id(tensor)]
        if op.type not in _SIZES and not _makes_vectors(op):
            steps.append(([id(t) for t in read], [id(t) for t in op.outputs], turns))
    return turned_round([id(t) for t in inputs], steps)


def _makes_vectors(op: Any) -> bool:
    """Tells whether positions are gone behind an operation: summed up, or one of them taken."""
    rank = op.outputs[0].shape.rank if op.outputs else None
    loses = op.type in _REDUCING or op.type in _SELECTING
    return loses and rank is not None and rank <= _PLAIN and op.inputs[0].shape.rank != rank


def _turns(op: Any) -> bool:
    """Tells whether an operation turns an axis round that is not the last one, of channels."""
    rank = op.inputs[0].shape.rank if op.inputs else None
    if rank is None or op.type not in ("ReverseV2", "StridedSlice"):
        return False
    if op.type == "ReverseV2":
        return any(axis % rank != rank - 1 for axis in constant(op.inputs[1]) or ())
    steps, gap = constant(op.inputs[3]) or (), op.get_attr("ellipsis_mask")
    behind = rank - len(steps) if gap else 0  # what an ellipsis stands for, beside itself
    axes = [i if not gap or 1 << i <= gap else i + behind for i in range(len(steps))]
    return any(step < 0 and axis != rank - 1 for step, axis in zip(steps, axes, strict=True))


def _sizes(tensor: Any) -> tuple[Size, ...]:
    return () if tensor.shape.rank is None else tuple(tensor.shape)


def sizes_read(tensor: Any) -> tuple[Size, ...]:
    """Returns the sizes of a reshaped tensor; of a matrix, what a product with it tells as well.

    `tensordot` computes what it reshapes to, so that nothing is known of it.
    """
    sizes = list(_sizes(tensor))
    for op in tensor.consumers():
        if op.type == "MatMul" and len(sizes) == 2 and op.inputs[0] is tensor:
            inner = 0 if op.get_attr("transpose_a") else 1
            other = op.inputs[1].shape[1 if op.get_attr("transpose_b") else 0]
            sizes[inner] = other if sizes[inner] is None else sizes[inner]
    return tuple(sizes)


def _keeps_first(op: Any, positions: Positions) -> bool:
    """Tells whether a reshape is told the size of its first axis by one of the same entries."""
    if op.inputs[1].op.type != "Pack":
        return False
    first = op.inputs[1].op.inputs[0].op
    if first.type != "StridedSlice" or first.inputs[0].op.type != "Shape":
        return False
    if constant(first.inputs[1]) != [0] or constant(first.inputs[2]) != [1]:
        return False
    ours = positions.axes_of(id(op.inputs[0]))[:1]
    return bool(ours) and ours == positions.axes_of(id(first.inputs[0].op.inputs[0]))[:1]


def _step(op: Any) -> Step:
    operands = tuple(id(t) for t in op.inputs)
    results = tuple((id(t), _sizes(t)) for t in op.outputs)
    if op.type == "Reshape":
        ends = (id(op.inputs[0]), id(op.outputs[0]))
        return Step(operands[:1], ((ends[1], sizes_read(op.outputs[0])),), reshaped=ends)
    kept, moved = [], []
    for operand, result, pairs in _links(op):
        still = _still(op, operand, result)
        own = tuple(p for p in pairs if p[0] in still)
        others = tuple(p for p in pairs if p[0] not in still)
        kept.append(Link(id(operand), id(result), own))
        moved.append(Link(id(operand), id(result), others))
    return Step(
        operands,
        results,
        tuple(kept),
        tuple(moved),
        summed=tuple(_summed(op)),
        selects=any(link.pairs for link in kept) and _selects(op),
        mixed=_mixed(op),
    )


def _mixed(op: Any) -> tuple[int, ...]:
    """Returns the axes along which an operation makes an entry of several."""
    rank = op.inputs[0].shape.rank or 0
    if op.type in _WINDOWS:
        pools = "Pool" in op.type
        window = op.get_attr("ksize") if pools else op.inputs[1].shape.as_list()[: rank - 2]
        first = 0 if pools else 1 if op.get_attr("data_format").decode().endswith("C") else 2
        return tuple(i + first for i, size in enumerate(window) if size != 1)
    if op.type in ("Softmax", "LogSoftmax"):
        return (rank - 1,)
    return tuple(range(1, rank)) if op.type in ("Cumsum", "Cumprod") else ()


def _selects(op: Any) -> bool:
    """Tells whether an operation takes entries out, of which `links` says along which axes."""
    if op.type == "GatherV2":
        return bool(op.inputs[1].shape.num_elements() == 1)
    return op.type in ("Slice", "StridedSlice")


def _links(op: Any) -> Iterator[tuple[Any, Any, Sequence[tuple[int, int]]]]:
    if op.type in _PRODUCTS and op.type != "Einsum":
        yield from _factors(op)
        return
    for link in links(op):
        yield link.operand, link.result, link.pairs
    if op.type == "ResourceGather" and not op.get_attr("batch_dims"):
        ids = op.inputs[1]
        yield ids, op.outputs[0], tuple((i, i) for i in range(ids.shape.rank or 0))


def _factors(op: Any) -> Iterator[tuple[Any, Any, Sequence[tuple[int, int]]]]:
    """Yields the operands of a matrix product, of whatever ranks, with the axes that stay."""
    rank = op.outputs[0].shape.rank
    for position, operand in enumerate(op.inputs[:2]):
        own = operand.shape.rank
        if rank is None or not own:
            continue
        pairs = factor_pairs(own, rank, position, contracted(op, position)[0])
        yield operand, op.outputs[0], pairs


def _still(op: Any, operand: Any, result: Any) -> set[int]:
    """Returns the axes of an operand whose entries an operation leaves where they are."""
    rank = operand.shape.rank or 0
    every = set(range(rank))
    along = _along(op)
    if along is not None:
        found = every - {a % rank for a in along} if rank else set()
    elif op.type in _MOVING:
        found = {0} if op.type not in ("SpaceToBatchND", "BatchToSpaceND") else set()
    elif op.type in _WINDOWS:
        found = _outside_windows(op, operand, result)
    elif op.type in ("Pad", "PadV2"):
        widths = constant(op.inputs[1])
        found = {i for i in every if widths and not any(widths[2 * i : 2 * i + 2])}
    elif op.type == "Tile":
        times = _entries(op.inputs[1], rank)
        found = {i for i in every if times[i] == 1}
    elif op.type == "Slice":
        begin, size = (constant(t) for t in list(op.inputs)[1:3])
        known = begin is not None and size is not None
        whole = (i for i in every if known and size and size[i] in (-1, operand.shape[i]))
        found = {i for i in whole if begin and begin[i] == 0}
    elif op.type == "StridedSlice":
        found = _whole(op, rank)
    elif op.type in _LOOK_UPS and operand is not op.inputs[1]:
        at = constant(op.inputs[2]) if len(op.inputs) > 2 else [0]
        found = set() if at is None else every - {at[0] % rank}
    else:
        found = every
    return found


def _entries(tensor: Any, count: int) -> list[int | None]:
    """Returns whole numbers as far as each is known by itself."""
    known = constant(tensor)
    if known is not None:
        return list(known)
    if tensor.op.type != "Pack":
        return [None] * count
    each = [constant(t) for t in tensor.op.inputs]
    return [None if e is None else e[0] for e in each]


def _along(op: Any) -> list[int] | None:
    """Returns the axes along which an operation joins, cuts or turns; None if it is none such."""
    if op.type == "ConcatV2":
        found = constant(op.inputs[-1])
    elif op.type == "Split":
        found = constant(op.inputs[0])
    elif op.type in ("SplitV", "Roll"):
        found = constant(op.inputs[2])
    elif op.type == "ReverseV2":
        found = constant(op.inputs[1])
    else:
        return None
    if found is None:  # along which nobody can say
        rank = max(t.shape.rank or 0 for t in op.inputs)
        return list(range(rank))
    return found


def _outside_windows(op: Any, operand: Any, result: Any) -> set[int]:
    """Returns the axes that windows do not run along, and those that they keep in their places.

    Channels of a convolution are sums of others.
    """
    if operand is not op.inputs[0]:
        return set()
    rank = operand.shape.rank or 0
    last = rank - 1 if not op.get_attr("data_format").decode().startswith("NC") else 1
    strides = op.get_attr("strides")
    same = op.get_attr("padding") == b"SAME"
    found = {0}
    for i in range(1, rank):
        if i == last:
            if "Pool" in op.type or op.type == "DepthwiseConv2dNative":
                found.add(i)
        elif (same and strides[i] == 1) or operand.shape[i] == result.shape[i] == 1:
            found.add(i)
    return found


def _whole(op: Any, rank: int) -> set[int]:
    """Returns the axes that `x[...]` takes whole and in their order."""
    begin, end, strides = (constant(t) for t in list(op.inputs)[1:4])
    shape = op.inputs[1].shape
    if not shape.rank or shape[0] is None:
        return set()
    masks = {
        n: op.get_attr(f"{n}_mask") for n in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    entries = range(int(shape[0]))
    bit = {n: [bool(m >> i & 1) for i in entries] for n, m in masks.items()}
    taken = sum(not bit["new_axis"][i] and not bit["ellipsis"][i] for i in entries)
    found, axis = set(), 0
    for i in entries:
        if bit["ellipsis"][i]:
            found |= set(range(axis, axis + rank - taken))
            axis += rank - taken
        elif bit["new_axis"][i]:
            continue
        else:
            size = op.inputs[0].shape[axis]
            ahead = strides is not None and strides[i] == 1
            first = bit["begin"][i] or (begin is not None and begin[i] == 0)
            last = bit["end"][i] or (end is not None and size is not None and end[i] >= size)
            if ahead and first and last and not bit["shrink_axis"][i]:
                found.add(axis)
            axis += 1
    return found | set(range(axis, rank))


def _summed(op: Any) -> Iterator[tuple[tuple[Hashable, int], tuple[Hashable, int]]]:
    """Yields the axes that a product sums over, of both operands."""
    if op.type not in _PRODUCTS or len(op.inputs) != 2:
        return
    if op.type == "Einsum":
        terms, result = letters(op)
        if terms is None:
            return
        first, second = terms
        pairs = summed_letters(first, second, result)
    else:
        pairs = [(contracted(op, 0)[0], contracted(op, 1)[0])]
    for i, j in pairs:
        yield (id(op.inputs[0]), i), (id(op.inputs[1]), j)
