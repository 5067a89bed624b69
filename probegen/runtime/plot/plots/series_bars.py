"""Time series with the attribution beneath, on one time axis."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from probegen.runtime.axes import SEQUENCE, axis_of
from probegen.runtime.plot import charts, horizon, thinning
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import Steps, steps_of
from probegen.runtime.plot.style import (
    LABEL_SIZE,
    LINE,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL_SIZE,
    UNSIGNED,
    AnyFigure,
    plain,
    style_axes,
)
from probegen.runtime.plot.view import View
from probegen.runtime.resize import resize

Array = npt.NDArray[Any]

_MOST_FEATURES = 5
_LINE_HEIGHT = 1.15
#: Characters that fit beside the bars, in each of two lines, and in one of the usual size.
_LONGEST_LABEL, _USUAL_LABEL = 13, 11
#: Those that fit beside a line.
_LONGEST_NAME = 16
_BAR_HEIGHT = 0.75


def fits(view: View) -> bool:
    """Tells whether this is an attribution to the steps of a series."""
    return view.spec.is_attribution and view.is_sequence and has_series(view)


def has_series(view: View) -> bool:
    """Tells whether there is a series to draw along."""
    source = view.source
    return bool(
        source is not None and not source.is_text and source.length and source.array.ndim <= 2
    )


def plan(view: View) -> Picture:
    """Plans each feature's line with its attribution as bars beneath.

    Takes attributions `[time, feature]` or `[time]` of an input `[time, feature]` or `[time]`.
    Where the attribution has no feature axis, its bars stand once, beneath all lines. An
    attribution of another length (Grad-CAM behind a stride) is brought to the input's.
    """
    source = view.source
    assert source is not None  # as `fits` says
    lines = features_first(source.array, source.axes)
    heat = features_first(view.array, view.axes)
    notes: tuple[str, ...] = ()
    if heat.shape[1] != lines.shape[1]:
        notes = (f"{heat.shape[1]} steps brought to the input's {lines.shape[1]}",)
        heat = resize(heat.T, (lines.shape[1],)).T
    padded = view.padding(heat.shape[1])
    if padded is not None:
        heat = np.where(padded, 0.0, heat)
        count = np.count_nonzero(padded)
        notes = (*notes, f"{count} of {len(padded)} steps are padding, without bars")
    names = view.features_of(source, len(lines))
    steps = steps_of(view, lines.shape[1], view.axes[view.axis(SEQUENCE) or 0])
    forecasts = horizon.ahead(view, steps)
    order = list(range(len(lines)))
    if len(heat) == len(lines):
        order = list(np.argsort(-np.nansum(np.abs(heat), 1), kind="stable"))
        order.sort(key=lambda place: place not in forecasts)
    elif len(heat) > 1:
        heat, notes = heat.sum(0, keepdims=True), (*notes, f"sum over {len(heat)} channels")
    kept = sorted(order[:_MOST_FEATURES])
    if len(kept) < len(lines):
        which = " with the largest attributions" if len(heat) == len(lines) else ""
        notes = (*notes, f"showing {len(kept)} of {len(lines)} features{which}")
    paired = len(heat) == len(lines)
    bars = heat[kept] if paired else heat
    ahead = [forecasts.get(place) for place in kept]

    def draw(figure: AnyFigure) -> None:
        kept_names = [names[i] for i in kept]
        _draw(
            figure, lines[kept], bars,
            names=kept_names, steps=steps, label=view.quantity, signed=view.signed, ahead=ahead,
        )  # fmt: skip

    height = len(kept) * _LINE_HEIGHT + len(bars) * _BAR_HEIGHT + 0.45
    height += 0.2 if any(one is not None for one in ahead) else 0.0
    return Picture(view.title, charts.CHART_WIDTH, height, draw, notes)


def features_first(array: Array, axes: tuple[str, ...]) -> Array:
    """Returns an array of those axes as `[feature, time]`."""
    time = axis_of(axes, SEQUENCE) or 0
    moved = np.moveaxis(np.asarray(array, np.float64), time, -1)
    return moved.reshape(-1, moved.shape[-1])


def _draw(
    figure: AnyFigure,
    lines: Array,
    bars: Array,
    *,
    names: list[str],
    steps: Steps,
    label: str,
    signed: bool,
    ahead: Sequence[horizon.Ahead | None],
) -> None:
    paired = len(bars) == len(lines)
    ratios = (
        [_LINE_HEIGHT, _BAR_HEIGHT] * len(lines)
        if paired
        else [_LINE_HEIGHT] * len(lines) + [_BAR_HEIGHT]
    )
    axes = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    limit = float(np.nanmax(np.abs(bars), initial=0.0)) or 1.0
    for i, (line, name) in enumerate(zip(lines, names, strict=True)):
        ax = axes[2 * i if paired else i]
        style_axes(ax, frame=False)
        draw_past(ax, steps, line, ahead[i])
        ax.set_ylabel(plain(name, _LONGEST_NAME))
    if any(one is not None for one in ahead):
        first = next(i for i, one in enumerate(ahead) if one is not None)
        horizon.legend(axes[2 * first if paired else first])
    for i, row in enumerate(bars):
        _draw_bars(axes[2 * i + 1 if paired else -1], steps, row, limit, signed)
        _label_bars(axes[2 * i + 1 if paired else -1], label)
    ends = np.concatenate([steps.positions, *(one.positions for one in ahead if one is not None)])
    axes[-1].set_xlim(ends.min() - 0.6 * steps.width, ends.max() + 0.6 * steps.width)
    named = horizon.named_steps(steps, (one for one in ahead if one is not None))
    named.label_positions(axes[-1], charts.CHART_WIDTH - 1)
    figure.align_ylabels(list(axes))


def _label_bars(ax: Axes, label: str) -> None:
    """Writes a label in the two lines that fit beside bars, smaller where one is long."""
    whole = plain(label, 2 * _LONGEST_LABEL)
    lines = textwrap.wrap(whole, _LONGEST_LABEL, max_lines=2, break_long_words=False)
    usual = max(map(len, lines), default=0) <= _USUAL_LABEL
    ax.set_ylabel("\n".join(lines), fontsize=LABEL_SIZE if usual else SMALL_SIZE)


def draw_past(ax: Axes, steps: Steps, line: Array, ahead: horizon.Ahead | None) -> None:
    """Draws a feature of a series, and the forecast of it where there is one."""
    label = "past" if ahead is not None else None
    ax.plot(steps.positions, line, color=LINE, linewidth=1.2, label=label)
    if ahead is not None:
        ahead.draw(ax)


def _draw_extremes(ax: Axes, positions: Array, heights: Array, signed: bool) -> None:
    """Draws the largest and the smallest of the bars that share a column of pixels."""
    edges = thinning.edges(len(heights))
    ends = np.append(positions, positions[-1] + (positions[-1] - positions[-2]))[edges]
    top, bottom = thinning.extremes(heights)
    positive, negative = np.maximum(top, 0), np.minimum(bottom, 0)
    colour = POSITIVE if signed else UNSIGNED
    ax.stairs(positive, ends, fill=True, color=colour, linewidth=0.6)
    ax.stairs(negative, ends, fill=True, color=NEGATIVE, linewidth=0.6)


def _draw_bars(ax: Axes, steps: Steps, row: Array, limit: float, signed: bool) -> None:
    style_axes(ax, frame=False)
    heights = np.nan_to_num(row)
    if len(heights) > thinning.MOST:
        _draw_extremes(ax, steps.positions, heights, signed)
    else:
        colours = charts.by_sign(heights, signed)
        ax.bar(steps.positions, heights, width=0.9 * steps.width, color=colours, linewidth=0)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    low = -1.08 * limit if np.any(heights < 0) else 0.0
    ax.set_ylim(low, 1.08 * limit)
    ax.yaxis.set_major_locator(MaxNLocator(3))
