"""Pictures of records: the one place of the runtime that imports matplotlib.

    labels, view      what is drawn, and what the caller said about it
    choose            the table of plots: which picture fits what
    plots             one plot a file: each plans a `Picture`
    maximised         an input that was searched for
    generated         a text that was written, with a row for each new token
    picture, mosaic, charts, image, stack, steps, style, thinning
                      layout, shared charts, pictures and colours
    fonts, writing    signs that the usual font lacks, and which way a text runs
    inline            figures as part of a web page

Figures are made without pyplot: nothing is registered, no backend or display is needed, and
several threads may draw at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from matplotlib.figure import Figure

from probegen.artefact.manifest import DRAWN_BESIDE, OutputSpec, class_axis
from probegen.errors import InputError, did_you_mean
from probegen.runtime.axes import SEQUENCE, axis_of
from probegen.runtime.files import write_atomic
from probegen.runtime.plot import class_panels
from probegen.runtime.plot.choose import picture_of
from probegen.runtime.plot.contributions import check_form
from probegen.runtime.plot.fonts import readers_own
from probegen.runtime.plot.generated import picture as picture_of_generated
from probegen.runtime.plot.inline import inline_svg
from probegen.runtime.plot.labels import Labels, check, check_class_names, is_by_name
from probegen.runtime.plot.maximised import pictures
from probegen.runtime.plot.picture import Picture, figure_of, stack
from probegen.runtime.plot.plots import step_maps
from probegen.runtime.plot.style import DPI
from probegen.runtime.plot.view import View, place, sources_of, view_of

__all__ = [
    "Samples",
    "check_against",
    "class_views",
    "figure_of",
    "generated_figure",
    "inline_svg",
    "maximised_figure",
    "picture_of",
    "place",
    "readers_own",
    "record_figure",
    "record_view",
    "result_figure",
    "save",
    "view_of",
]

if TYPE_CHECKING:
    from probegen.runtime.run import DrawableRecord, DrawableResult, Run

Array = npt.NDArray[Any]

#: Maps and heads in a picture of the overview, unless the caller says otherwise.
_OVERVIEW_PANELS = 16


#: A row of a batch, or several.
Samples = int | Sequence[int]


def record_figure(record: DrawableRecord, sample: Samples, options: Mapping[str, Any]) -> Figure:
    """Returns the figure of one sample of one record, or of several below each other.

    Raises:
        InputError: there is no such sample, or an option does not fit.
    """
    rows = _samples(sample)
    views = [record_view(record, one, options, len(rows)) for one in rows]
    for view in views:
        check_form(view)
    return stack(_pictures(views))


def _samples(given: Samples) -> list[int]:
    """Returns the rows of a batch to draw.

    Raises:
        InputError: there are none.
    """
    if isinstance(given, str | bytes | float) or not hasattr(given, "__iter__"):
        return [given]  # type: ignore[list-item]
    rows = list(given)
    if not rows:
        raise InputError("sample= is an empty list; it takes the number of a row, or several.")
    return rows


def _pictures(views: Sequence[View]) -> list[Picture]:
    """Plans the pictures of samples of one record, with the number of each before its title."""
    if len(views) == 1:
        return [picture_of(views[0])]
    beside = [dataclasses.replace(view, beside=tuple(views)) for view in views]
    planned = [picture_of(view) for view in beside]
    shared = [note for note in planned[0].notes if all(note in p.notes for p in planned)]
    pictures = []
    for view, picture in zip(beside, planned, strict=True):
        notes = tuple(note for note in picture.notes if note not in shared)
        notes += tuple(shared) if view is beside[-1] else ()
        title = f"Sample {view.sample} \u2014 {picture.title}"
        pictures.append(dataclasses.replace(picture, title=title, notes=notes))
    return pictures


def generated_figure(
    spec: OutputSpec, rows: Array, before: Sequence[str], new: Sequence[str], words: bool = False
) -> Figure:
    """Returns the figure of a text that was written; see `generated.picture`."""
    return figure_of(picture_of_generated(spec, rows, before, new, words))


def record_view(
    record: DrawableRecord, sample: int, options: Mapping[str, Any], drawn: int = 1
) -> View:
    """Checks the options against the record and takes one sample of `drawn`.

    Raises:
        InputError: there is no such sample, or an option does not fit.
    """
    labels = Labels.of(options)
    check_against(labels, record.run, record.predictions.values())
    return view_of(record, sample, labels, drawn)


def result_figure(result: DrawableResult, sample: Samples, options: Mapping[str, Any]) -> Figure:
    """Returns one tall figure with one sample of each record, or several.

    Raises:
        InputError: there is no such sample, or an option does not fit.
    """
    labels = Labels.of({"max_panels": _OVERVIEW_PANELS, **options})
    check_against(labels, result.run, (r.array for r in result.predictions.values()))
    records = [r for r in result.values() if r.spec.draw != DRAWN_BESIDE and not r.spec.is_state]
    shown = records[: labels.max_outputs]
    left_out = [record.name for record in records[len(shown) :]]
    note = f"not shown: {', '.join(left_out)}" if left_out else ""
    rows = _samples(sample)
    views = ([view_of(record, row, labels, len(rows)) for row in rows] for record in shown)
    return stack([picture for of_record in views for picture in _pictures(of_record)], note)


def maximised_figure(
    result: DrawableResult,
    output: str,
    history: Array | None,
    sample: int,
    options: Mapping[str, Any],
) -> Figure:
    """Returns the figure of an input that was searched for, and of the score on the way.

    Args:
        result: of a run on what was found.
        output: name of the gradient that was followed.
        history: the score at each step, `[step, batch]`, where it is known.
        sample: the row of the batch.
        options: of the plot.

    Raises:
        InputError: there is no such sample, or an option does not fit.
    """
    view = record_view(dict(result.items())[output], sample, options)
    return stack(pictures(view, None if history is None else history[:, view.sample]))


def check_against(labels: Labels, run: Run, predictions: Iterable[Any]) -> None:
    """Raises an InputError for a label that belongs to no input or prediction of a run."""
    places = [source.place for source in sources_of(run, 0)]
    known = [*run.inputs, *(spec.name for spec in run.manifest.outputs)]
    samples = run.rows
    lengths = {p.length for p in places if p.length is not None}
    for spec in run.manifest.outputs:  # text becomes a sequence only within the model
        along = axis_of(spec.axes, SEQUENCE)
        size = None if along is None else spec.shape[along]
        lengths |= set() if size is None else {size}
    check(labels, places, known, samples, max(lengths, default=0))
    if labels.forecast not in (None, False) and not any(p.length and not p.is_text for p in places):
        raise InputError("forecast= is for a series, and no input is one.")
    specs = run.manifest.predictions
    truth: Any = labels.truth
    for name in truth if is_by_name(truth) else ():
        if name not in {spec.name for spec in specs}:
            known_ones = [spec.name for spec in specs]
            raise InputError(
                f"truth has the key {name!r}, which is no prediction."
                f"{did_you_mean(str(name), known_ones)}"
            )
    sizes = {
        array.shape[class_axis(spec.axes)] if array.ndim > 1 else 1
        for spec, array in zip(specs, predictions, strict=False)
    }
    check_class_names(labels.class_names, sizes)


def class_views(view: View) -> list[tuple[str, View]]:
    """Returns a view for each class by its name, nothing where all are in one picture or one is."""
    in_one = step_maps.fits(view)
    return class_panels.views(view) if class_panels.fits(view) and not in_one else []


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = DPI) -> Path:
    """Writes a figure whole or not at all, in the format that the suffix says.

    Raises:
        InputError: matplotlib writes no such format.
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lower().lstrip(".")
    if kind not in known:
        raise InputError(
            f"cannot draw {str(path)!r}: {path.suffix or 'no suffix'!r} is no picture format."
            f"{did_you_mean(kind, known)}"
        )
    return write_atomic(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))
