"""Maps of channels, or of whatever they are one of: a near-square grid on one scale."""

from __future__ import annotations

import functools
from typing import Any

import numpy.typing as npt

from probegen.runtime.axes import CHANNEL, HEIGHT, WIDTH
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import scale_of
from probegen.runtime.plot.view import View
from probegen.text import plural

Array = npt.NDArray[Any]


def fits(view: View) -> bool:
    """Tells whether these are maps, or one map, and nothing else."""
    return view.space == {HEIGHT, WIDTH} and not view.steps and not view.others


def plan(view: View) -> Picture:
    """Plans a map for each channel."""
    maps, what = view.channels_first(HEIGHT, WIDTH)
    return grid(view, maps, what)


def grid(view: View, maps: Array, what: str = "channel", notes: tuple[str, ...] = ()) -> Picture:
    """Plans a near-square grid of maps on one scale.

    Args:
        view: where they come from.
        maps: `[map, height, width]`, any number of them.
        what: what a map is one of.
        notes: what else a reader must know.
    """
    shown = maps[: view.labels.max_panels]
    if len(shown) < len(maps):
        notes = (f"showing {len(shown)} of {len(maps)} {plural(what)}", *notes)
    numbers = view.channels(len(maps))[: len(shown)] if what in CHANNEL else range(len(shown))
    captions = [f"{what} {i}" if len(shown) <= 16 else str(i) for i in numbers]
    single = len(maps) == 1
    tiles = [Tile(m, "" if single else c) for m, c in zip(shown, captions, strict=True)]
    scale = scale_of(shown)
    layout = mosaic.lay_out(tiles, widest=3.2 if single else 2.2)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)
