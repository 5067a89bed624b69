"""Selectors: the grammar that says which probe points are meant.

=====================  =========================================================
``"block*/conv1"``     glob on the path; ``*`` also crosses ``/``; a leading ``/`` is optional
``"shared#1"``         call 1 of a layer that is called more than once
``"re:conv\\d+$"``      regular expression, searched in the path
``"type:Conv2D"``      class name of the layer or of one of its bases (a glob)
``"role:attention"``   role, as `pg.inspect` shows it
``"states:lstm"``      in ``wrt=`` alone: glob on the names of hidden states over time
``-1``                 index into the model's own list of layers
a layer                that layer, all its calls
a callable             predicate on a `ProbePoint`
a list                 the union of these, in the order of the model
=====================  =========================================================
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

from probegen.errors import SelectionError, did_you_mean
from probegen.plan.points import ProbePoint

#: What stands in front of a glob on the names of states over time, in `wrt=` alone.
OF_STATES = "states:"

#: What a layer can be for; see `pg.inspect`.
ROLES = (
    "input",
    "convolution",
    "attention",
    "recurrent",
    "embedding",
    "normalisation",
    "pooling",
    "dense",
    "activation",
    "merging",
    "reshaping",
    "regularisation",
    "preprocessing",
    "model",
    "other",
    "output",
)


def select(
    points: Sequence[ProbePoint], selector: Any, layers: Sequence[Any] = ()
) -> list[ProbePoint]:
    """Returns the points that `selector` means, in the order of the model.

    Args:
        points: all probe points.
        selector: see the table at the head of this file.
        layers: the model's own list of layers, which an index counts in.

    Raises:
        SelectionError: nothing matches, or the selector is malformed; names what is near.
    """
    if isinstance(selector, list | tuple | set | frozenset):
        parts = [select(points, part, layers) for part in selector]
        chosen = {id(p) for part in parts for p in part}
        if not chosen:
            raise SelectionError("the list of selectors is empty.")
        return [p for p in points if id(p) in chosen]
    matches = _predicate(points, selector, layers)
    found = [p for p in points if matches(p)]
    if not found:
        raise SelectionError(f"no layer matches {selector!r}.{_nearest(points, selector)}")
    return found


def select_one(
    points: Sequence[ProbePoint], selector: Any, layers: Sequence[Any], why: str
) -> ProbePoint:
    """Returns the single point that `selector` means.

    Raises:
        SelectionError: none or several match; several are listed with their calls.
    """
    found = select(points, selector, layers)
    if len(found) > 1:
        raise too_many([p.name for p in found], selector, why)
    return found[0]


def too_many(names: Sequence[str], selector: Any, why: str) -> SelectionError:
    """Returns the error for a selector that matches several where `why` takes one."""
    shown = ", ".join(map(repr, names[:8]))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return SelectionError(f"{why} takes one layer, {selector!r} matches {shown}{more}.")


def _predicate(
    points: Sequence[ProbePoint], selector: Any, layers: Sequence[Any]
) -> Callable[[ProbePoint], bool]:
    if isinstance(selector, str):
        return _text_predicate(selector)
    if isinstance(selector, int) and not isinstance(selector, bool):
        try:
            layer = layers[selector]
        except IndexError:
            raise SelectionError(
                f"layer index {selector} is out of range; the model has {len(layers)} layers."
            ) from None
        return lambda point: point.layer is layer
    if any(point.layer is selector for point in points):
        return lambda point: point.layer is selector
    if hasattr(selector, "_flatten_layers"):
        raise SelectionError(
            f"the layer object {getattr(selector, 'name', selector)!r} is not called in this "
            f"model.{did_you_mean(str(getattr(selector, 'name', '')), [p.path for p in points])}"
        )
    if callable(selector):
        return lambda point: bool(selector(point))
    raise SelectionError(
        f"{selector!r} is no selector; expected a path glob, 're:...', 'type:...', 'role:...', "
        "an index, a layer, a predicate or a list of these."
    )


def _text_predicate(selector: str) -> Callable[[ProbePoint], bool]:
    prefix, colon, rest = selector.partition(":")
    if colon and prefix == "re":
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise SelectionError(f"{selector!r} is no regular expression: {error}.") from error
        return lambda point: pattern.search(point.path) is not None
    if colon and prefix == "type":
        return lambda point: any(fnmatch.fnmatchcase(n, rest) for n in class_names(point))
    if colon and prefix == "role":
        if rest not in ROLES:
            raise SelectionError(f"there is no role {rest!r}.{did_you_mean(rest, ROLES)}")
        return lambda point: rest in point.roles
    # Exporters write scopes with a slash in front, paths have none.
    globs = {selector, selector.lstrip("/") or selector}
    return lambda point: any(
        name == glob or fnmatch.fnmatchcase(name, glob)
        for name in (point.path, f"{point.path}#{point.call_index}")
        for glob in globs
    )


def class_names(point: ProbePoint) -> list[str]:
    """Returns the names of the layer's class and of its bases."""
    bases = type(point.layer).__mro__ if point.layer is not None else ()
    return [point.class_name, *(cls.__name__ for cls in bases if cls is not object)]


def _nearest(points: Sequence[ProbePoint], selector: Any) -> str:
    if not isinstance(selector, str):
        return ""
    prefix, colon, rest = selector.partition(":")
    if colon and prefix == "type":
        return did_you_mean(rest, sorted({p.class_name for p in points}))
    if colon and prefix == "role":
        return did_you_mean(rest, sorted({r for p in points for r in p.roles}))
    path, hash_sign, _ = selector.rpartition("#")
    same = [p for p in points if p.path == path] if hash_sign else []
    if same:
        return (
            f" {path!r} has the calls " + ", ".join(f"'{path}#{p.call_index}'" for p in same) + "."
        )
    return did_you_mean(selector, _path_candidates(points, selector))


def _path_candidates(points: Sequence[ProbePoint], selector: str) -> list[str]:
    """Puts paths that end in the selected name first: a nested layer named without its model."""
    tail = [p.name for p in points if p.path.rsplit("/", 1)[-1] == selector]
    return tail or [p.name for p in points]
