"""Parts of a score one after the other: each begins where the one above ends."""

from __future__ import annotations

import functools

import numpy as np

from probegen.runtime.plot import charts
from probegen.runtime.plot.contributions import Contributions, asked_for, contributions_of
from probegen.runtime.plot.labels import WATERFALL
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import (
    FAINT,
    INK,
    LINE,
    MUTED,
    SMALL_SIZE,
    AnyFigure,
    plain,
    signed,
    style_axes,
)
from probegen.runtime.plot.view import View

_SUM = "together"
_THICK = 0.62


def fits(view: View) -> bool:
    """Tells whether a waterfall was asked for, and the parts add up."""
    return asked_for(view, WATERFALL)


def plan(view: View) -> Picture:
    """Plans a bar a feature from where the one above ends, the largest first, and their sum."""
    parts = contributions_of(view)
    draw = functools.partial(_draw, parts=parts)
    height = charts.bars_height(len(parts.values) + 1)
    return Picture(view.title, charts.CHART_WIDTH, height, draw, (*parts.notes, parts.sum_note))


def _draw(figure: AnyFigure, parts: Contributions) -> None:
    ends = np.cumsum(parts.values)
    starts = ends - parts.values
    values = [*parts.values, parts.total]
    colours = [*charts.by_sign(parts.values, signed=True), LINE]
    ax = figure.add_subplot()
    style_axes(ax, frame=False)
    rows = np.arange(len(values))
    lefts = [*starts, 0.0]
    ax.barh(rows, values, left=lefts, height=_THICK, color=colours, linewidth=0)
    for row, end in enumerate(ends):
        ax.plot([end, end], [row + _THICK / 2, row + 1 - _THICK / 2], color=FAINT, linewidth=0.8)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    reach = (high - low) or 1.0
    for row, (left, value) in enumerate(zip(lefts, values, strict=True)):
        # Behind the end that the bar moves to, whichever way that is.
        ax.text(
            left + value + (0.01 if value >= 0 else -0.01) * reach, row, signed(value),
            ha="left" if value >= 0 else "right", va="center", fontsize=SMALL_SIZE, color=INK,
        )  # fmt: skip
    longest = max(len(signed(value)) for value in values)
    room = 0.02 * (longest + 1) * reach
    ax.set_xlim(low - room, high + room)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_yticks(rows, [plain(name, charts.NAME_LENGTH) for name in (*parts.names, _SUM)])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xlabel(plain("score, beside that of the reference"))
