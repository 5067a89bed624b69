"""Highlighted text: tokens as coloured boxes in reading order."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from probegen.runtime.axes import SEQUENCE
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import (
    FAINT,
    WARM,
    AnyFigure,
    Scale,
    attribution_scale,
    fill_bar,
    inch_axes,
    ink_on,
    number,
    plain,
)
from probegen.runtime.plot.view import View
from probegen.runtime.texts.base import written as visibly

Array = npt.NDArray[Any]

_NORM = "Euclidean norm"
_MOST_TOKENS = 400
_LONGEST_TOKEN = 30
_LINE_WIDTH = 7.0
#: A character of the 9 point monospaced type is 0.602 em wide.
_TYPE_SIZE = 9.0
_CHARACTER = 0.602 * _TYPE_SIZE / 72
_PADDING = 0.035
_BOX_HEIGHT = 0.2
_LINE_HEIGHT = 0.25
_SPACE = 0.035
_BAR_AREA = 0.55
#: Short text, such as one word letter by letter, is set up to this many times larger.
_LARGEST = 1.8


@dataclasses.dataclass(frozen=True)
class Highlighted:
    """Tokens with their attribution and the colours that stand for it.

    Attributes:
        tokens: what to write, as many as there are values.
        values: the attribution of each, float `[token]`.
        scale: how values become colours.
        label: what the values are.
        notes: how they were joined and what was left out.
    """

    tokens: list[str]
    values: Array
    scale: Scale
    label: str
    notes: tuple[str, ...]


def highlighted(view: View) -> Highlighted:
    """Returns one value for each token of a sample.

    Takes an attribution with a sequence axis. Where it has an embedding axis too, the Euclidean
    norm is taken of derivatives, and signed shares of a score are summed up: a sum of shares is
    the share of the whole.
    """
    axis = view.axis(SEQUENCE) or 0
    values = np.moveaxis(view.array, axis, 0)
    values, joined = join_rest(values.reshape(len(values), -1), view)
    notes: tuple[str, ...] = (joined,) if joined else ()
    tokens = view.tokens(len(values)) or [str(i) for i in range(len(values))]
    padded = view.padding(len(values))
    values = values[: len(tokens)]
    if padded is not None and padded[: len(tokens)].any():
        padded = padded[: len(tokens)]
        notes += (f"{np.count_nonzero(padded)} of {len(tokens)} positions are padding, left out",)
        tokens = [token for token, gone in zip(tokens, padded, strict=True) if not gone]
        values = values[~padded]
    if len(tokens) > _MOST_TOKENS:
        first = _strongest_window(values, _MOST_TOKENS)
        last = first + _MOST_TOKENS
        which = f", those from {first + 1} to {last}, where the strongest are" if first else ""
        notes += (f"showing {_MOST_TOKENS} of {len(tokens)} tokens{which}",)
        tokens, values = tokens[first:last], values[first:last]
    signed = view.signed and not joined.startswith(_NORM)
    scale = attribution_scale(values, signed, WARM, clip=False, has_zero=view.has_zero)
    return Highlighted(tokens, values, scale, view.quantity, notes)


def _strongest_window(values: Array, size: int) -> int:
    """Returns where `size` neighbours begin that hold most; the beginning, if it is as good."""
    sums = np.concatenate([[0.0], np.cumsum(np.abs(np.nan_to_num(values)))])
    held = sums[size:] - sums[:-size]
    best = int(np.argmax(held))
    return 0 if held[0] >= held[best] * (1 - 1e-9) else best


def join_rest(values: Array, view: View) -> tuple[Array, str]:
    """Joins `[step, rest]` into `[step]`; returns it with a note of how, empty where none is."""
    width = values.shape[1]
    if width == 1:
        return values[:, 0], ""
    if view.signed and not view.is_derivative:
        return values.sum(1), f"sum over {width} dimensions"
    return np.linalg.norm(values, axis=1), f"{_NORM} over {width} dimensions"


def fits(view: View) -> bool:
    """Tells whether this is an attribution to the tokens of a text."""
    return view.spec.is_attribution and view.is_sequence and has_tokens(view)


def has_tokens(view: View) -> bool:
    """Tells whether there are tokens to write."""
    return view.tokens(view.array.shape[view.axis(SEQUENCE) or 0]) is not None


def plan(view: View) -> Picture:
    """Plans the highlighted text."""
    text = highlighted(view)
    lines = _set(text.tokens)
    draw = functools.partial(_draw, text=text, lines=lines)
    height = lines.height + _BAR_AREA
    return Picture(view.title, _LINE_WIDTH + 0.3, height, draw, text.notes, spans(text))


def written(token: str) -> str:
    """Returns a token so that white space in it can be seen, a long one cut short."""
    visible = visibly(token)
    if len(visible) > _LONGEST_TOKEN:
        visible = visible[: _LONGEST_TOKEN - 1] + "\u2026"
    return visible


def spans(text: Highlighted) -> str:
    """Returns the highlighted text as HTML: one coloured span a token, and the scale."""
    colours = text.scale.rgb(text.values)
    marked = "".join(
        f'<span style="background:{to_hex(colour)};color:{ink_on(colour)}" '
        f'title="{escape(text.label)} {number(float(value))}">{escape(written(token))}</span>\u200b'
        for token, value, colour in zip(text.tokens, text.values, colours, strict=True)
    )
    steps = text.scale.rgb(np.linspace(text.scale.low, text.scale.high, 9))
    gradient = ", ".join(to_hex(colour) for colour in steps)
    return (
        f'<div class="text">{marked}</div><div class="scale">{number(text.scale.low)}'
        f'<i style="background:linear-gradient(90deg, {gradient})"></i>{number(text.scale.high)} '
        f"{escape(text.label)}</div>"
    )


@dataclasses.dataclass(frozen=True)
class _Lines:
    """Tokens set in lines.

    Attributes:
        places: line number, left edge and width in inches of each token's box.
        size: factor on all sizes; short text is set larger.
    """

    places: list[tuple[int, float, float]]
    size: float

    @property
    def height(self) -> float:
        """Height of all lines in inches."""
        return (max((line for line, _, _ in self.places), default=0) + 1) * _LINE_HEIGHT * self.size


def _set(tokens: Sequence[str]) -> _Lines:
    """Sets tokens in lines, larger where they all fit into one."""
    widths = [_columns(written(token)) * _CHARACTER + 2 * _PADDING for token in tokens]
    size = min(_LARGEST, max(1.0, _LINE_WIDTH / (sum(widths) + len(widths) * _SPACE)))
    places = []
    line, x = 0, 0.0
    for width in (width * size for width in widths):
        if x > 0 and x + width > _LINE_WIDTH:
            line, x = line + 1, 0.0
        places.append((line, x, width))
        x += width + _SPACE * size
    return _Lines(places, size)


def _columns(text: str) -> int:
    """Returns how many columns text takes in monospaced type; East Asian signs take two."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _draw(figure: AnyFigure, text: Highlighted, lines: _Lines) -> None:
    ax = inch_axes(figure, 0.1, 0.02, _LINE_WIDTH, lines.height)
    colours = text.scale.rgb(text.values)
    height = _BOX_HEIGHT * lines.size
    for token, colour, (line, x, width) in zip(text.tokens, colours, lines.places, strict=True):
        y = line * _LINE_HEIGHT * lines.size
        ax.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=colour,
                edgecolor=FAINT,
                linewidth=0.5,
                clip_on=False,
            )
        )
        ax.text(
            x + width / 2, y + height / 2, plain(written(token)), family="DejaVu Sans Mono",
            fontsize=_TYPE_SIZE * lines.size, color=ink_on(colour), ha="center",
            va="center_baseline",
        )  # fmt: skip
    cax = inch_axes(figure, 0.2, lines.height + 0.08, 2.4, 0.1)
    cax.axis("on")
    fill_bar(cax, text.scale, text.label, "horizontal")
