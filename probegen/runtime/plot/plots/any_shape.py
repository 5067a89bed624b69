"""Whatever its axes are: a number, columns, a heat map, or a grid of maps."""

from __future__ import annotations

import numpy as np

from probegen.runtime.axes import CHANNEL
from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import channels_over_time, unit_columns
from probegen.runtime.plot.plots.map_grid import grid
from probegen.runtime.plot.style import number
from probegen.runtime.plot.view import View


def fits(_: View) -> bool:
    """Tells that anything can be drawn so."""
    return True


def plan(view: View) -> Picture:
    """Plans a picture for any rank: a number, columns, a heat map, or a grid of maps."""
    array, axes = view.array, view.axes
    if array.ndim == 0:
        text_of = charts.draw_text(number(float(array)))
        return Picture(view.title, charts.CHART_WIDTH, 0.5, text_of)
    if array.ndim == 1:
        return unit_columns.plan(view)
    if array.ndim == 2:
        return channels_over_time.rows_over_steps(view, array, axes[0], axes[1])
    if axes[-1] in CHANNEL:
        array, axes = np.moveaxis(array, -1, 0), (axes[-1], *axes[:-1])
    maps = array.reshape(-1, *array.shape[-2:])
    note = f"one map of {axes[-2]} (down) and {axes[-1]} (across) for each {', '.join(axes[:-2])}"
    return grid(view, maps, "map", (note,))
