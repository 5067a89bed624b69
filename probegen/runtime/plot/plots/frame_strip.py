"""Maps over time: a film strip, the mean over the channels."""

from __future__ import annotations

import functools

from probegen.runtime.axes import HEIGHT, WIDTH
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import scale_of
from probegen.runtime.plot.thinning import spread
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether these are maps over time and nothing else."""
    return view.space == {HEIGHT, WIDTH} and view.steps and not view.others


def plan(view: View) -> Picture:
    """Plans evenly spread frames."""
    what = view.sequence_axis
    maps = view.channels_first(what, HEIGHT, WIDTH)[0].mean(0)
    chosen, notes = spread(len(maps), min(16, view.labels.max_panels), what)
    tiles = [Tile(maps[i], f"{what} {i}") for i in chosen]
    layout = mosaic.lay_out(tiles, widest=1.8)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale_of(maps), label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)
