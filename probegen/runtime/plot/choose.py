"""Decides which picture fits a record: by its kind, its axes, and the input it belongs to."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import ATTENTION, GRAD_CAM, PREDICTION
from probegen.runtime.plot import (
    attention,
    charts,
    features,
    image,
    prediction,
    series,
    tabular,
    text,
    volume,
)
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import number
from probegen.runtime.plot.view import (
    CHANNEL,
    DEPTH,
    HEAD,
    HEIGHT,
    KEY,
    QUERY,
    SEQUENCE,
    WIDTH,
    View,
)

Array = npt.NDArray[Any]


def choose(view: View) -> Picture:
    """Plans the picture that fits, with notes of what cannot be seen in it."""
    picture = _fitting(view)
    return dataclasses.replace(picture, notes=(*picture.notes, *_remarks(view)))


def _remarks(view: View) -> tuple[str, ...]:
    """Says where there is nothing to see, or not all, and what was differentiated."""
    remarks = []
    wrong = int(np.count_nonzero(~np.isfinite(view.array)))
    if wrong:
        remarks.append(f"{wrong} of {view.array.size} values are not finite")
    if view.is_gradient and view.array.size:
        if not np.any(view.array):
            remarks.append(_ALL_ZERO.get(view.spec.kind, "all zero: the target does not react"))
        if view.spec.target is not None and view.spec.target.logits:
            remarks.append("of the logit, the score before softmax or sigmoid")
    return tuple(remarks)


_ALL_ZERO = {
    GRAD_CAM: "all zero: nothing at this layer speaks for the target (Grad-CAM leaves out what "
    "speaks against it)",
}


def _fitting(view: View) -> Picture:
    """Plans the picture that fits; a generic one for axes and ranks that fit nothing."""
    if view.array.size == 0:
        return Picture(view.title, charts.CHART_WIDTH, 0.5, charts.draw_text("empty"))
    if len(set(view.axes)) < len(view.axes):
        return _anything(view)
    if view.spec.kind == ATTENTION and (view.has(QUERY, KEY) or view.has(HEAD, QUERY, KEY)):
        return attention.heads(view)
    if view.spec.kind == ATTENTION and view.axes == (KEY,):
        # One query alone, as in a layer that sums a sequence up: weights along the sequence.
        along = dataclasses.replace(view, axes=("time",))
        return _along_sequence(along) or features.units(view, view.array, KEY)
    found = None
    if view.is_gradient:
        found = _attribution(view)
    elif view.spec.kind == PREDICTION:
        found = _prediction(view)
    return found or _by_axes(view)


def _attribution(view: View) -> Picture | None:
    """Plans an attribution against the input it belongs to."""
    space, sequence = _space(view), view.axis(SEQUENCE) is not None
    if space == {HEIGHT, WIDTH} and not sequence:
        return image.attribution(view)
    if space == {DEPTH, HEIGHT, WIDTH} and not sequence:
        return volume.slices(view)
    if space == {HEIGHT, WIDTH} and sequence:
        return volume.film(view)
    if sequence and not space and view.array.ndim <= 2:
        return _along_sequence(view)
    if view.array.ndim == 1 and not space and not sequence:
        return tabular.attribution(view, view.source)
    return None


def _along_sequence(view: View) -> Picture | None:
    """Plans an attribution to the steps of a sequence: of tokens or of a time series."""
    length = view.array.shape[view.axis(SEQUENCE) or 0]
    source = view.source
    if source is not None and not source.is_text and source.length and source.array.ndim <= 2:
        return series.attribution(view, source)
    return text.boxes(view) if view.tokens(length) is not None else None


def _prediction(view: View) -> Picture | None:
    """Plans a prediction by what stands at each place: a class, a step, a pixel."""
    space, channel = _space(view), view.axis(CHANNEL)
    time = view.axis(SEQUENCE)
    if space == {HEIGHT, WIDTH} and time is None:
        names = [HEIGHT, WIDTH] + ([] if channel is None else [view.axes[channel]])
        maps = view.ordered(*names) if len(names) == view.array.ndim else None
        if maps is not None:
            return prediction.image_like(view, maps if channel is not None else maps[..., None])
    if time is not None and view.array.ndim <= 2 and not space:
        rows = np.moveaxis(view.array, time, -1).reshape(-1, view.array.shape[time])
        row_axis = next((a for i, a in enumerate(view.axes) if i != time), "value")
        return prediction.sequence(view, rows, view.axes[time], row_axis)
    if view.array.ndim == 1:
        return prediction.vector(view)
    return None


def _by_axes(view: View) -> Picture:
    """Plans what fits the axes alone: maps by channel, channels over time, units, anything."""
    space, channel, time = _space(view), view.axis(CHANNEL), view.axis(SEQUENCE)
    rest = len(view.axes) - len(space) - (channel is not None) - (time is not None)
    if rest == 0 and {HEIGHT, WIDTH} <= space and len(space) + (time is not None) <= 3:
        return _spatial(view)
    if not space and rest == 0 and time is not None:
        if channel is None:
            return features.over_time(view, view.array, view.axes[time])
        rows = view.ordered(view.axes[channel], view.axes[time])
        return features.channels_over_time(view, rows, view.axes[channel], view.axes[time])
    if view.array.ndim == 1:
        return features.units(view, view.array, view.axes[0])
    return _anything(view)


def _spatial(view: View) -> Picture:
    """Plans maps, middle slices of volumes or frames, a map for each channel or step."""
    channel, time = view.axis(CHANNEL), view.axis(SEQUENCE)
    inner = [a for a in (DEPTH, HEIGHT, WIDTH) if a in view.axes]
    names = [] if channel is None else [view.axes[channel]]
    if time is not None:
        stepwise = view.ordered(*names, view.axes[time], *inner)
        maps = stepwise if channel is None else stepwise.mean(0)
        return features.frames(view, maps, view.axes[time])
    maps = view.ordered(*names, *inner)
    maps = maps if names else maps[np.newaxis]
    what = names[0] if names else "map"
    return features.volume(view, maps, what) if DEPTH in inner else features.grid(view, maps, what)


def _anything(view: View) -> Picture:
    """Plans a picture for any rank: a number, columns, a heat map, or a grid of maps."""
    array, axes = view.array, view.axes
    if array.ndim == 0:
        text_of = charts.draw_text(number(float(array)))
        return Picture(view.title, charts.CHART_WIDTH, 0.5, text_of)
    if array.ndim == 1:
        return features.units(view, array, axes[0])
    if array.ndim == 2:
        return features.channels_over_time(view, array, axes[0], axes[1])
    if axes[-1] in CHANNEL:
        array, axes = np.moveaxis(array, -1, 0), (axes[-1], *axes[:-1])
    maps = array.reshape(-1, *array.shape[-2:])
    note = f"one map of {axes[-2]} (down) and {axes[-1]} (across) for each {', '.join(axes[:-2])}"
    return features.grid(view, maps, "map", (note,))


def _space(view: View) -> set[str]:
    return {a for a in view.axes if a in (DEPTH, HEIGHT, WIDTH)}
