"""Many small maps in one pair of axes, laid out in inches: fast, and aligned to the hair."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from probegen.runtime.plot import fonts, thinning
from probegen.runtime.plot.style import (
    DPI,
    FAINT,
    INK,
    LABEL_SIZE,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    AnyFigure,
    Scale,
    colour_bar,
    inch_axes,
    plain,
    thin,
)

Array = npt.NDArray[Any]

_EDGE = 0.1
_CAPTION = 0.17
_GAP = 0.07
_BAR = 0.85
_TICK = 0.115
_CHARACTER = 0.057
#: A map is drawn at most this many times as long as it is wide, or the other way round.
_STRETCH = 3.0
_SMALLEST_CAPTIONED = 0.45


@dataclasses.dataclass(frozen=True)
class Tile:
    """One map: an array `[height, width]` in the colours of a scale, or `[height, width, 3]`."""

    array: Array
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Ticks:
    """Names of the rows (downwards) and columns of every tile; None for none."""

    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    row_title: str = ""
    column_title: str = ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where tiles lie, in inches from the top left of the first.

    Attributes:
        columns, rows: how many tiles there are across and down.
        captioned: whether there is room for captions above the tiles.
        upright: whether the column names fit side by side, and need not be turned.
        tile: width and height of a tile.
        gaps: space between tiles, across and down.
        margins: room for the names, on the left and below.
    """

    columns: int
    rows: int
    captioned: bool
    upright: bool
    tile: tuple[float, float]
    gaps: tuple[float, float]
    margins: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of all tiles with their gaps."""
        (width, height), (across, down) = self.tile, self.gaps
        return (
            self.columns * (width + across) - across,
            self.rows * (height + down) - down,
        )

    @property
    def body(self) -> tuple[float, float]:
        """Width and height with captions, tick labels and the colour bar."""
        width, height = self.size
        left, below = self.margins
        return left + width + _BAR + 2 * _EDGE, self.above + height + below + _EDGE

    @property
    def above(self) -> float:
        """Room above the tiles in inches."""
        return _CAPTION if self.captioned else 0.05

    def corner(self, index: int) -> tuple[float, float]:
        """Top left of one tile."""
        row, column = divmod(index, self.columns)
        return column * (self.tile[0] + self.gaps[0]), row * (self.tile[1] + self.gaps[1])


def lay_out(
    tiles: Sequence[Tile],
    ticks: Ticks | None = None,
    *,
    widest: float,
    columns: int | None = None,
) -> Layout:
    """Lays tiles of equal size out in a grid, as wide as the page at most.

    Args:
        tiles: what is drawn; the first one's shape holds for all.
        ticks: labels that need room at the rims.
        widest: the longest side a tile may have, in inches.
        columns: how many columns; by default what makes a near-square grid.
    """
    ticks = ticks or Ticks()
    height, width = tiles[0].array.shape[:2]
    shape = min(_STRETCH, max(1 / _STRETCH, height / max(1, width)))
    left = _room(ticks.rows, ticks.row_title)
    count = len(tiles)
    if columns is None:
        square = max(1, round(math.sqrt(count * shape)), _fitting(count, shape))
        columns = _tidy(count, min(count, square))
    across = (WIDTH - _BAR - 2 * _EDGE - left - (columns - 1) * _GAP) / columns
    side = min(across, widest, widest / shape)
    captioned = side >= _SMALLEST_CAPTIONED and any(tile.caption for tile in tiles)
    gaps = (_GAP, _CAPTION + 0.03 if captioned else _GAP)
    upright = _longest(ticks.columns) + 2 * _GAP <= side / width
    below = _room(ticks.columns, ticks.column_title, upright=upright)
    rows = math.ceil(count / columns)
    tile = (side, side * shape)
    return Layout(columns, rows, captioned, upright, tile, gaps, (left, below))


def _fitting(count: int, shape: float) -> int:
    """Returns the fewest columns for which tiles as wide as the page allow stay below 8 inches."""
    columns = 1
    while columns < count and math.ceil(count / columns) * shape * WIDTH / columns > 8.0:
        columns += 1
    return columns


def _tidy(count: int, columns: int) -> int:
    """Returns a number of columns near `columns` that leaves the last row fullest."""
    near = range(columns, min(count, columns + max(1, columns // 3)) + 1)
    return min(near, key=lambda n: (-(-count // n) * n - count, n))


def _room(labels: Sequence[str] | None, title: str, *, upright: bool = False) -> float:
    """Returns the inches that names and the title of their axis need beside the tiles."""
    length = _TICK if upright else _longest(labels)
    return (0.1 + length if labels else 0.0) + (0.2 if title else 0.0)


def _longest(labels: Sequence[str] | None) -> float:
    return max(map(_width, labels or ()), default=0.0)


def _width(label: str) -> float:
    """Returns the inches of a label as it is written: signs without a font are spelt out."""
    if label.isascii():
        return len(label) * _CHARACTER
    return fonts.width(plain(label), SMALL_SIZE, fonts.SANS)


def draw(
    figure: AnyFigure,
    tiles: Sequence[Tile],
    layout: Layout,
    *,
    scale: Scale,
    label: str = "",
    ticks: Ticks | None = None,
) -> None:
    """Draws the tiles, their captions, one colour bar for all, and tick labels at the rims."""
    width, height = layout.size
    ax = inch_axes(figure, _EDGE + layout.margins[0], layout.above, width, height)
    for index, tile in enumerate(tiles):
        x, y = layout.corner(index)
        extent = (x, x + layout.tile[0], y + layout.tile[1], y)
        ax.imshow(
            _fitting_pixels(tile.array, layout.tile),
            extent=extent,
            aspect="auto",
            interpolation="nearest",
            **scale.keywords,
        )
        ax.add_patch(
            Rectangle(
                (x, y), *layout.tile, fill=False, edgecolor=FAINT, linewidth=0.6, clip_on=False
            )
        )
        if tile.caption and layout.captioned:
            room = max(3, int(layout.tile[0] / _CHARACTER))
            ax.text(x, y - 0.035, plain(tile.caption, room), fontsize=SMALL_SIZE, color=INK)
    ax.set(xlim=(0, width), ylim=(height, 0))
    if ticks is not None:
        _label_rows(ax, tiles, layout, ticks)
        _label_columns(ax, tiles, layout, ticks)
    colour_bar(ax, scale, label, span=width)


def _fitting_pixels(array: Array, tile: tuple[float, float]) -> Array:
    """Returns a map with no more cells than its tile has pixels; pictures stay as they are."""
    if array.ndim != 2:
        return array
    width, height = (max(1, round(side * DPI)) for side in tile)
    return thinning.strongest(thinning.strongest(array, 0, height), 1, width)


def _label_rows(ax: Axes, tiles: Sequence[Tile], layout: Layout, ticks: Ticks) -> None:
    """Writes the row names on the left of the first column."""
    height = layout.tile[1]
    firsts = range(0, len(tiles), layout.columns)
    for index in firsts:
        top = layout.corner(index)[1]
        count = tiles[index].array.shape[0]
        for i, label in _shown(ticks.rows, count, height):
            y = top + (i + 0.5) * height / count
            ax.text(
                -0.05, y, plain(label), ha="right", va="center", fontsize=_size(count, height),
                color=MUTED,
            )  # fmt: skip
    if ticks.row_title:
        x = -_room(ticks.rows, "") - 0.03
        ax.text(
            x, layout.size[1] / 2, ticks.row_title, rotation=90, ha="right", va="center",
            fontsize=LABEL_SIZE, color=MUTED,
        )  # fmt: skip


def _label_columns(ax: Axes, tiles: Sequence[Tile], layout: Layout, ticks: Ticks) -> None:
    """Writes the column names below the lowest tile of each column."""
    width, height = layout.tile
    for index in range(max(0, len(tiles) - layout.columns), len(tiles)):
        left, top = layout.corner(index)
        count = tiles[index].array.shape[1]
        for i, label in _shown(ticks.columns, count, width):
            x = left + (i + 0.5) * width / count
            ax.text(
                x, top + height + 0.05, plain(label), rotation=0 if layout.upright else 90,
                ha="center", va="top", fontsize=_size(count, width), color=MUTED,
            )  # fmt: skip
    if ticks.column_title:
        y = layout.size[1] + _room(ticks.columns, "", upright=layout.upright) + 0.03
        ax.text(
            layout.size[0] / 2, y, ticks.column_title, ha="center", va="top",
            fontsize=LABEL_SIZE, color=MUTED,
        )  # fmt: skip


def _shown(labels: Sequence[str] | None, count: int, room: float) -> list[tuple[int, str]]:
    """Returns the labels that fit into `room` inches, evenly thinned."""
    if labels is None:
        return []
    return [(i, labels[i]) for i in thin(count, int(room / _TICK)) if i < len(labels)]


def _size(count: int, room: float) -> float:
    """Returns the type size for `count` labels in `room` inches."""
    return SMALL_SIZE if room / count > _TICK else SMALL_SIZE - 1
