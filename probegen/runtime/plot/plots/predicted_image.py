"""Predictions with a value or a vector at each pixel: label maps, pictures, maps."""

from __future__ import annotations

import numpy as np

from probegen.artefact.manifest import CLASS, DRAWN_AS_PREDICTION
from probegen.runtime.axes import CHANNEL, HEIGHT, WIDTH
from probegen.runtime.plot import image
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots.map_grid import grid
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether something is predicted for each pixel."""
    pixels = view.space == {HEIGHT, WIDTH} and not view.steps and not view.others
    return view.spec.draw == DRAWN_AS_PREDICTION and pixels


def plan(view: View) -> Picture:
    """Plans what suits the channels.

    Classes (by the axis name, by class names, or by summing up to one at each pixel) become a
    label map, three channels a picture, and the rest a grid of maps.
    """
    maps = np.moveaxis(view.channels_first(HEIGHT, WIDTH)[0], 0, -1)
    channels = maps.shape[-1]
    channel = view.axis(CHANNEL)
    named = channel is not None and view.axes[channel] == CLASS
    sums = np.nansum(maps, -1)
    shares = bool(np.all(maps >= 0) and np.all(np.abs(sums - 1) < 1e-2))
    if channels > 1 and (named or shares or view.classes(channels) is not None):
        return image.label_map(view, maps)
    if channels == 3:
        return image.reconstruction(view, maps)
    return grid(view, np.moveaxis(maps, -1, 0))
