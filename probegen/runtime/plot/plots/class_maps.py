"""Attributions of several classes over an image: the input, then an overlay a class."""

from __future__ import annotations

import functools

import numpy as np

from probegen.runtime.axes import HEIGHT, WIDTH
from probegen.runtime.plot import class_panels, mosaic
from probegen.runtime.plot.image import joined, overlay, shown_image
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import image_map
from probegen.runtime.plot.style import HEAT, attribution_scale
from probegen.runtime.plot.thinning import spread
from probegen.runtime.plot.view import View
from probegen.runtime.resize import over_picture

_WIDEST = 2.0


def fits(view: View) -> bool:
    """Tells whether these are attributions of several classes to an image."""
    return class_panels.fits(view) and image_map.fits(class_panels.views(view)[0][1])


def plan(view: View) -> Picture:
    """Plans a panel a class, all on one scale, so that classes can be compared."""
    every = class_panels.views(view)
    chosen, notes = spread(len(every), view.labels.max_panels, view.axes[0])
    joint = [joined(one, HEIGHT, WIDTH) for _, one in every]
    maps, remarks = [heat for heat, _ in joint], joint[0][1]
    base, base_notes = shown_image(view)
    size = base.shape[:2] if base is not None else maps[0].shape
    if maps[0].shape != size:
        height, width = maps[0].shape
        remarks += (f"{height}\u00d7{width} maps brought to the input's size",)
    heats = np.stack([over_picture(heat, size, view.preprocessing) for heat in maps])
    scale = attribution_scale(
        heats, view.signed, HEAT, heats.shape[1:] == maps[0].shape, view.has_zero
    )
    tiles = [] if base is None else [Tile(base, "input")]
    for i in chosen:
        shown = heats[i] if base is None else overlay(base, heats[i], scale)
        tiles.append(Tile(shown, every[i][0]))
    layout = mosaic.lay_out(tiles, widest=_WIDEST)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, (*notes, *remarks, *base_notes))
