"""The plain charts that several families share: bars, columns, lines and a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from probegen.runtime.plot import thinning
from probegen.runtime.plot.steps import Steps
from probegen.runtime.plot.style import (
    CATEGORIES,
    INK,
    LINE,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL_SIZE,
    UNSIGNED,
    AnyFigure,
    Scale,
    colour_bar,
    marker_of,
    number,
    plain,
    style_axes,
)

Array = npt.NDArray[Any]

#: Width in inches that charts are planned for.
CHART_WIDTH = 6.4
NAME_LENGTH = 32
#: From here on, single columns are drawn as lines.
_MANY = 64


def bars_height(count: int) -> float:
    """Returns the height in inches of a chart of `count` horizontal bars."""
    return 0.55 + 0.21 * max(1, count)


def draw_bars(
    figure: AnyFigure,
    values: Sequence[float] | Array,
    names: Sequence[str],
    *,
    title: str,
    colours: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    written: Callable[[float], str] = number,
) -> None:
    """Draws horizontal bars from top to bottom, each with its value at its end.

    Args:
        figure: an empty figure.
        values: one a bar.
        names: one a bar.
        title: what is measured.
        colours: one a bar; by default by sign.
        limits: ends of the axis, for instance `(0, 1)` for probabilities.
        written: how a value is written at the end of its bar.
    """
    lengths = np.nan_to_num(np.asarray(values, np.float64), posinf=0.0, neginf=0.0)
    colours = colours or by_sign(lengths, bool(np.any(lengths < 0)))
    ax = figure.add_subplot()
    style_axes(ax, frame=False)
    rows = np.arange(len(lengths))
    ax.barh(rows, lengths, height=0.72, color=list(colours), linewidth=0)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    low, high = limits or (min(0.0, float(lengths.min())), max(0.0, float(lengths.max())))
    reach = (high - low) or 1.0
    texts = [written(float(value)) for value in np.asarray(values, np.float64)]
    for row, text in enumerate(texts):
        right = lengths[row] >= 0
        ax.text(
            lengths[row] + (0.01 if right else -0.01) * reach, row, text,
            ha="left" if right else "right", va="center", fontsize=SMALL_SIZE, color=INK,
        )  # fmt: skip
    # Room for what is written at the ends, so that it meets neither names nor frame.
    before = max((len(t) for t, n in zip(texts, lengths, strict=True) if n < 0), default=-2)
    after = max((len(t) for t, n in zip(texts, lengths, strict=True) if n >= 0), default=-2)
    ax.set_xlim(low - 0.018 * (before + 2) * reach, high + 0.018 * (after + 2) * reach)
    ax.set_ylim(len(lengths) - 0.4, -0.6)
    ax.set_yticks(rows, [plain(name, NAME_LENGTH) for name in names])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xlabel(plain(title))


def by_sign(values: Array, signed: bool) -> list[str]:
    """Returns red for positive and blue for negative values, one hue where sign means nothing."""
    if not signed:
        return [UNSIGNED] * len(values)
    return [POSITIVE if value >= 0 else NEGATIVE for value in values]


def draw_columns(
    figure: AnyFigure, values: Array, *, axis: str, title: str, names: Sequence[str] | None = None
) -> None:
    """Draws a vector as columns, by their index; hundreds of them as thin lines."""
    ax = figure.add_subplot()
    style_axes(ax, frame=False)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    signed = bool(np.any(values < 0))
    size = len(values)
    where = np.arange(size)
    if size > thinning.MOST:
        values, where = thinning.strongest(values, 0), thinning.edges(size)[:-1]
    colours = by_sign(values, signed) if signed else [LINE] * len(values)
    if len(values) > _MANY:
        ax.vlines(where, 0, values, colors=colours, linewidth=max(0.5, 350 / len(values)))
    else:
        ax.bar(where, values, width=0.8, color=colours, linewidth=0)
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.set_xlim(-0.7, size - 0.3)
    if names is not None and len(values) <= _MANY:
        upright = max(map(len, names)) * 0.07 < CHART_WIDTH / len(values)
        labels = [plain(name, 16) for name in names]
        ax.set_xticks(where, labels, rotation=0 if upright else 90)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.set_xlabel(plain(axis))
    ax.set_ylabel(plain(title))


def draw_lines(
    ax: Axes,
    steps: Steps,
    rows: Array,
    names: Sequence[str] | None,
    *,
    title: str,
    dashed: Array | None = None,
    dashed_name: str = "",
) -> None:
    """Draws the lines `[line, step]` over a sequence, with a legend where they have names.

    Args:
        ax: the axes.
        steps: of the sequence.
        rows: the lines.
        names: of the lines, or None.
        title: what is measured.
        dashed: a second line beside each, `[line, step]`, drawn with dashes.
        dashed_name: what the second lines are.
    """
    style_axes(ax, frame=False)
    marker = marker_of(rows.shape[1])
    for i, row in enumerate(rows):
        ax.plot(
            steps.positions, row, color=CATEGORIES[i % len(CATEGORIES)], linewidth=1.3,
            marker=marker, markersize=2.5, linestyle=("-", "--", ":")[i // len(CATEGORIES) % 3],
            label=None if names is None else plain(names[i], 24),
        )  # fmt: skip
    for i, row in enumerate(() if dashed is None else dashed):
        ax.plot(
            steps.positions, row, color=CATEGORIES[i % len(CATEGORIES)], linewidth=1.1,
            linestyle=(0, (1.5, 1.5)), label=dashed_name if i == 0 else None,
        )  # fmt: skip
    ax.set_ylabel(plain(title))
    ax.margins(x=0.01)
    if names is not None:
        ax.legend(
            fontsize=SMALL_SIZE, frameon=False, labelcolor=INK, loc="upper left",
            bbox_to_anchor=(1.0, 1.02), borderaxespad=0.3, handlelength=1.6,
        )  # fmt: skip


def map_height(rows: int) -> float:
    """Returns the height in inches of a heat map of `rows` rows."""
    return min(4.2, max(1.5, 0.8 + 0.11 * rows))


def draw_map(
    figure: AnyFigure,
    values: Array,
    scale: Scale,
    *,
    label: str,
    x: Steps,
    y_title: str,
    y_names: Sequence[str] | None = None,
) -> None:
    """Draws a matrix `[row, step]` as a heat map that fills its panel."""
    ax = figure.add_subplot()
    style_axes(ax)
    rows, columns = values.shape
    shown = thinning.strongest(thinning.strongest(values, 0), 1)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    ax.imshow(shown, aspect="auto", interpolation="nearest", extent=extent, **scale.keywords)
    x.label_indices(ax, CHART_WIDTH - 1.4)
    ax.set_ylabel(plain(y_title))
    if y_names is not None and len(y_names) <= 30:
        ax.set_yticks(range(len(y_names)), [plain(name, 20) for name in y_names])
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    colour_bar(ax, scale, label, span=CHART_WIDTH - 1.4)


def draw_text(text: str) -> Callable[[AnyFigure], None]:
    """Returns what draws one large line of text, such as a single number."""

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        ax.axis("off")
        ax.text(0.0, 0.5, plain(text, 60), fontsize=18, color=LINE, va="center")

    return draw
