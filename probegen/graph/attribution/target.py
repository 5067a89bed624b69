"""The seed of a backward pass: the gradient of the target's scalar with respect to the scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from probegen.artefact.manifest import TargetSpec
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dims_of, dtype_of, rank_of, shape_of


def choices(
    builder: Builder, target: TargetSpec, scores: ir.Value, region: ir.Value | None = None
) -> ir.Value:
    """Writes the classes that a target of several explains, int64, best first.

    `[k]`, or with mode `"top"` `[k, batch, ...positions]`, of which those of a layer are 1. Of
    equal scores the lower index is better, as ONNX says it of TopK.

    Args:
        builder: where the nodes go.
        target: which classes.
        scores: `[batch, ..., classes]`.
        region: what each position counts; see `weighed`.
    """
    rank = rank_of(scores)
    if target.mode == "top":
        best = _best(builder, _ranked(builder, target, scores, region), target.count or 1)
        return builder.transpose(best, [rank - 1, *range(rank - 1)])
    if target.mode == "list":
        return builder.const(np.array(target.chosen, np.int64))
    if target.count is not None:
        return builder.const(np.arange(target.count, dtype=np.int64))
    return builder.count_up(builder.size(scores, rank - 1), dims_of(scores)[-1])


def parts(
    builder: Builder,
    target: TargetSpec,
    scores: ir.Value,
    request: ir.Value | None = None,
    region: ir.Value | None = None,
) -> tuple[ir.Value, Callable[[Builder, ir.Value], ir.Value]]:
    """Writes what a target of several explains one by one, and returns what writes a seed.

    Args:
        builder: where the nodes go.
        target: of several classes, or of each step.
        scores: `[batch, ..., classes]`; with steps of any axes behind the batch.
        request: see `seed`.
        region: see `weighed`.

    Returns:
        Classes (see `choices`) or steps, int64 and along the first axis; and what writes, with some
        builder, the seed of one of them.
    """
    if target.step is None:
        return choices(builder, target, scores, region), lambda inside, one: weighed(
            inside, one_hot(inside, one, scores), region
        )
    at = target.step
    whole = seed(builder, target, scores, request, region)
    steps = builder.count_up(builder.size(scores, at), dims_of(scores)[at])

    def of_step(inside: Builder, one: ir.Value) -> ir.Value:
        form = [1] * rank_of(scores)
        form[at] = -1
        row = _one_hot(inside, inside.reshape(one, [1]), scores, at)
        return inside.op("Mul", whole, inside.reshape(row, form), shape=whole)

    return steps, of_step


def one_hot(builder: Builder, chosen: ir.Value, scores: ir.Value) -> ir.Value:
    """Writes ones of the shape of `scores` where the last axis is at a class, zeros elsewhere.

    Args:
        builder: where the nodes go.
        chosen: int64, a class for all `[]`, or for each of the other axes' entries; axes of
            positions may be of size 1.
        scores: `[batch, ..., classes]`.
    """
    rank = rank_of(scores)
    if rank_of(chosen) != rank - 1:
        chosen = builder.reshape(chosen, [1] * (rank - 1))
    return builder.expand(_one_hot(builder, chosen, scores, rank - 1), scores)


def weighed(builder: Builder, values: ir.Value, region: ir.Value | None) -> ir.Value:
    """Writes scores or a seed times what each position counts, of their shape.

    Args:
        builder: where the nodes go.
        values: `[batch, ...]`.
        region: of its element type and with an axis of size 1 for the classes; axes of positions
            may be of size 1. None leaves the values as they are.
    """
    if region is None:
        return values
    return builder.op("Mul", values, region, shape=values)


def seed(
    builder: Builder,
    target: TargetSpec,
    scores: ir.Value,
    request: ir.Value | None = None,
    region: ir.Value | None = None,
) -> ir.Value:
    """Writes zeros and ones of the shape of `scores`: one where an entry is summed up.

    Minus ones where it is taken away, as a contrast does. With a region they are its weights.

    Args:
        builder: where the nodes go.
        target: which entries; of one class.
        scores: `[batch, ..., classes]`, or `[batch]` for one number a sample.
        request: int32 `[batch]`, -1 meaning argmax, for mode `"input"`.
        region: what each position counts; see `weighed`.
    """
    return weighed(builder, _picked(builder, target, scores, request, region), region)


def _picked(
    builder: Builder,
    target: TargetSpec,
    scores: ir.Value,
    request: ir.Value | None,
    region: ir.Value | None,
) -> ir.Value:
    """Writes the seed without the weights of a region."""
    rank = rank_of(scores)
    if target.mode == "callable" or rank == 1:
        return builder.expand(_ones(builder, scores), scores)
    if target.mode == "index":
        return _fixed(builder, target.index or (), scores)
    if target.mode == "contrast":
        ranked = _ranked(builder, target, scores, region)
        sides = [_side(builder, ranked, side) for side in target.chosen or ()]
        ahead, behind = (one_hot(builder, side, scores) for side in sides)
        return builder.sub(ahead, behind)
    classes = _largest(builder, _ranked(builder, target, scores, region))
    if target.mode == "input" and request is not None:
        asked = builder.cast(request, ir.DataType.INT64)
        if rank > 2:
            asked = builder.unsqueeze(asked, list(range(1, rank - 1)))
        negative = builder.op(
            "Less", asked, builder.const(np.int64(0)), shape=asked, dtype=ir.DataType.BOOL
        )
        classes = builder.op(
            "Where", negative, classes, asked, shape=classes, dtype=ir.DataType.INT64
        )
    return one_hot(builder, classes, scores)


def _ranked(
    builder: Builder, target: TargetSpec, scores: ir.Value, region: ir.Value | None
) -> ir.Value:
    """Writes what tells which class is the best: of a layer the sums over its positions."""
    if target.layer is None or target.step is not None:
        return scores
    scores = weighed(builder, scores, region)
    return builder.reduce_sum(scores, list(range(1, rank_of(scores) - 1)), keepdims=True)


def _side(builder: Builder, scores: ir.Value, side: int | str) -> ir.Value:
    """Writes the class of one side of a contrast, of each sample where it is told by scores."""
    if isinstance(side, int):
        return builder.const(np.int64(side))
    if side == "argmax":
        return _largest(builder, scores)
    last = rank_of(scores) - 1
    return builder.squeeze(builder.slice(_best(builder, scores, 2), last, 1, 2), [last])


def _largest(builder: Builder, scores: ir.Value) -> ir.Value:
    """Writes the class with the largest score, int64 `[batch, ...positions]`."""
    return builder.op(
        "ArgMax",
        scores,
        axis=rank_of(scores) - 1,
        keepdims=0,
        shape=(shape_of(scores) or ())[:-1],
        dtype=ir.DataType.INT64,
    )


def _best(builder: Builder, scores: ir.Value, count: int) -> ir.Value:
    """Writes the classes with the largest scores, best first, int64 along the last axis."""
    shape = [*(shape_of(scores) or ())[:-1], count]
    values, indices = builder.ops(
        "TopK",
        scores,
        builder.ints(count),
        outputs=2,
        shapes=[shape, shape],
        axis=rank_of(scores) - 1,
    )
    indices.type = ir.TensorType(ir.DataType.INT64)
    values.type = scores.type
    return indices


def _fixed(builder: Builder, index: tuple[int | None, ...], scores: ir.Value) -> ir.Value:
    """Writes the seed of a target whose entry is known now, one axis after the other."""
    rank = rank_of(scores)
    picked = _ones(builder, scores)
    for axis, at in enumerate(index, start=1):
        if at is None:
            continue
        row = _fixed_row(builder, at, scores, axis)
        form = [1] * rank
        form[axis] = -1
        row = builder.reshape(row, form)
        picked = builder.mul(picked, row) if any(i is not None for i in index[: axis - 1]) else row
    return builder.expand(picked, scores)


def _fixed_row(builder: Builder, at: int, scores: ir.Value, axis: int) -> ir.Value:
    """Writes a one-hot row of the length of an axis; a negative index counts from its end."""
    size = (shape_of(scores) or ())[axis]
    if isinstance(size, int):
        return builder.const(np.eye(1, size, at % size), dtype_of(scores))
    return _one_hot(builder, builder.ints(at), scores, axis)


def _one_hot(builder: Builder, index: ir.Value, scores: ir.Value, axis: int) -> ir.Value:
    """Writes `index` (rank 1 or more) as one-hot rows of the length of `axis` of the scores.

    In float32 and cast: onnxruntime has no OneHot of other floating numbers.
    """
    values = builder.const(np.array([0, 1], np.float32))
    depth = builder.size(scores, axis)
    shape = (
        None if index.shape is None else [*(shape_of(index) or ()), (shape_of(scores) or ())[axis]]
    )
    kind = ir.DataType.FLOAT
    row = builder.op("OneHot", index, depth, values, axis=-1, shape=shape, dtype=kind)
    return builder.cast(row, dtype_of(scores))


def _ones(builder: Builder, like: ir.Value) -> ir.Value:
    """Returns a one that broadcasts to `like`."""
    return builder.const(np.ones((1,) * rank_of(like)), dtype_of(like))
