"""Attention weights: the mean over the heads, then head by head."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, IDENTITY_DETAIL
from probegen.runtime.axes import HEAD, KEY, QUERY
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.mosaic import Ticks, Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import LIGHT, Scale
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]

#: What is said where the ones of an identity would outshine all else.
WITHOUT_IDENTITY = "without the identity that it begins with"

_MOST_HEADS = 16
_LONGEST_TOKEN = 12


def fits(view: View) -> bool:
    """Tells whether these are weights of queries to keys."""
    weighs = view.has(QUERY, KEY) or view.has(HEAD, QUERY, KEY)
    return view.spec.draw == DRAWN_AS_ATTENTION and weighs


def plan(view: View) -> Picture:
    """Plans maps of queries (down) and keys (across), with tokens at their rims.

    Takes `[head, query, key]` or `[query, key]`, axes in any order. Tokens shorter than the
    sequence leave the padding out.
    """
    maps = view.ordered(HEAD, QUERY, KEY) if HEAD in view.axes else view.ordered(QUERY, KEY)[None]
    notes: tuple[str, ...] = ()
    if view.spec.detail.get(IDENTITY_DETAIL) and maps.shape[1] == maps.shape[2]:
        maps, notes = maps - np.eye(maps.shape[1]), (WITHOUT_IDENTITY,)
    rows = view.tokens(maps.shape[1], query=True)
    columns = view.tokens(maps.shape[2])
    maps = maps[:, : _length(rows), : _length(columns)]
    shown = maps[: min(_MOST_HEADS, view.labels.max_panels)]
    tiles = [Tile(m, f"head {i}") for i, m in enumerate(shown)]
    if len(maps) > 1:
        tiles.insert(0, Tile(maps.mean(0), f"mean of {len(maps)} heads"))
    else:
        tiles = [Tile(maps[0])]
    if len(shown) < len(maps):
        notes = (*notes, f"showing {len(shown)} of {len(maps)} heads")
    ticks = Ticks(_named(rows, maps.shape[1]), _named(columns, maps.shape[2]), "query", "key")
    layout = mosaic.lay_out(tiles, ticks, widest=3.6 if len(tiles) == 1 else 2.6)
    finite = maps[np.isfinite(maps)]
    scale = Scale(LIGHT, 0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity, ticks=ticks
    )
    return Picture(view.title, *layout.body, draw, notes)


def _length(tokens: list[str] | None) -> int | None:
    return None if tokens is None else max(1, len(tokens))


def _named(tokens: list[str] | None, size: int) -> list[str]:
    """Returns a short label for each position."""
    if tokens is None:
        return [str(i) for i in range(size)]
    return [t if len(t) <= _LONGEST_TOKEN else t[: _LONGEST_TOKEN - 1] + "\u2026" for t in tokens]
