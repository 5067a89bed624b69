"""The table of plots, and which of them fits what an output says of itself.

An output says in its manifest how it is drawn (`draw`), what its sign means and what its axes are;
nothing here knows which methods there are. A plot is one file in `plots` and one line below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from probegen.artefact.manifest import NEVER_NEGATIVE
from probegen.runtime.plot import class_panels
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import (
    any_shape,
    attention_heads,
    attention_of_one_query,
    channels_over_time,
    class_maps,
    feature_bars,
    film_frames,
    force,
    forecast,
    frame_strip,
    image_map,
    line_over_time,
    map_grid,
    nothing,
    predicted_image,
    predicted_sequence,
    predicted_vector,
    series_bars,
    step_maps,
    token_boxes,
    unit_columns,
    volume_grid,
    volume_slices,
    waterfall,
)
from probegen.runtime.plot.view import View


@dataclasses.dataclass(frozen=True)
class Plot:
    """A line of the table.

    Attributes:
        what: what is drawn so, in a few words.
        fits: tells whether it suits a view.
        plan: lays the picture out.
    """

    what: str
    fits: Callable[[View], bool]
    plan: Callable[[View], Picture]


#: The first that fits is drawn.
PLOTS: tuple[Plot, ...] = (
    Plot("no numbers", nothing.fits, nothing.plan),
    Plot("two axes of one name", lambda view: not view.axes_are_distinct, any_shape.plan),
    Plot("attribution of classes to an image", class_maps.fits, class_maps.plan),
    Plot("attribution of each step of the output", step_maps.fits, step_maps.plan),
    Plot("attribution of several classes", class_panels.fits, lambda v: class_panels.plan(v, _one)),
    Plot("attention of heads", attention_heads.fits, attention_heads.plan),
    Plot("attention of one query", attention_of_one_query.fits, attention_of_one_query.plan),
    Plot("attribution to an image", image_map.fits, image_map.plan),
    Plot("attribution to a volume", volume_slices.fits, volume_slices.plan),
    Plot("attribution to a film", film_frames.fits, film_frames.plan),
    Plot("attribution to a series", series_bars.fits, series_bars.plan),
    Plot("attribution to tokens", token_boxes.fits, token_boxes.plan),
    Plot("parts of a score in turn", waterfall.fits, waterfall.plan),
    Plot("parts of a score in one line", force.fits, force.plan),
    Plot("attribution to features", feature_bars.fits, feature_bars.plan),
    Plot("prediction that goes on with a series", forecast.fits, forecast.plan),
    Plot("prediction a pixel", predicted_image.fits, predicted_image.plan),
    Plot("prediction a step", predicted_sequence.fits, predicted_sequence.plan),
    Plot("prediction of a vector", predicted_vector.fits, predicted_vector.plan),
    Plot("maps over time", frame_strip.fits, frame_strip.plan),
    Plot("volumes", volume_grid.fits, volume_grid.plan),
    Plot("maps", map_grid.fits, map_grid.plan),
    Plot("channels over time", channels_over_time.fits, channels_over_time.plan),
    Plot("a number a step", line_over_time.fits, line_over_time.plan),
    Plot("a vector", unit_columns.fits, unit_columns.plan),
    Plot("anything else", any_shape.fits, any_shape.plan),
)


def picture_of(view: View) -> Picture:
    """Plans the picture that fits, with notes of what cannot be seen in it."""
    picture = _one(view)
    return dataclasses.replace(picture, notes=(*picture.notes, *_remarks(view)))


def _one(view: View) -> Picture:
    return next(plot for plot in PLOTS if plot.fits(view)).plan(view)


def _remarks(view: View) -> tuple[str, ...]:
    """Says the unit, where there is nothing to see, or not all, and what was differentiated."""
    remarks = [f"unit: {view.spec.unit}"] if view.spec.unit and view.array.size else []
    remarks += [view.completeness] if view.completeness else []
    wrong = int(np.count_nonzero(~np.isfinite(view.array)))
    if wrong:
        remarks.append(f"{wrong} of {view.array.size} values are not finite")
    if view.spec.is_attribution and view.array.size:
        if not np.any(view.array):
            remarks.append(_all_zero(view))
        if view.spec.target is not None and view.spec.target.logits:
            remarks.append("of the logit, the score before softmax or sigmoid")
    return tuple(remarks)


def _all_zero(view: View) -> str:
    """Says what it means that every number is zero."""
    padded = None if view.source is None else view.source.padded
    if padded is not None and padded.all():
        return "all zero: nothing but padding was fed"
    one_sided = view.spec.sign == NEVER_NEGATIVE and not view.is_derivative
    if view.spec.layer is not None and one_sided:
        return (
            f"all zero: nothing at this layer speaks for the target ({view.spec.title} leaves out "
            "what speaks against it)"
        )
    return "all zero: the target does not react"
