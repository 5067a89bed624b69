"""A vector: a column for each entry."""

from __future__ import annotations

import functools

from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether this is a vector."""
    return view.array.ndim == 1


def plan(view: View) -> Picture:
    """Plans the columns."""
    names = view.channel_names(view.array.size)
    draw = functools.partial(
        charts.draw_columns,
        values=view.array,
        axis=view.axes[0],
        title=view.quantity,
        names=names,
    )
    return Picture(view.title, charts.CHART_WIDTH, 2.2, draw)
