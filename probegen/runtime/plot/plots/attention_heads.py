"""Attention weights as maps of queries and keys: the mean over the heads, then head by head."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, IDENTITY_DETAIL, LAYER
from probegen.runtime.axes import HEAD, KEY, QUERY, SEQUENCE
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.mosaic import Ticks, Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import LIGHT, Scale
from probegen.runtime.plot.view import View
from probegen.runtime.texts.whole_words import MEAN, SUM, join
from probegen.text import shortened

Array = npt.NDArray[Any]

#: What is said where the ones of an identity would outshine all else.
WITHOUT_IDENTITY = "without the identity that it begins with"

#: Axes that stand down a map where there is no query, the first that is there.
_DOWN = (QUERY, *SEQUENCE, LAYER, HEAD)
_MOST_HEADS = 16
_LONGEST_TOKEN = 12


def fits(view: View) -> bool:
    """Tells whether these are weights of keys in at least one row, of known axes."""
    known = all(a in (KEY, *_DOWN) for a in view.axes)
    return (
        view.spec.draw == DRAWN_AS_ATTENTION and known and KEY in view.axes and len(view.axes) > 1
    )


def plan(view: View) -> Picture:
    """Plans maps of queries (down) and keys (across), with tokens at their rims.

    Takes `[query, key]` and `[head, query, key]`, axes in any order. What is reduced to one query
    has the heads down, several layers or steps of time have a map each, or stand down where there
    is nothing else. Of heads beside these the mean is drawn. Tokens shorter than the sequence leave
    the padding out.
    """
    down = next(a for a in _DOWN if a in view.axes)
    maps, panels, notes = _arranged(view, down)
    maps, said = _without_identity(view, maps)
    notes += said
    rows = view.tokens(maps.shape[1], query=True) if down == QUERY else None
    columns = view.tokens(maps.shape[2])
    maps = maps[:, : _length(rows), : _length(columns)]
    maps, rows, columns, joined = in_words(view, maps, rows, columns)
    notes += joined
    shown = maps[: min(_MOST_HEADS, view.labels.max_panels)]
    tiles = [Tile(m, name) for m, name in zip(shown, _names(view, panels, len(maps)), strict=False)]
    if len(maps) > 1 and panels == HEAD:
        tiles.insert(0, Tile(maps.mean(0), f"mean of {len(maps)} heads"))
    elif len(maps) == 1:
        tiles = [Tile(maps[0], tiles[0].caption if panels not in ("", HEAD) else "")]
    if len(shown) < len(maps):
        notes = (*notes, f"showing {len(shown)} of {len(maps)} {panels}s")
    side = _named(rows, maps.shape[1]) if down == QUERY else _names(view, down, maps.shape[1])
    ticks = Ticks(side, _named(columns, maps.shape[2]), down, KEY)
    layout = mosaic.lay_out(tiles, ticks, widest=3.6 if len(tiles) == 1 else 2.6)
    finite = maps[np.isfinite(maps)]
    scale = Scale(LIGHT, 0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity, ticks=ticks
    )
    return Picture(view.title, *layout.body, draw, (*notes, *largest_alone(view)))


def in_words(
    view: View, maps: Array, rows: list[str] | None, columns: list[str] | None
) -> tuple[Array, list[str] | None, list[str] | None, tuple[str, ...]]:
    """Joins pieces of words where that is asked for, so that rows still sum to what they did.

    Args:
        view: where it comes from.
        maps: `[panel, row, key]`.
        rows: the tokens of the rows; None where they are none.
        columns: those of the keys.

    Returns:
        The maps, the words of rows and of keys, and a note where pieces were joined.
    """
    notes: tuple[str, ...] = ()
    for axis, tokens, how in ((1, rows, MEAN), (2, columns, SUM)):
        words = None if tokens is None else view.words(tokens)
        if words is None or len(words) == maps.shape[axis]:
            continue
        maps = join(maps, words, how, axis)
        notes = ("pieces joined into words: attention to them is summed up, from them the mean",)
        if axis == 1:
            rows = [word.text for word in words]
        else:
            columns = [word.text for word in words]
    return maps, rows, columns, notes


def largest_alone(view: View) -> tuple[str, ...]:
    """Says where all but the largest weights were left out."""
    kept = str(view.spec.detail.get("reduce") or "").rpartition("top:")
    return (f"the {kept[2]} largest of each row alone",) if kept[1] else ()


@dataclasses.dataclass(frozen=True)
class Maps:
    """Attention maps of one place: a layer, or a step of a loop.

    Attributes:
        name: of the place, empty where the record is of one.
        weights: float `[head, query, key]`.
        queries, keys: how the tokens read, or their numbers.
    """

    name: str
    weights: Array
    queries: list[str]
    keys: list[str]


def all_maps(view: View) -> tuple[list[Maps], tuple[str, ...]]:
    """Returns the maps of every place of a view with queries and keys, and notes.

    Raises:
        ValueError: it has none.
    """
    others = [a for a in view.axes if a not in (HEAD, QUERY, KEY)]
    heads = [HEAD] if HEAD in view.axes else []
    array = view.ordered(*others, *heads, QUERY, KEY)
    places = array.shape[: len(others)]
    array = array.reshape(-1, *(array.shape[len(others) :] if heads else (1, *array.shape[-2:])))
    array, notes = _without_identity(view, array)
    named = [_names(view, axis, size) for axis, size in zip(others, places, strict=True)]
    names = [", ".join(parts) for parts in itertools.product(*named)]
    rows, columns = view.tokens(array.shape[-2], query=True), view.tokens(array.shape[-1])
    array = array[:, :, : _length(rows), : _length(columns)]
    found = []
    for name, weights in zip(names, array, strict=True):
        joined, queries, keys, said = in_words(view, weights, rows, columns)
        found.append(
            Maps(
                name,
                joined,
                queries or [str(i) for i in range(joined.shape[1])],
                keys or [str(i) for i in range(joined.shape[2])],
            )
        )
        notes = (*notes, *(note for note in said if note not in notes))
    return found, (*notes, *largest_alone(view))


def _without_identity(view: View, maps: Array) -> tuple[Array, tuple[str, ...]]:
    """Returns maps `[..., row, key]` without the identity that they begin with, and a note."""
    rows, keys = maps.shape[-2:]
    if not view.spec.detail.get(IDENTITY_DETAIL) or rows != keys:
        return maps, ()
    return maps - np.eye(keys), (WITHOUT_IDENTITY,)


def _arranged(view: View, down: str) -> tuple[Array, str, tuple[str, ...]]:
    """Returns `[panel, row, key]`, which axis the panels are, and what was left out."""
    others = [a for a in view.axes if a not in (down, KEY)]
    panels = next((a for a in others if a != HEAD), HEAD if others else "")
    order = [*([panels] if panels else []), *(a for a in others if a != panels), down, KEY]
    maps = view.ordered(*order)
    notes: tuple[str, ...] = ()
    if len(others) > 1:
        between = tuple(range(1, len(others)))
        counts = " and ".join(f"{maps.shape[i]} {order[i]}s" for i in between)
        maps, notes = maps.mean(between), (f"mean of {counts}",)
    return maps if panels else maps[None], panels, notes


def _names(view: View, axis: str, size: int) -> list[str]:
    """Returns what the entries along an axis that is none of tokens are called."""
    layers = view.spec.detail.get("layers") or ()
    if axis == LAYER and len(layers) == size:
        return _shared_left_out([str(name) for name in layers])
    return [f"{axis} {i}".strip() for i in range(size)]


def _shared_left_out(names: list[str]) -> list[str]:
    """Returns paths without the parts that all of them end or begin with."""
    parts = [name.split("/") for name in names]
    while len(parts) > 1 and all(len(p) > 1 and p[-1] == parts[0][-1] for p in parts):
        parts = [p[:-1] for p in parts]
    while len(parts) > 1 and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return ["/".join(p) for p in parts]


def _length(tokens: list[str] | None) -> int | None:
    return None if tokens is None else max(1, len(tokens))


def _named(tokens: list[str] | None, size: int) -> list[str]:
    """Returns a short label for each position."""
    if tokens is None:
        return [str(i) for i in range(size)]
    return [shortened(token, _LONGEST_TOKEN) for token in tokens]
