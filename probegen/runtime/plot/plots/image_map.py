"""Attributions over an image: input, attribution and overlay side by side."""

from __future__ import annotations

import functools

from probegen.runtime.axes import HEIGHT, WIDTH
from probegen.runtime.plot.image import (
    Panels,
    draw_panels,
    joined,
    overlay,
    panel_size,
    panels_size,
    shown_image,
)
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import HEAT, AnyFigure, Scale, attribution_scale, colour_bar
from probegen.runtime.plot.view import View
from probegen.runtime.resize import over_picture

_BAR = 0.75


def fits(view: View) -> bool:
    """Tells whether this is an attribution to an image."""
    return (
        view.spec.is_attribution
        and view.space == {HEIGHT, WIDTH}
        and not view.steps
        and not view.others
    )


def plan(view: View) -> Picture:
    """Plans input, attribution and overlay side by side.

    The attribution is brought to the size of the picture bilinearly; channels are summed up
    where it is signed, else their largest is taken.
    """
    heat, notes = joined(view, HEIGHT, WIDTH)
    base, base_notes = shown_image(view)
    size = base.shape[:2] if base is not None else heat.shape
    if heat.shape != size:
        notes += (f"{heat.shape[0]}\u00d7{heat.shape[1]} map brought to the input's size",)
    clip = heat.shape == size  # what is brought to a size is smooth
    heat = over_picture(heat, size, view.preprocessing)
    scale = attribution_scale(heat, view.signed, HEAT, clip, view.has_zero)
    panels = [(view.spec.title, heat)]
    if base is not None:
        panels = [("input", base), *panels, ("overlay", overlay(base, heat, scale))]
    draw = functools.partial(_draw, panels=panels, scale=scale)
    width, height = panels_size(panels)
    return Picture(view.title, width + _BAR, height, draw, notes + base_notes)


def _draw(figure: AnyFigure, panels: Panels, scale: Scale) -> None:
    ax = draw_panels(figure, panels, scale)
    colour_bar(ax, scale, span=panel_size(panels[0][1])[0])
