"""Channels over the steps of a sequence: a heat map, or a line where there is one channel."""

from __future__ import annotations

import functools
from typing import Any

import numpy.typing as npt

from probegen.runtime.axes import CHANNEL
from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import line_over_time
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import scale_of
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]


def fits(view: View) -> bool:
    """Tells whether these are channels over time and nothing else."""
    has_channels = view.axis(CHANNEL) is not None
    return has_channels and view.steps and not view.space and not view.others


def plan(view: View) -> Picture:
    """Plans a row for each channel."""
    matrix, what = view.channels_first(view.sequence_axis)
    return rows_over_steps(view, matrix, what, view.sequence_axis)


def rows_over_steps(view: View, matrix: Array, rows: str, steps: str) -> Picture:
    """Plans a heat map of the channels over the steps of a sequence.

    Args:
        view: where it comes from.
        matrix: `[channel, step]`.
        rows: name of the channel axis.
        steps: name of the step axis.
    """
    axis = steps_of(view, matrix.shape[1], steps)
    if len(matrix) == 1:
        return line_over_time.line(view, matrix[0], steps)
    draw = functools.partial(
        charts.draw_map, values=matrix, scale=scale_of(matrix), label=view.quantity, x=axis,
        y_title=rows,
        y_names=view.channel_names(len(matrix)),
    )  # fmt: skip
    height = charts.map_height(len(matrix)) + 0.5 + axis.below
    return Picture(view.title, charts.CHART_WIDTH, height, draw)
