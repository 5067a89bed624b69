"""Predictions: class scores, regression values, sequences and label maps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.runtime.plot import charts, features, image
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import LINE, AnyFigure, number, scale_of
from probegen.runtime.plot.verdict import class_name, is_distribution
from probegen.runtime.plot.view import CHANNEL, CLASS, View

Array = npt.NDArray[Any]

_TOP_CLASSES = 10
_MOST_LINES = 6
_PALE = "#9ec5dd"


def vector(view: View) -> Picture:
    """Plans class scores as the largest bars, other vectors as columns or one number."""
    values = view.array
    names = view.classes(values.size)
    if values.size == 1:
        return _single(view, float(values[0]))
    if names is not None or view.axes == (CLASS,) or is_distribution(values):
        return _top_classes(view, values, names)
    return features.units(view, values, view.axes[0])


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


def sequence(view: View, rows: Array, step_axis: str, row_axis: str) -> Picture:
    """Plans lines over time, `[line, step]`; many lines and classes become a heat map."""
    names = view.classes(len(rows)) or [f"{row_axis} {i}" for i in range(len(rows))]
    steps = steps_of(view, rows.shape[1], step_axis)
    if len(rows) > _MOST_LINES or (len(rows) > 1 and row_axis == CLASS):
        draw_map = functools.partial(
            charts.draw_map, values=rows, scale=scale_of(rows, clip=False), label=view.quantity,
            x=steps, y_title=row_axis, y_names=view.classes(len(rows)),
        )  # fmt: skip
        return Picture(view.title, charts.CHART_WIDTH, charts.map_height(len(rows)) + 0.5, draw_map)

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        charts.draw_lines(ax, steps, rows, names if len(rows) > 1 else None, title=view.quantity)
        steps.label_positions(ax, charts.CHART_WIDTH - 1)

    return Picture(view.title, charts.CHART_WIDTH, 2.3, draw)


def image_like(view: View, maps: Array) -> Picture:
    """Plans an output with one value or vector a pixel, `[height, width, channel]`.

    Classes (by the axis name, by class names, or by summing up to one at each pixel) become a
    label map, three channels a picture, and the rest a grid of maps.
    """
    channels = maps.shape[-1]
    channel = view.axis(CHANNEL)
    named = channel is not None and view.axes[channel] == CLASS
    sums = np.nansum(maps, -1)
    shares = bool(np.all(maps >= 0) and np.all(np.abs(sums - 1) < 1e-2))
    if channels > 1 and (named or shares or view.classes(channels) is not None):
        return image.label_map(view, maps)
    if channels == 3:
        return image.reconstruction(view, maps)
    return features.grid(view, np.moveaxis(maps, -1, 0))
