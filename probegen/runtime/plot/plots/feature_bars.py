"""Attributions of tabular features: bars sorted by magnitude."""

from __future__ import annotations

import functools

from probegen.runtime.plot import charts
from probegen.runtime.plot.contributions import contributions_of, is_vector
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether this is an attribution to the features of a vector."""
    return is_vector(view)


def plan(view: View) -> Picture:
    """Plans one bar a feature, the largest first, named with the feature's value."""
    parts = contributions_of(view)
    draw = functools.partial(
        charts.draw_bars, values=parts.values, names=parts.names,
        title=parts.label, colours=charts.by_sign(parts.values, parts.signed),
    )  # fmt: skip
    height = charts.bars_height(len(parts.values))
    return Picture(view.title, charts.CHART_WIDTH, height, draw, parts.notes)
