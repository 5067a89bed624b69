"""Volumes of channels: of each the slice through its strongest voxel."""

from __future__ import annotations

import numpy as np

from probegen.runtime.axes import DEPTH, HEIGHT, WIDTH
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots.map_grid import grid
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether these are volumes, or one volume, and nothing else."""
    return view.space == {DEPTH, HEIGHT, WIDTH} and not view.steps and not view.others


def plan(view: View) -> Picture:
    """Plans a grid of slices of volumes through each one's strongest voxel."""
    maps, what = view.channels_first(DEPTH, HEIGHT, WIDTH)
    size = np.nan_to_num(np.abs(maps)).max((2, 3))
    at = np.argmax(size, axis=1)
    note = f"of each {what} the slice along depth with its strongest voxel, of {maps.shape[1]}"
    return grid(view, maps[np.arange(len(maps)), at], what, (note,))
