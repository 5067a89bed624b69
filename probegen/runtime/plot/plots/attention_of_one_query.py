"""Attention of one query alone, as in a layer that sums a sequence up: weights along the keys."""

from __future__ import annotations

import dataclasses

from probegen.artefact.manifest import DRAWN_AS_ATTENTION
from probegen.runtime.axes import KEY, SEQUENCE
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import series_bars, token_boxes, unit_columns
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether these are weights of one query."""
    return view.spec.draw == DRAWN_AS_ATTENTION and view.axes == (KEY,)


def plan(view: View) -> Picture:
    """Plans the weights over the series or the tokens that the keys are of, else as columns."""
    along = dataclasses.replace(view, axes=SEQUENCE[:1])
    if series_bars.has_series(along):
        return series_bars.plan(along)
    if token_boxes.has_tokens(along):
        return token_boxes.plan(along)
    return unit_columns.plan(view)
