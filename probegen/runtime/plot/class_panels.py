"""Attributions of several classes or steps at once: one panel each, one below the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from html import escape

from probegen.artefact.manifest import CLASS, STEP, names_of_scores
from probegen.runtime.one_class import nth_best
from probegen.runtime.plot.picture import Picture, draw_stacked, stacked_size
from probegen.runtime.plot.thinning import spread
from probegen.runtime.plot.verdict import class_name
from probegen.runtime.plot.view import View


def fits(view: View) -> bool:
    """Tells whether this is an attribution for each of several classes or steps."""
    axis = CLASS if view.spec.target is None else view.spec.target.axis
    own = view.source is not None and axis in view.source.axes
    panels = view.spec.is_attribution and view.axes[:1] == (axis,) and not own
    return panels and view.array.ndim > 1


def views(view: View) -> list[tuple[str, View]]:
    """Returns the classes of a view that `fits`, by name, each with its own view."""
    if view.axes[0] == STEP:
        names = [f"step {i}" for i in range(len(view.array))]
    elif view.explained_classes is None and view.spec.target is not None:
        names = [f"the {nth_best(i)} at each position" for i in range(len(view.array))]
    else:
        indices = view.explained_classes or range(len(view.array))
        target = view.spec.target
        of_layer = target is not None and target.layer is not None
        known = names_of_scores(view.class_names, None if target is None else target.classes)
        names = [f"channel {i}" if of_layer else class_name(int(i), known) for i in indices]
    return [
        (
            name,
            dataclasses.replace(
                view, array=array, axes=view.axes[1:], explained_classes=None, beside=()
            ),
        )
        for name, array in zip(names, view.array, strict=True)
    ]


def plan(view: View, plan_one: Callable[[View], Picture]) -> Picture:
    """Plans the picture of each class under its name, all below each other.

    Args:
        view: of several classes.
        plan_one: plans the picture of one class.
    """
    every = views(view)
    chosen, notes = spread(len(every), view.labels.max_panels, view.axes[0])
    parts = []
    for name, one in (every[i] for i in chosen):
        picture = plan_one(one)
        parts.append(dataclasses.replace(picture, title=name))
    shared = _shared(parts)
    parts = [
        dataclasses.replace(p, notes=tuple(n for n in p.notes if n not in shared)) for p in parts
    ]
    html = "".join(f"<h4>{escape(p.title)}</h4>{p.html}" for p in parts)
    width, height = stacked_size(parts)
    return Picture(
        view.title, width, height, functools.partial(draw_stacked, pictures=parts),
        (*notes, *shared), html if all(p.html for p in parts) else "",
    )  # fmt: skip


def _shared(parts: Sequence[Picture]) -> list[str]:
    """Returns the notes that every picture has: they are said once."""
    first = parts[0].notes if parts else ()
    return [note for note in first if all(note in part.notes for part in parts)]
