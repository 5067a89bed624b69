"""Attention layers that make up streams of positions, as methods over all of them see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from probegen.artefact.manifest import CLASS, STEP
from probegen.methods.axes import BATCH, Axes
from probegen.methods.operations import Operations, T

#: What the axes of attention weights are called.
HEAD, QUERY, KEY = "head", "query", "key"


@dataclasses.dataclass(frozen=True)
class Attending:
    """One attention layer of a chain: which positions it reads, and in which state.

    A stream is a set of positions: the tokens of a sentence, the patches of an image. An attention
    layer writes a new state of the stream of its queries. Layers are numbered along the chain.

    Attributes:
        name: of the layer.
        axes: of its weights.
        queries: number of the stream that its queries are of.
        keys: number of the stream that its keys and values are of; with self-attention the same.
        queries_after: number of the layer that wrote the state of its queries; None for the state
            before all of them.
        keys_after: the same of its keys.
    """

    name: str
    axes: Axes
    queries: int
    keys: int
    queries_after: int | None = None
    keys_after: int | None = None

    @property
    def is_self(self) -> bool:
        """Whether positions attend to positions of their own stream."""
        return self.queries == self.keys


def streams_read(layers: Sequence[Attending], number: int | None) -> set[int]:
    """Returns the streams whose positions a state was made of by attention.

    Args:
        layers: the chain.
        number: of the layer that wrote the state, None for the first state, made of itself alone.
    """
    if number is None:
        return set()
    layer = layers[number]
    return (
        streams_read(layers, layer.queries_after)
        | streams_read(layers, layer.keys_after)
        | {layer.keys}
    )


def layers_behind(layers: Sequence[Attending], number: int | None) -> set[int]:
    """Returns the numbers of the layers that a state is made by."""
    if number is None:
        return set()
    layer = layers[number]
    before = layers_behind(layers, layer.queries_after) | layers_behind(layers, layer.keys_after)
    return before | {number}


def arranged(ops: Operations[T], weights: T, axes: Axes) -> T:
    """Returns weights, or their gradient, as `[batch, class, head, query, key]`.

    Of classes (or steps of the output, in their place) and heads there may be none; of heads in
    groups there are two axes.
    """
    names = (BATCH, CLASS, STEP, *_heads(axes), QUERY, KEY)
    order = [axes.index(name) for name in names if name in axes]
    return ops.transpose(weights, order)


def _heads(axes: Axes) -> tuple[str, ...]:
    return tuple(name for name in axes if name.split("_")[0] == HEAD)


def head_axis(axes: Axes) -> tuple[int, ...]:
    """Returns the axes of the heads in arranged weights, none where there are no heads."""
    before = sum(name in axes for name in (BATCH, CLASS, STEP))
    return tuple(range(before, before + len(_heads(axes))))


def arranged_axes(axes: Axes) -> Axes:
    """Returns the axes of arranged weights that are fused over the heads."""
    return tuple(name for name in (BATCH, CLASS, STEP, QUERY, KEY) if name in axes)


def of_query(ops: Operations[T], matrix: T, query: int | str | None, axes: Axes) -> T:
    """Returns the row of one query, their mean, or all rows; the axis of the queries stays.

    Args:
        ops: the array operations.
        matrix: `[batch, query, key]`.
        query: an index, `"mean"`, or None for all.
        axes: of the matrix.
    """
    if query is None:
        return matrix
    at = axes.index(QUERY)
    if query == "mean":
        return ops.mean(matrix, (at,), keepdims=True)
    return ops.take(matrix, (int(query),), at)


def without_query(ops: Operations[T], matrix: T, query: int | str | None, axes: Axes) -> T:
    """Returns a matrix of one row as that row."""
    return matrix if query is None else ops.sum(matrix, (axes.index(QUERY),))
