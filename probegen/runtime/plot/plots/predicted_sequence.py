"""Predicted sequences: lines over the steps, or a heat map where there are many."""

from __future__ import annotations

import functools

import numpy as np

from probegen.artefact.manifest import CLASS, DRAWN_AS_PREDICTION
from probegen.runtime.axes import SEQUENCE
from probegen.runtime.plot import charts
from probegen.runtime.plot.horizon import truth_of
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import AnyFigure, scale_of
from probegen.runtime.plot.view import View

_MOST_LINES = 6
_NO_TRUTH = "truth= is drawn beside lines, and not beside a map"


def fits(view: View) -> bool:
    """Tells whether this is a predicted sequence of numbers or vectors."""
    return view.spec.draw == DRAWN_AS_PREDICTION and view.is_sequence


def plan(view: View) -> Picture:
    """Plans lines over time; many lines and classes become a heat map."""
    time = view.axis(SEQUENCE) or 0
    rows = np.moveaxis(view.array, time, -1).reshape(-1, view.array.shape[time])
    row_axis = next((a for i, a in enumerate(view.axes) if i != time), "value")
    names = view.classes(len(rows)) or [f"{row_axis} {i}" for i in range(len(rows))]
    steps = steps_of(view, rows.shape[1], view.axes[time])
    truth = truth_of(view, view.spec, view.array.shape)
    if len(rows) > _MOST_LINES or (len(rows) > 1 and row_axis == CLASS):
        draw_map = functools.partial(
            charts.draw_map, values=rows, scale=scale_of(rows, clip=False), label=view.quantity,
            x=steps, y_title=row_axis, y_names=view.classes(len(rows)),
        )  # fmt: skip
        height = charts.map_height(len(rows)) + 0.5
        notes = () if truth is None else (_NO_TRUTH,)
        return Picture(view.title, charts.CHART_WIDTH, height, draw_map, notes)

    true_rows = None if truth is None else np.moveaxis(truth, time, -1).reshape(rows.shape)

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        labelled = names if len(rows) > 1 else None if truth is None else ["predicted"]
        charts.draw_lines(
            ax, steps, rows, labelled, title=view.quantity, dashed=true_rows, dashed_name="true"
        )
        steps.label_positions(ax, charts.CHART_WIDTH - 1)

    return Picture(view.title, charts.CHART_WIDTH, 2.3, draw)
