"""Activations: feature maps, channels over time, units, volumes and frames."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.runtime.plot import charts, mosaic
from probegen.runtime.plot.mosaic import Tile
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import AnyFigure, scale_of
from probegen.runtime.plot.view import CHANNEL, View

Array = npt.NDArray[Any]


def grid(view: View, maps: Array, what: str = "channel", notes: tuple[str, ...] = ()) -> Picture:
    """Plans a near-square grid of maps on one scale.

    Args:
        view: where they come from.
        maps: `[map, height, width]`, any number of them.
        what: what a map is one of.
        notes: what else a reader must know.
    """
    shown = maps[: view.labels.max_panels]
    if len(shown) < len(maps):
        notes = (f"showing {len(shown)} of {len(maps)} {_plural(what)}", *notes)
    numbers = view.channels(len(maps))[: len(shown)] if what in CHANNEL else range(len(shown))
    captions = [f"{what} {i}" if len(shown) <= 16 else str(i) for i in numbers]
    single = len(maps) == 1
    tiles = [Tile(m, "" if single else c) for m, c in zip(shown, captions, strict=True)]
    scale = scale_of(shown)
    layout = mosaic.lay_out(tiles, widest=3.2 if single else 2.2)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale, label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)


def _unless_plain(numbers: list[int]) -> list[str] | None:
    """Returns channel numbers as names, or None where they just count."""
    return None if numbers == list(range(len(numbers))) else [str(i) for i in numbers]


def _plural(what: str) -> str:
    return what + ("es" if what.endswith("s") else "s")


def channels_over_time(view: View, matrix: Array, rows: str, steps: str) -> Picture:
    """Plans a heat map of the channels over the steps of a sequence.

    Args:
        view: where it comes from.
        matrix: `[channel, step]`.
        rows: name of the channel axis.
        steps: name of the step axis.
    """
    axis = steps_of(view, matrix.shape[1], steps)
    numbers = view.channels(len(matrix))
    if len(matrix) == 1:
        return over_time(view, matrix[0], steps)
    draw = functools.partial(
        charts.draw_map, values=matrix, scale=scale_of(matrix), label=view.quantity, x=axis,
        y_title=rows,
        y_names=_unless_plain(numbers),
    )  # fmt: skip
    return Picture(view.title, charts.CHART_WIDTH, charts.map_height(len(matrix)) + 0.5, draw)


def over_time(view: View, row: Array, steps: str) -> Picture:
    """Plans a line over the steps of a sequence, `[step]`."""
    axis = steps_of(view, len(row), steps)

    def draw(figure: AnyFigure) -> None:
        ax = figure.add_subplot()
        charts.draw_lines(ax, axis, row[np.newaxis], None, title=view.quantity)
        axis.label_positions(ax, charts.CHART_WIDTH - 1)

    return Picture(view.title, charts.CHART_WIDTH, 2.2, draw)


def units(view: View, row: Array, axis: str) -> Picture:
    """Plans the columns of a vector, `[unit]`."""
    names = _unless_plain(view.channels(len(row)))
    draw = functools.partial(
        charts.draw_columns, values=row, axis=axis, title=view.quantity, names=names
    )
    return Picture(view.title, charts.CHART_WIDTH, 2.2, draw)


def volume(view: View, maps: Array, what: str = "channel") -> Picture:
    """Plans a grid of slices of volumes through each one's strongest voxel.

    Takes `[map, depth, height, width]`.
    """
    size = np.nan_to_num(np.abs(maps)).max((2, 3))
    at = np.argmax(size, axis=1)
    note = f"of each {what} the slice along depth with its strongest voxel, of {maps.shape[1]}"
    return grid(view, maps[np.arange(len(maps)), at], what, (note,))


def frames(view: View, maps: Array, what: str = "step") -> Picture:
    """Plans a film strip from maps over time, `[step, height, width]`, evenly thinned."""
    chosen, notes = spread(len(maps), min(16, view.labels.max_panels), what)
    tiles = [Tile(maps[i], f"{what} {i}") for i in chosen]
    layout = mosaic.lay_out(tiles, widest=1.8)
    draw = functools.partial(
        mosaic.draw, tiles=tiles, layout=layout, scale=scale_of(maps), label=view.quantity
    )
    return Picture(view.title, *layout.body, draw, notes)


def spread(
    count: int, most: int, what: str, with_index: int | None = None
) -> tuple[list[int], tuple[str, ...]]:
    """Returns at most `most` evenly spread indices, and a note where some are left out.

    Args:
        count: how many there are.
        most: how many are returned.
        what: what one of them is called.
        with_index: one that must be among them; it takes the place of its neighbour.
    """
    if count <= most:
        return list(range(count)), ()
    indices = np.unique(np.linspace(0, count - 1, most).round().astype(int))
    notes = (f"showing {len(indices)} of {count} {_plural(what)}",)
    if with_index is not None and with_index not in indices:
        indices[int(np.argmin(np.abs(indices - with_index)))] = with_index
        notes = (f"{notes[0]}, with the strongest, {what} {with_index}",)
    return [int(i) for i in indices], notes
