"""A picture that is planned but not drawn: its size, its words, and how to draw it.

Families plan pictures; what draws them, alone or stacked below each other, is here.
"""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from probegen.runtime.plot import fonts
from probegen.runtime.plot.style import (
    INK,
    LABEL_SIZE,
    MUTED,
    SMALL_SIZE,
    TITLE_SIZE,
    AnyFigure,
    new_figure,
    plain,
    size_of,
)

#: Space above a heading and a note, in inches.
_SPACE = 0.1
#: Headings need some width, even over a narrow picture.
_NARROWEST = 4.2


@dataclasses.dataclass(frozen=True)
class Picture:
    """What to draw.

    Attributes:
        title: the heading, wrapped as needed; may be empty.
        width, height: size in inches without heading and notes.
        draw: draws into an empty figure or subfigure of that size.
        notes: what a reader must know, such as what was left out.
        html: the same for a web page, where text says it better than pixels; else empty.
    """

    title: str
    width: float
    height: float
    draw: Callable[[AnyFigure], object]
    notes: tuple[str, ...] = ()
    html: str = ""


def figure_of(picture: Picture) -> Figure:
    """Draws one picture as a figure of its own."""
    return stack([picture])


def stack(pictures: Sequence[Picture], note: str = "") -> Figure:
    """Draws pictures below each other in one figure, each in its own size."""
    width = max(_NARROWEST, *(picture.width for picture in pictures))
    strips = [strip for picture in pictures for strip in _strips(picture, width)]
    if note:
        strips.append(_words(note, width, _NOTE))
    figure = new_figure(width, sum(height for height, _ in strips))
    _fill(figure, strips)
    fonts.fit(figure)
    return figure


def stacked_size(pictures: Sequence[Picture]) -> tuple[float, float]:
    """Returns width and height in inches of pictures below each other, words included."""
    width = max(_NARROWEST, *(picture.width for picture in pictures))
    strips = [strip for picture in pictures for strip in _strips(picture, width, _CAPTION)]
    return width, sum(height for height, _ in strips)


def draw_stacked(figure: AnyFigure, pictures: Sequence[Picture]) -> None:
    """Draws pictures below each other into a figure of their `stacked_size`."""
    width, _ = stacked_size(pictures)
    _fill(figure, [strip for p in pictures for strip in _strips(p, width, _CAPTION)])


def _fill(figure: AnyFigure, strips: Sequence[_Strip]) -> None:
    heights = [height for height, _ in strips]
    parts = figure.subfigures(len(strips), 1, squeeze=False, hspace=0, height_ratios=heights)[:, 0]
    for part, (_, draw) in zip(parts, strips, strict=True):
        draw(part)


#: A horizontal part of a figure: its height in inches and what draws it.
_Strip = tuple[float, Callable[[AnyFigure], object]]


@dataclasses.dataclass(frozen=True)
class _Type:
    """How words are set: size in points, colour, weight."""

    size: float
    colour: str
    weight: str

    @property
    def line(self) -> float:
        """Height of a line in inches."""
        return self.size * 1.35 / 72

    def wrap(self, text: str, width: float) -> list[str]:
        """Breaks text into lines that fit `width` inches; a character takes some 0.58 em."""
        joined = plain(text).replace(" = ", "\xa0=\xa0")  # "(p = 0.98)" stays together
        lines = textwrap.wrap(joined, max(20, int(width / (self.size * 0.58 / 72))))
        return [line.replace("\xa0", " ") for line in lines]


_TITLE = _Type(TITLE_SIZE, INK, "bold")
_CAPTION = _Type(LABEL_SIZE, INK, "bold")
_NOTE = _Type(SMALL_SIZE, MUTED, "normal")


def _strips(picture: Picture, width: float, heading: _Type = _TITLE) -> list[_Strip]:
    """Returns heading, body and notes, each as wide as the figure."""
    strips = [_words(picture.title, width, heading)] if picture.title else []
    strips.append((picture.height, functools.partial(_body, picture=picture, width=width)))
    if picture.notes:
        strips.append(_words("; ".join(picture.notes), width, _NOTE))
    return strips


def _words(text: str, width: float, type_: _Type) -> _Strip:
    """Returns a strip with wrapped text at its top left."""
    lines = type_.wrap(text, width - 2 * _SPACE)

    def draw(figure: AnyFigure) -> None:
        _, height = size_of(figure)
        figure.text(
            _SPACE / width, 1 - _SPACE / height, "\n".join(lines), fontsize=type_.size,
            color=type_.colour, fontweight=type_.weight, va="top", linespacing=1.2,
        )  # fmt: skip

    return len(lines) * type_.line + 1.5 * _SPACE, draw


def _body(figure: AnyFigure, picture: Picture, width: float) -> None:
    """Draws a picture on the left in the width it was planned for."""
    rest = width - picture.width
    if rest > 0.01:
        ratios = [picture.width, rest]
        figure = figure.subfigures(1, 2, squeeze=False, wspace=0, width_ratios=ratios)[0, 0]
    picture.draw(figure)
