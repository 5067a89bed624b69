"""One number at each step of a sequence: a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import AnyFigure
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]


def fits(view: View) -> bool:
    """Tells whether there is a sequence axis alone."""
    return view.array.ndim == 1 and view.steps


def plan(view: View) -> Picture:
    """Plans the line."""
    return line(view, view.array, view.axes[0])


def line(view: View, row: Array, steps: str) -> Picture:
    """Plans a line over the steps of a sequence, `[step]`."""
    axis = steps_of(view, len(row), steps)

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        charts.draw_lines(ax, axis, row[np.newaxis], None, title=view.quantity)
        axis.label_positions(ax, charts.CHART_WIDTH - 1)

    return Picture(view.title, charts.CHART_WIDTH, 2.2, draw)
