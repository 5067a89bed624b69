"""Attributions over stacks of pictures: the slices of a volume, the frames of a film."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.runtime.axes import CHANNEL, axis_of
from probegen.runtime.plot import mosaic
from probegen.runtime.plot.image import joined, to_rgb_image
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import HEAT, Scale, attribution_scale
from probegen.runtime.plot.view import View
from probegen.runtime.resize import resize

Array = npt.NDArray[Any]


def over_source(view: View, axes: Sequence[str]) -> tuple[Array, Array, Scale, tuple[str, ...]]:
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
    clip = heat.shape == base.shape[:3]  # what is brought to a size is smooth
    heat = resize(heat, base.shape[:3])
    return heat, base, attribution_scale(heat, view.signed, HEAT, clip, view.has_zero), notes


def tiled(
    view: View, tiles: list[Tile], columns: int | None, scale: Scale, notes: tuple[str, ...]
) -> Picture:
    """Plans tiles on one scale."""
    layout = mosaic.lay_out(tiles, widest=2.0, columns=columns)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)
