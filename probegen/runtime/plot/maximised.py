"""The picture of an input that was searched for, above the score on the way to it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import DRAWN_AS_ACTIVATION, OutputSpec
from probegen.runtime.axes import FEATURES
from probegen.runtime.plot import charts
from probegen.runtime.plot.choose import picture_of
from probegen.runtime.plot.contributions import by_magnitude, not_all
from probegen.runtime.plot.image import draw_panels, panels_size, pixels, to_rgb_image
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import Steps
from probegen.runtime.plot.style import AnyFigure, number
from probegen.runtime.plot.view import InputSample, View

Array = npt.NDArray[Any]

TITLE = "Maximised input"
_HISTORY_HEIGHT = 1.9
#: Channels of what is shown as one picture.
_COLOURS = (1, 3)


def pictures(view: View, history: Array | None) -> list[Picture]:
    """Plans the input found, and the score where it is known.

    Args:
        view: of the gradient that was followed; its source is the input found.
        history: the score at each step, `[step]`.
    """
    source = view.source
    assert source is not None  # the gradient is of an input
    words = [f"{TITLE}: {source.spec.name}", view.verdict]
    title = " \u2014 ".join(part for part in words if part)
    found = dataclasses.replace(_input(view, source), title=title)
    if history is None:
        return [found]
    note = f"the prediction, {number(history[0])} at first and {number(history[-1])} at last"
    if view.spec.target is not None and view.spec.target.logits:
        note += "; the ascent is on the score before softmax or sigmoid, if there is one"
    return [found, _line(history, note)]


def _input(view: View, source: InputSample) -> Picture:
    """Plans the input itself."""
    values = source.array.astype(np.float64)
    ends = f"values from {number(float(values.min()))} to {number(float(values.max()))}"
    if source.is_image and pixels(source).shape[-1] in _COLOURS:
        shown, _ = to_rgb_image(pixels(source))
        panels = [("found", shown)]
        width, height = panels_size(panels)
        draw = functools.partial(draw_panels, panels=panels)
        return Picture("", width * 1.4, height * 1.4, draw, (ends,))
    if len(source.axes) == 1 and source.axes[0] in FEATURES:
        order = by_magnitude(values)[: view.labels.top]
        names = view.features(len(values))
        notes: tuple[str, ...] = (ends,)
        if len(order) < len(values):
            notes = (not_all(len(order), len(values)), ends)
        draw_bars = functools.partial(
            charts.draw_bars, values=values[order], names=[names[i] for i in order], title="value"
        )
        return Picture("", charts.CHART_WIDTH, charts.bars_height(len(order)), draw_bars, notes)
    spec = OutputSpec(
        source.spec.name, source.spec.name, "float64", values.shape, source.axes,
        title=TITLE, draw=DRAWN_AS_ACTIVATION,
    )  # fmt: skip
    plain = dataclasses.replace(view, spec=spec, array=values, axes=source.axes)
    drawn = picture_of(plain)
    return dataclasses.replace(drawn, notes=(*drawn.notes, ends))


def _line(history: Array, note: str) -> Picture:
    steps = Steps(np.arange(len(history), dtype=np.float64), None, False, "step")

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        charts.draw_lines(ax, steps, history[np.newaxis], None, title="score")
        steps.label_positions(ax, charts.CHART_WIDTH - 1)

    return Picture("", charts.CHART_WIDTH, _HISTORY_HEIGHT, draw, (note,))
