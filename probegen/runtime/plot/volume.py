"""Attributions over volumes and over frames of a film."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import GRAD_CAM
from probegen.runtime.plot import features, mosaic
from probegen.runtime.plot.image import joined, overlay, to_rgb_image
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.resize import resize
from probegen.runtime.plot.style import HEAT, Scale, attribution_scale
from probegen.runtime.plot.view import CHANNEL, DEPTH, HEIGHT, SEQUENCE, WIDTH, View, axis_of

Array = npt.NDArray[Any]

_PLANES = (DEPTH, HEIGHT, WIDTH)


def slices(view: View) -> Picture:
    """Plans slices of a volume through its strongest voxel and through its middle.

    Each is there twice, the input above and the overlay below.
    """
    heat, base, scale, notes = _over_source(view, (DEPTH, HEIGHT, WIDTH))
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
    return _tiled(view, tiles, 3, scale, (*notes, "above: input, below: overlay"))


def film(view: View) -> Picture:
    """Plans evenly spread frames of a film with the attribution over them."""
    axis = next(a for a in view.axes if a in SEQUENCE)
    heat, base, scale, notes = _over_source(view, (axis, HEIGHT, WIDTH))
    strongest = int(np.argmax(np.nan_to_num(np.abs(heat)).reshape(len(heat), -1).max(1)))
    most = min(16, view.labels.max_panels)
    chosen, left_out = features.spread(len(heat), most, "frame", with_index=strongest)
    tiles = [Tile(overlay(base[i], heat[i], scale), f"{axis} {i}") for i in chosen]
    return _tiled(view, tiles, None, scale, (*left_out, *notes))


def _over_source(view: View, axes: Sequence[str]) -> tuple[Array, Array, Scale, tuple[str, ...]]:
    """Returns attribution `[a, b, c]`, input colours `[a, b, c, 3]`, the scale and notes."""
    heat, notes = joined(view, *axes)
    source = view.source
    if source is None or not set(axes) <= set(source.axes):
        base: Array = np.ones((*heat.shape, 3))
    else:
        channel = axis_of(source.axes, CHANNEL)
        order = [source.axes.index(a) for a in axes] + ([] if channel is None else [channel])
        values = np.transpose(source.array, order)
        values = values.reshape(*values.shape[:3], -1)
        flat, more = to_rgb_image(values.reshape(values.shape[0], -1, values.shape[-1]))
        base, notes = flat.reshape(*values.shape[:3], 3), (*notes, *more)
    heat = resize(heat, base.shape[:3])
    clip = view.spec.kind != GRAD_CAM
    return heat, base, attribution_scale(heat, view.signed, HEAT, clip), notes


def _tiled(
    view: View, tiles: list[Tile], columns: int | None, scale: Scale, notes: tuple[str, ...]
) -> Picture:
    layout = mosaic.lay_out(tiles, widest=2.0, columns=columns)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)
