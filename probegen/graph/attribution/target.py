"""The seed of a backward pass: the gradient of the target's scalar with respect to the scores."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.artefact.manifest import TargetSpec
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dtype_of, rank_of, shape_of


def seed(
    builder: Builder, target: TargetSpec, scores: ir.Value, request: ir.Value | None = None
) -> ir.Value:
    """Writes zeros and ones of the shape of `scores`: one where an entry is summed up.

    Args:
        builder: where the nodes go.
        target: which entries.
        scores: `[batch, ..., classes]`, or `[batch]` for one number a sample.
        request: int32 `[batch]`, -1 meaning argmax, for mode `"input"`.
    """
    rank = rank_of(scores)
    if target.mode == "callable" or rank == 1:
        return builder.expand(_ones(builder, scores), scores)
    if target.mode == "index":
        return _fixed(builder, target.index or (), scores)
    classes = builder.op(
        "ArgMax",
        scores,
        axis=rank - 1,
        keepdims=0,
        shape=(shape_of(scores) or ())[:-1],
        dtype=ir.DataType.INT64,
    )
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
    return _one_hot(builder, classes, scores, rank - 1)


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
    """Writes `index` (rank 1 or more) as one-hot rows of the length of `axis` of the scores."""
    dtype = dtype_of(scores)
    values = builder.const(np.array([0, 1]), dtype)
    depth = builder.size(scores, axis)
    shape = (
        None if index.shape is None else [*(shape_of(index) or ()), (shape_of(scores) or ())[axis]]
    )
    return builder.op("OneHot", index, depth, values, axis=-1, shape=shape, dtype=dtype)


def _ones(builder: Builder, like: ir.Value) -> ir.Value:
    """Returns a one that broadcasts to `like`."""
    return builder.const(np.ones((1,) * rank_of(like)), dtype_of(like))
