"""Attributions of each step of the output: heat maps of output steps (down) over input steps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import STEP
from probegen.errors import InputError
from probegen.runtime.axes import CHANNEL, FEATURES, SEQUENCE
from probegen.runtime.plot import charts
from probegen.runtime.plot import labels as labelling
from probegen.runtime.plot.picture import Picture, draw_stacked, stacked_size
from probegen.runtime.plot.plots.token_boxes import join_rest
from probegen.runtime.plot.steps import TOKEN, Steps, given_steps, steps_of
from probegen.runtime.plot.style import WARM, Scale, attribution_scale
from probegen.runtime.plot.view import View
from probegen.runtime.texts.whole_words import NORM, Word, join
from probegen.text import amount

Array = npt.NDArray[Any]

#: Features that have a map each; of more, and of embeddings, there is one map for all.
_MOST_FEATURES = 4


def fits(view: View) -> bool:
    """Tells whether steps of the output are explained over those of a sequence, or features."""
    target, rest = view.spec.target, view.axes[1:]
    of_steps = target is not None and target.step is not None and view.axes[:1] == (STEP,)
    known = all(axis in (*SEQUENCE, *CHANNEL) for axis in rest)
    return view.spec.is_attribution and of_steps and known and 1 <= len(rest) <= 2


def plan(view: View) -> Picture:
    """Plans a heat map, or one for each of a few features, on one scale.

    Takes `[step, time]`, `[step, time, feature]`, `[step, time, embedding]` and `[step, feature]`.
    Padding is grey.
    """
    along = next((a for a in view.axes[1:] if a in SEQUENCE), view.axes[1])
    others = [a for a in view.axes[1:] if a != along]
    array = view.ordered(STEP, along, *others)
    maps, names, notes, signed = _maps(view, array if others else array[..., np.newaxis], others)
    columns = _columns(view, maps.shape[2], along)
    rows = _rows(view, maps.shape[1], columns)
    padded = view.padding(maps.shape[2]) if along in SEQUENCE else None
    is_text = columns.title == TOKEN and columns.texts is not None
    words = view.words(columns.texts or []) if is_text else None
    if padded is not None:
        maps = np.where(padded, np.nan, maps)
        count = np.count_nonzero(padded)
        notes = (*notes, f"{count} of {len(padded)} positions are padding, grey")
    if words is not None and len(words) < maps.shape[2]:
        how = view.joins(signed)
        maps, notes = join(maps, words, how, 2), (*notes, f"pieces joined into words: {how}")
        columns = _of_words(words)
    scale = attribution_scale(maps, signed, WARM, has_zero=view.has_zero)
    pictures = [
        _picture(view, one, name, rows, columns, scale)
        for one, name in zip(maps, names, strict=True)
    ]
    if len(pictures) == 1:
        return Picture(view.title, pictures[0].width, pictures[0].height, pictures[0].draw, notes)
    draw = functools.partial(draw_stacked, pictures=pictures)
    return Picture(view.title, *stacked_size(pictures), draw, notes)


def _maps(
    view: View, array: Array, others: list[str]
) -> tuple[Array, list[str], tuple[str, ...], bool]:
    """Returns maps `[map, step, column]`, what each is of, notes, and whether they have a sign."""
    size = array.shape[2]
    if others and others[0] in FEATURES and size <= _MOST_FEATURES:
        names = view.features(size) if size > 1 else [""]
        return np.moveaxis(array, 2, 0), names, (), view.signed
    joined, note = join_rest(array.reshape(-1, size), view)
    signed = view.signed and not note.startswith(NORM)
    return joined.reshape(1, *array.shape[:2]), [""], (note,) if note else (), signed


def _columns(view: View, size: int, along: str) -> Steps:
    if along in SEQUENCE:
        return steps_of(view, size, along)
    return Steps(np.arange(size, dtype=np.float64), view.features(size), False, along)


def _of_words(words: list[Word]) -> Steps:
    places = np.arange(len(words), dtype=np.float64)
    return Steps(places, [word.text for word in words], False, "word")


def _picture(
    view: View, values: Array, name: str, rows: list[str] | None, columns: Steps, scale: Scale
) -> Picture:
    draw = functools.partial(
        charts.draw_map, values=values, scale=scale, label=view.quantity, x=columns,
        y_title="step of the output", y_names=rows,
    )  # fmt: skip
    height = max(1.6, charts.map_height(len(values))) + 0.5 + columns.below
    return Picture(name, charts.CHART_WIDTH, height, draw)


def _rows(view: View, size: int, columns: Steps) -> list[str] | None:
    """Returns what stands at the steps of the output: what the caller says, or the input's tokens.

    An output with a step for each token of its input is taken to be of these.
    """
    output = None if view.spec.target is None else view.spec.target.output
    for given in (view.labels.query_tokens, view.labels.tokens):
        named = labelling.spelt_tokens(labelling.belongs_to(given, str(output)), view.sample)
        if named is not None:
            return named[:size] + [""] * (size - len(named))
    time = view.time_of(str(output))
    if time is not None:
        if len(time) != size:
            raise InputError(
                f"time of {output!r} has {amount(len(time), 'entry')}, and it has "
                f"{amount(size, 'step')}."
            )
        return given_steps(time, "").texts
    if view.labels.query_tokens is not None:
        row = view.tokens(size, query=True)
        return None if row is None or len(row) != size else row
    same = columns.title == TOKEN and columns.texts is not None and len(columns.texts) == size
    return columns.texts if same else None
