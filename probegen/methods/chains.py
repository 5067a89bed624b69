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
class Grid:
    """Which axes of attention weights positions lie along, the slowest first.

    An axis that is among both is one beside which there is attention of its own: a query attends
    to keys of the same place along it.

    Attributes:
        queries: names of the axes of the queries.
        keys: names of the axes of the keys.
    """

    queries: tuple[str, ...] = (QUERY,)
    keys: tuple[str, ...] = (KEY,)

    @property
    def beside(self) -> tuple[str, ...]:
        """The axes that both have, in the order of the queries."""
        return tuple(name for name in self.queries if name in self.keys)


#: Queries along one axis and keys along one.
ONE_AXIS = Grid()


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
        grid: which of the axes are of positions.
    """

    name: str
    axes: Axes
    queries: int
    keys: int
    queries_after: int | None = None
    keys_after: int | None = None
    grid: Grid = ONE_AXIS

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


def arranged(ops: Operations[T], weights: T, layer: Attending) -> T:
    """Returns weights, or their gradient, as `[batch, class, head, ...positions]`.

    Of classes (or steps of the output, in their place) and heads there may be none; of heads in
    groups there are two axes. Positions are those of the queries, and of the keys what is not
    among these.
    """
    names = (*_lead(layer.axes), *_heads(layer), *_positions(layer.grid))
    return ops.transpose(weights, [layer.axes.index(name) for name in names])


def _lead(axes: Axes) -> tuple[str, ...]:
    return tuple(name for name in (BATCH, CLASS, STEP) if name in axes)


def _positions(grid: Grid) -> tuple[str, ...]:
    return (*grid.queries, *(name for name in grid.keys if name not in grid.queries))


def _heads(layer: Attending) -> tuple[str, ...]:
    others = (*_lead(layer.axes), *_positions(layer.grid))
    return tuple(name for name in layer.axes if name not in others)


def head_axis(layer: Attending) -> tuple[int, ...]:
    """Returns the axes of the heads in arranged weights, none where there are no heads."""
    before = len(_lead(layer.axes))
    return tuple(range(before, before + len(_heads(layer))))


def arranged_axes(axes: Axes) -> Axes:
    """Returns the axes of the matrix of a layer with weights of these axes."""
    return (*_lead(axes), QUERY, KEY)


def result_axes(axes: Axes, queries: int, keys: int) -> Axes:
    """Returns the axes of what is given out: `query`, or `query_0`, `query_1` on a grid.

    Args:
        axes: of the weights of the last layer.
        queries: how many axes its queries lie along.
        keys: how many axes the keys lie along.
    """
    return (*_lead(axes), *_numbered(QUERY, queries), *_numbered(KEY, keys))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}_{i}" for i in range(count))


def axes_named(axes: Axes, name: str) -> tuple[int, ...]:
    """Returns which axes of a result are of queries, or of keys."""
    return tuple(i for i, a in enumerate(axes) if a.split("_")[0] == name)


def on_grid(ops: Operations[T], fused: T, layer: Attending) -> T:
    """Returns arranged weights, fused over the heads, as `[batch, class, ...queries, ...keys]`.

    A query and a key at different places along an axis beside which there is attention of its
    own have 0.
    """
    grid, lead = layer.grid, len(_lead(layer.axes))
    if not grid.beside:
        return fused
    rank = lead + len(grid.queries) + len(grid.keys)
    missing = [lead + len(grid.queries) + grid.keys.index(name) for name in grid.beside]
    spread = ops.expand_dims(fused, missing)
    for name, at in zip(grid.beside, missing, strict=True):
        query = lead + grid.queries.index(name)
        numbers = ops.counted(fused, query)
        rows, columns = (
            ops.expand_dims(numbers, [i for i in range(rank) if i != axis]) for axis in (query, at)
        )
        same = ops.greater(0.5, ops.abs(ops.sub(rows, columns)))
        spread = ops.where(same, spread, 0.0)
    return spread


def as_matrix(ops: Operations[T], fused: T, layer: Attending) -> T:
    """Returns arranged weights, fused over the heads, as `[batch, class, query, key]`."""
    lead = len(_lead(layer.axes))
    queries, keys = len(layer.grid.queries), len(layer.grid.keys)
    rows = ops.joined(on_grid(ops, fused, layer), lead, queries)
    return ops.joined(rows, lead + 1, keys)


def named_after(layers: Sequence[Attending], stream: int) -> int:
    """Returns the number of the layer that a matrix to a stream is called after.

    The last one that attends from the stream of the last layer to it, or else from any.
    """
    own = layers[-1].queries
    reading = [i for i, a in enumerate(layers) if a.keys == stream]
    from_own = [i for i in reading if layers[i].queries == own]
    return (from_own or reading)[-1]


def given_out(
    ops: Operations[T],
    matrix: T,
    query: int | str | None,
    fused: Sequence[T],
    layers: Sequence[Attending],
    keys: int,
) -> T:
    """Returns what is given out of a matrix: its positions along the axes that they have.

    Args:
        ops: the array operations.
        matrix: `[batch, class, query, key]`, of one row where one query was chosen.
        query: which query was chosen, None for all.
        fused: arranged weights of each layer, fused over the heads.
        layers: the layers.
        keys: the stream whose positions are the keys.
    """
    last, read = layers[-1], layers[named_after(layers, keys)]
    lead = len(_lead(last.axes))
    if query is not None:
        matrix = ops.sum(matrix, (lead,))
    counts = len(last.grid.queries), len(read.grid.keys)
    if counts == (1, 1) or (query is not None and counts[1] == 1):
        return matrix
    places = range(lead, lead + len(read.grid.queries))
    like = ops.sum(on_grid(ops, fused[layers.index(read)], read), tuple(places))
    if query is None:
        of_last = on_grid(ops, fused[-1], last)
        behind = range(lead + counts[0], lead + counts[0] + len(last.grid.keys))
        rows = ops.sum(of_last, tuple(behind))
        like = ops.add(
            ops.expand_dims(rows, tuple(lead + counts[0] + i for i in range(counts[1]))),
            ops.expand_dims(like, tuple(lead + i for i in range(counts[0]))),
        )
    return ops.reshape_like(matrix, like)


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
