"""Attributions of films: frames with the attribution over them."""

from __future__ import annotations

import numpy as np

from probegen.runtime.axes import HEIGHT, SEQUENCE, WIDTH
from probegen.runtime.plot.image import overlay
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.stack import over_source, tiled
from probegen.runtime.plot.thinning import spread
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether this is an attribution to a film."""
    film = view.space == {HEIGHT, WIDTH} and view.steps and not view.others
    return view.spec.is_attribution and film


def plan(view: View) -> Picture:
    """Plans evenly spread frames of a film with the attribution over them."""
    axis = next(a for a in view.axes if a in SEQUENCE)
    heat, base, scale, notes = over_source(view, (axis, HEIGHT, WIDTH))
    strongest = int(np.argmax(np.nan_to_num(np.abs(heat)).reshape(len(heat), -1).max(1)))
    most = min(16, view.labels.max_panels)
    chosen, left_out = spread(len(heat), most, "frame", with_index=strongest)
    tiles = [Tile(overlay(base[i], heat[i], scale), f"{axis} {i}") for i in chosen]
    return tiled(view, tiles, None, scale, (*left_out, *notes))
