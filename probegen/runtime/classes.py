"""Which class a prediction is of, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from probegen.artefact.rows import rows_first, without_batch
from probegen.runtime.inputs import Array
from probegen.runtime.result import Record

_CLASS = "class"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The class of one row.

    Attributes:
        index: its index; None where the row has NaN.
        name: its name, None where it has none.
        score: what the model gave for it.
        probability: whether that is a probability: the model ends in a softmax or a sigmoid.
    """

    index: int | None
    name: str | None
    score: float | None
    probability: bool

    def __str__(self) -> str:
        if self.index is None or self.score is None:
            return "no class: the scores are NaN"
        shown = f"class {self.index}" if self.name is None else f"{self.name} (class {self.index})"
        return f"{shown}, {'probability' if self.probability else 'score'} {self.score:.4g}"


def chosen_classes(record: Record, names: Sequence[str] | None = None) -> list[Choice]:
    """Returns the class with the greatest score for each row of a prediction.

    A single probability is that of the second of two classes. Empty where the prediction gives no
    scores of classes.

    Args:
        record: a prediction.
        names: names of the classes; by default the manifest's.
    """
    names = record.run.manifest.class_names if names is None else names
    scores = rows_first(np.asarray(record.array), record.axes)
    axes = without_batch(record.axes, record.axes)
    probable = bool(record.spec.detail.get("activation"))
    if scores.ndim != 2 or scores.dtype.kind != "f" or not scores.shape[1]:
        return []
    if scores.shape[1] == 1:
        if not probable or names is None or len(names) != 2:
            return []
        scores = np.concatenate([1 - scores, scores], 1)
    elif axes[0] != _CLASS and (names is None or len(names) != scores.shape[1]):
        return []
    if names is not None and len(names) != scores.shape[1]:
        names = None
    return [_choice(row, names, probable) for row in scores]


def _choice(row: Array, names: Sequence[str] | None, probable: bool) -> Choice:
    if np.isnan(row).any():
        return Choice(None, None, None, probable)
    index = int(np.argmax(row))
    name = None if names is None else str(names[index])
    return Choice(index, name, float(row[index]), probable)
