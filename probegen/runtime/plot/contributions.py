"""What each feature of a vector contributes, ready to be drawn as bars, a waterfall or a force.

The strongest come first. Where an attribution's numbers add up to the score, what is not shown is
one more part, the sum of the rest.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASS
from probegen.errors import InputError
from probegen.runtime.axes import FEATURES
from probegen.runtime.plot.charts import NAME_LENGTH
from probegen.runtime.plot.labels import BARS
from probegen.runtime.plot.style import number
from probegen.runtime.plot.view import View
from probegen.text import shortened

Array = npt.NDArray[Any]

#: Letters of a name that stay however long its value is.
_SHORTEST = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Contributions:
    """The parts of one sample.

    Attributes:
        names: of the parts, each with the feature's value where it has one.
        values: of the parts, float64, the largest magnitude first and the rest last.
        rest: how many features the last part is the sum of; 0 where there is none.
        left_out: how many features are in no part.
        label: what the values are.
        signed: whether the sign means something.
    """

    names: list[str]
    values: Array
    rest: int
    left_out: int
    label: str
    signed: bool

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(np.nansum(self.values))

    @property
    def sum_note(self) -> str:
        """What the parts are together."""
        return f"together they add {number(self.total)} to the score of the reference"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        shown = len(self.values) - (self.rest > 0)
        if self.left_out:
            return (not_all(shown, shown + self.left_out),)
        return ()


def by_magnitude(values: Array) -> Array:
    """Returns the order in which features are shown, the largest magnitude first."""
    return np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")


def not_all(shown: int, count: int) -> str:
    """Says that only the first features of that order are shown."""
    return f"showing the {shown} largest of {count} features"


def is_vector(view: View) -> bool:
    """Tells whether this is an attribution to the features of a vector."""
    return view.spec.is_attribution and view.array.ndim == 1 and not view.space and not view.steps


def contributions_of(view: View) -> Contributions:
    """Returns the parts of an attribution `[feature]`."""
    source, values = view.source, np.asarray(view.array, np.float64)
    # The numbers of an embedding are no features, however many there are.
    named = view.axes[0] in FEATURES
    names = view.features(len(values)) if named else _numbered(view, len(values))
    if named and source is not None and source.array.size == len(values):
        given = np.asarray(source.array, np.float64).ravel()
        names = [_with_value(n, float(v)) for n, v in zip(names, given, strict=True)]
    order = by_magnitude(values)
    top, rest = order[: view.labels.top], order[view.labels.top :]
    shown, texts = values[top], [names[i] for i in top]
    summed = len(rest) if view.spec.sums_to_score else 0
    if summed:
        shown = np.append(shown, np.nansum(values[rest]))
        texts.append(f"sum of {summed} others")
    left_out = len(rest) - summed
    return Contributions(texts, shown, summed, left_out, view.quantity, view.signed)


def _numbered(view: View, size: int) -> list[str]:
    """Returns names along an axis that is none of features: classes and concepts may have some."""
    classes = view.classes(size) if view.axes[0] == CLASS else view.own_names(size)
    return classes or [f"{view.axes[0]} {i}" for i in range(size)]


def _with_value(name: str, value: float) -> str:
    """Returns a feature's name and value; of a name that is too long the end goes."""
    written = f" = {number(value)}"
    room = max(_SHORTEST, NAME_LENGTH - len(written))
    return shortened(name, room) + written


def asked_for(view: View, form: str) -> bool:
    """Tells whether a view is to be drawn in a form that its numbers must add up for."""
    return view.labels.form == form and can_add_up(view)


def can_add_up(view: View) -> bool:
    """Tells whether these are parts of a score that can be drawn one upon the other."""
    return is_vector(view) and view.spec.sums_to_score and bool(np.isfinite(view.array).all())


def check_form(view: View) -> None:
    """Raises an InputError where the form that was asked for does not fit what is drawn."""
    if view.labels.form == BARS or can_add_up(view) or not view.array.size:
        return
    why = (
        f"{view.spec.title} has no parts that add up to the score"
        if not view.spec.sums_to_score
        else f"{view.spec.name!r} has the axes {list(view.axes)}, and no finite number a feature"
    )
    raise InputError(
        f"form={view.labels.form!r} draws the features of a vector as parts of a score; {why}. "
        "Leave form= out."
    )
