"""Outputs without a single number in them."""

from __future__ import annotations

from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether there is nothing to draw."""
    return view.array.size == 0


def plan(view: View) -> Picture:
    """Plans a line that says so."""
    return Picture(view.title, charts.CHART_WIDTH, 0.5, charts.draw_text("empty"))
