"""Parts of a score in one line: what is for the target pushes against what is against it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from probegen.runtime.plot import charts
from probegen.runtime.plot.contributions import Contributions, asked_for, contributions_of
from probegen.runtime.plot.labels import FORCE
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import (
    FAINT,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL_SIZE,
    AnyFigure,
    number,
    plain,
    signed,
    style_axes,
)
from probegen.runtime.plot.view import View

#: How many parts of each sign are named.
_NAMED = 5
#: Inches: of the arrows and the axis; of a line of names; of the axis; of a letter.
_HEIGHT, _LINE, _AXIS, _CHARACTER = 2.1, 0.17, 5.9, 0.058
#: A line of names, where an arrow is 1 high; what is left free at the ends, of the whole.
_STEP, _MARGIN = 0.42, 0.04


def fits(view: View) -> bool:
    """Tells whether a line of forces was asked for, and the parts add up."""
    return asked_for(view, FORCE)


def plan(view: View) -> Picture:
    """Plans two rows of arrows that meet at the sum: from the left for, from the right against."""
    parts = contributions_of(view)
    sides = [_side(parts, sign) for sign in (1, -1)]
    unnamed = sum(max(0, len(side) - _NAMED) for side in sides)
    notes = parts.notes
    if unnamed:
        notes = (*notes, f"{unnamed} smaller parts are drawn without their names")
    labels = _labels(parts)
    draw = functools.partial(_draw, parts=parts, labels=labels)
    height = _HEIGHT + _LINE * (1 + max((label.line for label in labels), default=0))
    return Picture(view.title, charts.CHART_WIDTH, height, draw, (*notes, parts.sum_note))


@dataclasses.dataclass(frozen=True)
class _Label:
    """The name of a part below its arrow.

    Attributes:
        part: which.
        at: the middle of its arrow, on the axis of the score.
        edge: where its text ends (for) or begins (against), on the same axis.
        line: how many lines it is below the first.
    """

    part: int
    at: float
    edge: float
    line: int


def _text(parts: Contributions, i: int) -> str:
    name = plain(parts.names[i], charts.NAME_LENGTH)
    return f" {name}  {signed(float(parts.values[i]))} "


def _ends(parts: Contributions) -> tuple[float, float]:
    """Returns the ends of all arrows, and 0 between them."""
    reach = [sum(abs(parts.values[i]) for i in _side(parts, sign)) for sign in (1, -1)]
    low, high = min(0.0, parts.total - reach[0]), max(0.0, parts.total + reach[1])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _labels(parts: Contributions) -> list[_Label]:
    """Places the names of the largest parts, a line each, so that none leaves the picture."""
    low, high = _ends(parts)
    inch = (high - low) / _AXIS
    found: dict[int, list[_Label]] = {1: [], -1: []}
    for sign, side in found.items():
        tip = parts.total
        for line, i in enumerate(_side(parts, sign)[:_NAMED]):
            size = abs(float(parts.values[i]))
            middle = tip - sign * size / 2
            width = len(_text(parts, i)) * _CHARACTER * inch
            edge = max(middle, low + width) if sign > 0 else min(middle, high - width)
            side.append(_Label(i, middle, edge, line))
            tip -= sign * size
    meeting = any(a.edge > b.edge for a, b in zip(found[1], found[-1], strict=False))
    below = len(found[1]) if meeting else 0
    against = [dataclasses.replace(label, line=label.line + below) for label in found[-1]]
    return [*found[1], *against]


def _side(parts: Contributions, sign: int) -> list[int]:
    """Returns which parts have a sign, the largest first."""
    of_sign = [i for i, value in enumerate(parts.values) if value * sign > 0]
    return sorted(of_sign, key=lambda i: -abs(parts.values[i]))


def _draw(figure: AnyFigure, parts: Contributions, labels: Sequence[_Label]) -> None:
    ax = figure.add_subplot()
    style_axes(ax, frame=False)
    low, high = _ends(parts)
    for sign in (1, -1):
        _arrows(ax, parts, sign, high - low)
    for label in labels:
        _name(ax, parts, label)
    total = parts.total
    ax.plot([total, total], [-0.12, 1.35], color=INK, linewidth=1.2)
    ax.text(
        total, 1.42, f"together {number(total)}", va="bottom", fontsize=SMALL_SIZE, color=INK,
        ha=_towards_the_middle(total, low, high), fontweight="bold",
    )  # fmt: skip
    ax.plot([0, 0], [-0.12, 1.2], color=MUTED, linewidth=0.8, linestyle=":")
    ax.set_xlim(low - _MARGIN * (high - low), high + _MARGIN * (high - low))
    deepest = max((label.line for label in labels), default=0)
    ax.set_ylim(-0.8 - _STEP * deepest, 1.9)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(plain("score, beside that of the reference (0)"))


def _towards_the_middle(x: float, low: float, high: float) -> str:
    """Returns an alignment by which text at an end stays within."""
    share = (x - low) / (high - low)
    return "left" if share < 0.1 else "right" if share > 0.9 else "center"


def _arrows(ax: Axes, parts: Contributions, sign: int, span: float) -> None:
    """Draws the parts of one sign outwards from the sum."""
    tip = parts.total
    colour = POSITIVE if sign > 0 else NEGATIVE
    for i in _side(parts, sign):
        size = abs(float(parts.values[i]))
        tail = tip - sign * size
        point = sign * min(0.012 * span, size)
        corners = [
            (tip - point, 0.0), (tip, 0.5), (tip - point, 1.0),
            (tail - point, 1.0), (tail, 0.5), (tail - point, 0.0),
        ]  # fmt: skip
        ax.add_patch(Polygon(corners, facecolor=colour, edgecolor="white", linewidth=0.8))
        tip = tail


def _name(ax: Axes, parts: Contributions, label: _Label) -> None:
    """Writes a part's name below its arrow."""
    y = -0.45 - _STEP * label.line
    positive = parts.values[label.part] > 0
    ax.plot([label.at, label.at], [0.0, y + 0.1], color=FAINT, linewidth=0.7, zorder=0)
    ax.text(
        label.edge, y, _text(parts, label.part), ha="right" if positive else "left", va="center",
        fontsize=SMALL_SIZE, color=POSITIVE if positive else NEGATIVE,
    )  # fmt: skip
