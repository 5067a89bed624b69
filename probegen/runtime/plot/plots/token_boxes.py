"""Highlighted text: tokens as coloured boxes in reading order."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from probegen.runtime.axes import SEQUENCE
from probegen.runtime.plot import fonts
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
from probegen.runtime.plot.writing import display_order, runs_right_to_left
from probegen.runtime.texts.base import written as visibly
from probegen.runtime.texts.whole_words import NORM, SPECIAL, Word, join, without
from probegen.text import shortened

Array = npt.NDArray[Any]

_MOST_TOKENS = 400
_LONGEST_TOKEN = 30
_LINE_WIDTH = 7.0
#: A character of the 9 point monospaced type is 0.602 em wide.
_TYPE_SIZE = 9.0
_CHARACTER = 0.602 * _TYPE_SIZE / 72
#: Signs up to here, and these, are in monospaced type.
_LATIN, _MARKS = (
    0x530,
    "\u2026\u2423\u21e5\u21b5\u2205\u2581\u27e8\u27e9\u2019\u201c\u201d\u2013\u2014",
)
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
    """Returns one value for each token of a sample, or for each word.

    Takes an attribution with a sequence axis. Where it has an embedding axis too, the Euclidean
    norm is taken of derivatives, and signed shares of a score are summed up: a sum of shares is
    the share of the whole. Samples that are drawn together have one scale.
    """
    values, words, signed, notes = _valued(view)
    tokens = [word.text for word in words]
    every = [values]
    if len(view.beside) > 1:
        every = [_valued(other)[0] for other in view.beside]
        notes += ("one scale for all samples",)
    if len(tokens) > _MOST_TOKENS:
        first = _strongest_window(values, _MOST_TOKENS)
        last = first + _MOST_TOKENS
        which = f", those from {first + 1} to {last}, where the strongest are" if first else ""
        notes += (f"showing {_MOST_TOKENS} of {len(tokens)} tokens{which}",)
        tokens, values = tokens[first:last], values[first:last]
    scale = attribution_scale(
        np.concatenate(every), signed, WARM, clip=False, has_zero=view.has_zero
    )
    return Highlighted(tokens, values, scale, view.quantity, notes)


def _valued(view: View) -> tuple[Array, list[Word], bool, tuple[str, ...]]:
    """Returns a value for each word, the words, whether values have a sign, and how it was done.

    A token is a word of its own, unless they are to be joined; padding is left out.
    """
    axis = view.axis(SEQUENCE) or 0
    values = np.moveaxis(view.array, axis, 0)
    values, joined = join_rest(values.reshape(len(values), -1), view)
    signed = view.signed and not joined.startswith(NORM)
    notes: tuple[str, ...] = (joined,) if joined else ()
    tokens = view.tokens(len(values)) or [str(i) for i in range(len(values))]
    words = view.words(tokens) or [Word(token, (place,)) for place, token in enumerate(tokens)]
    padded = view.padding(len(values))
    if padded is not None and padded[: len(tokens)].any():
        count = np.count_nonzero(padded[: len(tokens)])
        notes += (f"{count} of {len(tokens)} positions are padding, left out",)
        words = without(words, np.flatnonzero(padded))
    how = view.joins(signed)
    if any(len(word.places) > 1 for word in words):
        notes += (f"pieces joined into words: {how}",)
    return join(values, words, how), words, signed, notes


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
    return np.linalg.norm(values, axis=1), f"{NORM} over {width} dimensions"


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
    is_last = not view.beside or view.beside[-1].sample == view.sample
    draw = functools.partial(_draw, text=text, lines=lines, with_bar=is_last)
    height = lines.height + (_BAR_AREA if is_last else 0.02)
    notes = (*text.notes, *fonts.spelt_out(text.tokens))
    return Picture(view.title, _LINE_WIDTH + 0.3, height, draw, notes, spans(text))


def written(token: str) -> str:
    """Returns a token so that white space in it can be seen, a long one cut short."""
    return shortened(visibly(token), _LONGEST_TOKEN)


def spans(text: Highlighted) -> str:
    """Returns the highlighted text as HTML: one coloured span a token, and the scale."""
    colours = text.scale.rgb(text.values)
    marked = "".join(
        f'<span{_apart(token)} style="background:{to_hex(colour)};color:{ink_on(colour)}" '
        f'title="{escape(text.label)} {number(float(value))}">{escape(written(token))}</span>\u200b'
        for token, value, colour in zip(text.tokens, text.values, colours, strict=True)
    )
    steps = text.scale.rgb(np.linspace(text.scale.low, text.scale.high, 9))
    gradient = ", ".join(to_hex(colour) for colour in steps)
    return (
        f'<div class="text" dir="auto">{marked}</div><div class="scale">{number(text.scale.low)}'
        f'<i style="background:linear-gradient(90deg, {gradient})"></i>{number(text.scale.high)} '
        f"{escape(text.label)}</div>"
    )


def _apart(token: str) -> str:
    """Returns what keeps a special token from telling which way the text runs."""
    return ' dir="ltr"' if SPECIAL.fullmatch(token) else ""


@dataclasses.dataclass(frozen=True)
class _Box:
    """Where a token stands.

    Attributes:
        line: number of its line.
        left, width: its left edge and its width in inches.
    """

    line: int
    left: float
    width: float


@dataclasses.dataclass(frozen=True)
class _Lines:
    """Tokens set in lines.

    Attributes:
        boxes: one for each token.
        size: factor on all sizes; short text is set larger.
    """

    boxes: list[_Box]
    size: float

    @property
    def height(self) -> float:
        """Height of all lines in inches."""
        return (max((box.line for box in self.boxes), default=0) + 1) * _LINE_HEIGHT * self.size


def _set(tokens: Sequence[str]) -> _Lines:
    """Sets tokens in lines in the order in which they are read, larger where they fit into one.

    Text that runs from right to left begins at the right edge.
    """
    widths = [_width(written(token)) + 2 * _PADDING for token in tokens]
    size = min(_LARGEST, max(1.0, _LINE_WIDTH / (sum(widths) + len(widths) * _SPACE)))
    widths = [min(width * size, _LINE_WIDTH) for width in widths]
    lines: list[list[int]] = [[]]
    used = 0.0
    for place, width in enumerate(widths):
        if lines[-1] and used + width > _LINE_WIDTH:
            lines.append([])
            used = 0.0
        lines[-1].append(place)
        used += width + _SPACE * size
    right_to_left = runs_right_to_left(tokens)
    boxes: dict[int, _Box] = {}
    for number_, line in enumerate(lines):
        whole = sum(widths[i] for i in line) + _SPACE * size * (len(line) - 1)
        x = _LINE_WIDTH - whole if right_to_left else 0.0
        for at in display_order([tokens[i] for i in line], right_to_left):
            boxes[line[at]] = _Box(number_, x, widths[line[at]])
            x += widths[line[at]] + _SPACE * size
    return _Lines([boxes[place] for place in range(len(tokens))], size)


def _family(text: str) -> str:
    """Returns monospaced type for what is written in Latin letters, whose columns then align."""
    return fonts.MONO if all(ord(sign) < _LATIN or sign in _MARKS for sign in text) else fonts.SANS


def _width(text: str) -> float:
    """Returns the width of text in inches."""
    if text.isascii():
        return len(text) * _CHARACTER
    shown = fonts.legible(text)
    return fonts.width(shown, _TYPE_SIZE, _family(shown))


def _draw(figure: AnyFigure, text: Highlighted, lines: _Lines, with_bar: bool) -> None:
    ax = inch_axes(figure, 0.1, 0.02, _LINE_WIDTH, lines.height)
    colours = text.scale.rgb(text.values)
    height = _BOX_HEIGHT * lines.size
    for token, colour, box in zip(text.tokens, colours, lines.boxes, strict=True):
        y = box.line * _LINE_HEIGHT * lines.size
        ax.add_patch(
            FancyBboxPatch(
                (box.left, y),
                box.width,
                height,
                boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=colour,
                edgecolor=FAINT,
                linewidth=0.5,
                clip_on=False,
            )
        )
        shown = written(token)
        ax.text(
            box.left + box.width / 2, y + height / 2, plain(shown), family=_family(shown),
            fontsize=_TYPE_SIZE * lines.size, color=ink_on(colour), ha="center",
            va="center_baseline",
        )  # fmt: skip
    if not with_bar:
        return
    cax = inch_axes(figure, 0.2, lines.height + 0.08, 2.4, 0.1)
    cax.axis("on")
    fill_bar(cax, text.scale, text.label, "horizontal")
