"""One number a token: what becomes of the vector that a method gives for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic

from probegen.methods.axes import TIME, Axes, channel_axis, position_axes
from probegen.methods.operations import Operations, T

NORM, DOT = "norm", "dot"
#: What the field `per_token` takes.
WAYS = (NORM, DOT)

#: The axis of what tokens look up.
EMBEDDING = "embedding"


@dataclasses.dataclass(frozen=True)
class Padded(Generic[T]):
    """What says where an attribution is padding.

    Attributes:
        given: an input: its positions, in order, are those of the attribution.
        values: the numbers there that mean padding.
        over: its further axes: of one entry, or of features, all of which have to be such a number.
    """

    given: T
    values: tuple[float, ...]
    over: tuple[int, ...] = ()


def without_padding(ops: Operations[T], attribution: T, padded: Padded[T]) -> T:
    """Returns an attribution with 0 where there is padding.

    Args:
        ops: the array operations.
        attribution: `[batch, ...positions]`.
        padded: says where.
    """
    given = ops.cast(padded.given, ops.widened(attribution))
    for value in padded.values:
        off = ops.max(ops.abs(ops.sub(given, value)), padded.over)
        if ops.rank(off) != ops.rank(attribution):
            off = ops.reshape_like(off, attribution)
        attribution = ops.where(ops.greater(off, 0.0), attribution, 0.0)
    return attribution


def vector_axis(axes: Sequence[str]) -> int | None:
    """Returns the axis along which the vector of a token lies; None where there are no tokens.

    That is the axis of embeddings, or the channels of what has one axis of positions beside them,
    and that is time: the output of a layer, or vectors that are fed as such.
    """
    if EMBEDDING in axes:
        return list(axes).index(EMBEDDING)
    places = position_axes(axes)
    in_time = len(places) == 1 and axes[places[0]] == TIME
    return channel_axis(axes) if in_time else None


def one_a_token(ops: Operations[T], way: str, vectors: T, value: T, axes: Axes, slopes: bool) -> T:
    """Returns one number for the vector of each token.

    Args:
        ops: the array operations.
        way: `"norm"`, the Euclidean length; or `"dot"`, the share of the score: slopes times the
            embedding, summed; what is a share already is summed.
        vectors: what a method gives.
        value: the embeddings, of the same shape.
        axes: of both.
        slopes: whether the method gives slopes.
    """
    at = vector_axis(axes)
    assert at is not None
    if way == NORM:
        wide = ops.widened(vectors)
        return ops.cast(ops.sqrt(ops.sum(ops.mul(wide, wide), (at,))), vectors)
    return ops.sum(ops.mul(vectors, value) if slopes else vectors, (at,))
