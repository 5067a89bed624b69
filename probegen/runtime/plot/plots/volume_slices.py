"""Attributions of volumes: slices through the strongest voxel and through the middle."""

from __future__ import annotations

import numpy as np

from probegen.runtime.axes import DEPTH, HEIGHT, WIDTH
from probegen.runtime.plot.image import overlay
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.stack import over_source, tiled
from probegen.runtime.plot.view import View

_PLANES = (DEPTH, HEIGHT, WIDTH)


def fits(view: View) -> bool:
    """Tells whether this is an attribution to a volume."""
    volume = view.space == set(_PLANES) and not view.steps and not view.others
    return view.spec.is_attribution and volume


def plan(view: View) -> Picture:
    """Plans slices of a volume through its strongest voxel and through its middle.

    Each is there twice, the input above and the overlay below.
    """
    heat, base, scale, notes = over_source(view, (DEPTH, HEIGHT, WIDTH))
    middle = tuple(n // 2 for n in heat.shape)
    size = np.nan_to_num(np.abs(heat))
    peak = tuple(int(i) for i in np.unravel_index(int(np.argmax(size)), size.shape))
    places = {"strongest": peak, "middle": middle} if size.any() else {"middle": middle}
    tiles: list[Tile] = []
    for what, place in places.items():
        cuts = [(*([slice(None)] * axis), at) for axis, at in enumerate(place)]
        names = [
            f"{plane} {at + 1}/{n}, {what}"
            for plane, at, n in zip(_PLANES, place, heat.shape, strict=True)
        ]
        tiles += [Tile(base[c], n) for c, n in zip(cuts, names, strict=True)]
        tiles += [
            Tile(overlay(base[c], heat[c], scale), n) for c, n in zip(cuts, names, strict=True)
        ]
    return tiled(view, tiles, 3, scale, (*notes, "above: input, below: overlay"))
