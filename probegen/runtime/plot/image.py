"""Pictures and panels of them: inputs, overlays, label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from probegen.runtime.axes import CHANNEL, HEIGHT, WIDTH, axis_of
from probegen.runtime.plot import thinning
from probegen.runtime.plot.labels import image_of
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import (
    CATEGORIES,
    DPI,
    INK,
    SMALL_SIZE,
    AnyFigure,
    Scale,
    caption,
    no_ticks,
    plain,
)
from probegen.runtime.plot.verdict import class_name
from probegen.runtime.plot.view import InputSample, View

Array = npt.NDArray[Any]

#: Panels in a row with their headings.
Panels = Sequence[tuple[str, Array]]

_PANEL = 2.0
#: Characters of a heading that fit over a panel.
_LONGEST_NAME = 28
_TALLEST = 2.5
_BAR = 0.75
#: A picture is drawn at most this many times as long as it is wide, or the other way round.
_STRETCH = 2.5
#: The most an overlay hides of the picture under it.
_COVER = 0.85
_LEGEND_ENTRIES = 10


def joined(view: View, *axes: str) -> tuple[Array, tuple[str, ...]]:
    """Returns an attribution with these axes alone, and how its channels were joined."""
    channel = view.axis(CHANNEL)
    if channel is None:
        return view.ordered(*axes), ()
    maps = view.ordered(*axes, view.axes[channel])
    if maps.shape[-1] == 1:
        return maps[..., 0], ()
    if view.signed:
        return maps.sum(-1), (f"sum over {maps.shape[-1]} channels",)
    return maps.max(-1), (f"largest of {maps.shape[-1]} channels",)


def shown_image(view: View) -> tuple[Array | None, tuple[str, ...]]:
    """Returns the picture to draw over, `[height, width, 3]` in 0 to 1, and notes about it."""
    given = image_of(view.labels.image, view.sample, view.rows)
    if given is not None:
        return to_rgb_image(given[..., np.newaxis] if given.ndim == 2 else given)
    if view.source is None or not view.source.is_image:
        return None, ()
    return to_rgb_image(pixels(view.source))


def pixels(source: InputSample) -> Array:
    """Returns an input's picture as `[height, width, channel]`."""
    axes = source.axes
    order = [axes.index(HEIGHT), axes.index(WIDTH)]
    channel = axis_of(axes, CHANNEL)
    if channel is None:
        return np.transpose(source.array, order)[..., np.newaxis]
    return np.transpose(source.array, [*order, channel])


def to_rgb_image(array: Array) -> tuple[Array, tuple[str, ...]]:
    """Makes a picture of any value range and number of channels displayable.

    Args:
        array: `[height, width, channel]`.

    Returns:
        Colours `[height, width, 3]` from 0 to 1, and notes on what was joined.
    """
    values = array.astype(np.float64)
    channels = values.shape[-1]
    notes: tuple[str, ...] = ()
    if channels not in (1, 3):
        values = values.mean(-1, keepdims=True)
        notes = (f"input drawn as the mean of its {channels} channels",)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 1 < high <= 255 and high > 16:
        low, high = 0.0, 255.0
    scaled = (values - low) / ((high - low) or 1.0)
    grey = np.clip(np.nan_to_num(scaled, nan=0.5), 0, 1)
    return np.broadcast_to(grey, (*grey.shape[:2], 3)), notes


def overlay(base: Array, heat: Array, scale: Scale) -> Array:
    """Blends the map's colours over a grey picture, more where the map is stronger."""
    grey = base @ np.array([0.299, 0.587, 0.114])
    cover = _COVER * np.sqrt(scale.strength(heat))[..., np.newaxis]
    return np.asarray(grey[..., np.newaxis] * (1 - cover) + scale.rgb(heat) * cover)


def panels_size(panels: Panels) -> tuple[float, float]:
    """Returns width and height in inches of a row of panels with their headings."""
    width, height = panel_size(panels[0][1])
    return len(panels) * (width + 0.12), height + 0.3


def panel_size(panel: Array) -> tuple[float, float]:
    """Returns width and height in inches of one panel."""
    height, width = panel.shape[:2]
    ratio = min(_STRETCH, max(1 / _STRETCH, height / max(1, width)))
    side = min(_PANEL, _TALLEST / ratio)
    return side, side * ratio


def draw_panels(figure: AnyFigure, panels: Panels, scale: Scale | None = None) -> Axes:
    """Draws pictures `[height, width, 3]` and maps `[height, width]`; returns the last axes."""
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, panel) in zip(axes, panels, strict=True):
        no_ticks(ax)
        caption(ax, name, _LONGEST_NAME)
        keywords = scale.keywords if scale is not None and panel.ndim == 2 else {}
        height, width = panel.shape[:2]
        shown = panel
        if panel.ndim == 2:  # a map larger than its panel keeps its peaks
            pixels_wide, pixels_high = (round(side * DPI) for side in panel_size(panel))
            shown = thinning.strongest(thinning.strongest(panel, 0, pixels_high), 1, pixels_wide)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        ax.imshow(shown, interpolation="nearest", extent=extent, **keywords)
        if not 1 / _STRETCH <= height / width <= _STRETCH:
            ax.set_aspect("auto")
    last: Axes = axes[-1]
    return last


def label_map(view: View, scores: Array) -> Picture:
    """Plans the most probable class of every pixel, beside the input where it is a picture.

    Args:
        view: where it comes from.
        scores: `[height, width, class]`.
    """
    classes = scores.shape[-1]
    labels = np.argmax(np.nan_to_num(scores, nan=-np.inf), -1)
    found, counts = np.unique(labels, return_counts=True)
    largest = found[np.argsort(-counts, kind="stable")][:_LEGEND_ENTRIES]
    names = view.classes(classes)
    base, notes = shown_image(view)
    if len(found) > len(largest):
        notes += (f"the legend names the {len(largest)} largest of {len(found)} classes found",)
    colours = _class_colours(classes)
    panels = [] if base is None else [("input", base)]
    panels.append(("most probable class", colours[labels]))

    def draw(figure: AnyFigure) -> None:
        ax = draw_panels(figure, panels)
        patches = [
            Patch(color=colours[c], label=plain(class_name(int(c), names), 24)) for c in largest
        ]
        ax.legend(
            handles=patches, fontsize=SMALL_SIZE, frameon=False, labelcolor=INK,
            loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=1.0,
        )  # fmt: skip

    width, height = panels_size(panels)
    return Picture(view.title, width + 1.8, max(height, 0.17 * len(largest) + 0.3), draw, notes)


def _class_colours(count: int) -> Array:
    """Returns a colour for each class, `[count, 3]`; beyond eight, lighter shades of the same."""
    base = np.array([to_rgb(c) for c in CATEGORIES])
    rounds = -(-count // len(base))
    shades = [base + (1 - base) * 0.65 * r / rounds for r in range(rounds)]
    return np.concatenate(shades)[:count]


def reconstruction(view: View, picture: Array) -> Picture:
    """Plans an output that is itself a picture, `[height, width, 3]`, beside the input."""
    shown, _ = to_rgb_image(picture)
    base, notes = shown_image(view)
    panels = [] if base is None else [("input", base)]
    panels.append(("output", shown))
    width, height = panels_size(panels)
    return Picture(view.title, width, height, lambda f: draw_panels(f, panels), notes)
