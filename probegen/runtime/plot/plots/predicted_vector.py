"""Predicted vectors: class scores as bars, other numbers as columns or as one number."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASS, DRAWN_AS_PREDICTION
from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import unit_columns
from probegen.runtime.plot.style import LINE, number
from probegen.runtime.plot.verdict import class_name, is_distribution
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]

_TOP_CLASSES = 10
_PALE = "#9ec5dd"


def fits(view: View) -> bool:
    """Tells whether this is a predicted vector."""
    return view.spec.draw == DRAWN_AS_PREDICTION and view.array.ndim == 1


def plan(view: View) -> Picture:
    """Plans class scores as the largest bars, other vectors as columns or one number."""
    values = view.array
    names = view.classes(values.size)
    if values.size == 1:
        return _single(view, float(values[0]))
    if names is not None or view.axes == (CLASS,) or is_distribution(values):
        return _top_classes(view, values, names)
    return unit_columns.plan(view)


def _single(view: View, value: float) -> Picture:
    names = view.classes(2)
    if names is not None and 0 <= value <= 1:
        return _top_classes(view, np.array([1 - value, value]), names)
    return Picture(view.title, charts.CHART_WIDTH, 0.5, charts.draw_text(number(value)))


def _top_classes(view: View, values: Array, names: list[str] | None) -> Picture:
    count = min(_TOP_CLASSES, view.labels.top, values.size)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:count]
    probable = is_distribution(values)
    notes: tuple[str, ...] = ()
    if count < values.size:
        notes = (f"showing the {count} highest of {values.size} classes",)
    draw = functools.partial(
        charts.draw_bars, values=values[order], names=[class_name(int(i), names) for i in order],
        title="probability" if probable else "score", colours=[LINE] + [_PALE] * (count - 1),
        limits=(0.0, 1.0) if probable else None,
        written=_probability if probable else number,
    )  # fmt: skip
    return Picture(view.title, charts.CHART_WIDTH, charts.bars_height(count), draw, notes)


def _probability(value: float) -> str:
    return "< 0.001" if 0 < value < 0.0005 else f"{value:.3f}"
