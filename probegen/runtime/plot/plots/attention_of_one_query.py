"""Attention of one query alone, as in a layer that sums a sequence up: weights along the keys."""

from __future__ import annotations

import dataclasses

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, IDENTITY_DETAIL
from probegen.runtime.axes import KEY, SEQUENCE
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots import series_bars, token_boxes, unit_columns
from probegen.runtime.plot.plots.attention_heads import WITHOUT_IDENTITY, largest_alone
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether these are weights of one query."""
    return view.spec.draw == DRAWN_AS_ATTENTION and view.axes == (KEY,)


def plan(view: View) -> Picture:
    """Plans the weights over the series or the tokens that the keys are of, else as columns."""
    view, notes = _without_identity(view)
    along = dataclasses.replace(view, axes=SEQUENCE[:1], beside=())
    if series_bars.has_series(along):
        picture = series_bars.plan(along)
    elif token_boxes.has_tokens(along):
        picture = token_boxes.plan(along)
    else:
        picture = unit_columns.plan(view)
    return dataclasses.replace(picture, notes=(*picture.notes, *notes, *largest_alone(view)))


def _without_identity(view: View) -> tuple[View, tuple[str, ...]]:
    """Returns the row without the 1 of an identity that it begins with, and what is to be said."""
    query = view.spec.detail.get("query")
    if not view.spec.detail.get(IDENTITY_DETAIL) or not isinstance(query, int):
        return view, ()
    array = view.array.copy()
    array[query] -= 1
    return dataclasses.replace(view, array=array), (WITHOUT_IDENTITY,)
