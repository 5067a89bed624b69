"""What was predicted and what was explained, in a few words for a title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASS, TargetSpec
from probegen.artefact.rows import BATCH, batch_axis, one_row
from probegen.runtime.run import DrawableRecord

Array = npt.NDArray[Any]

#: What the sides of a contrast are called.
RANKS = {"argmax": "the highest class", "runner_up": "the second highest class"}


def verdict(record: DrawableRecord, sample: int, names: Sequence[str] | None) -> str:
    """Returns for instance `"predicted seven (p = 0.98), explained: nine"`; may be empty."""
    target = record.spec.target if record.spec.is_attribution else None
    output = target.output if target is not None and target.output else None
    row = _row(record, sample, output)
    said = [] if row is None else [_predicted(row, names)]
    if target is not None:
        said.append(_explained(record, sample, target, row, names))
    return ", ".join(words for words in said if words)


def is_distribution(scores: Array) -> bool:
    """True where a vector holds probabilities of classes that exclude each other."""
    return bool(
        scores.ndim == 1
        and scores.size > 1
        and np.all(scores >= 0)
        and abs(float(scores.sum()) - 1) < 1e-2
    )


def class_name(index: int, names: Sequence[str] | None) -> str:
    """Returns the name of a class, or `"class 3"` where it has none."""
    return str(names[index]) if names is not None and index < len(names) else f"class {index}"


def of_layer(target: TargetSpec) -> str:
    """Says what is explained of a layer's output."""
    where = str(target.layer_call)
    index = [i for i in target.index or () if i is not None]
    if target.mode == "index" and len(index) == 1:
        return f"channel {index[0]} of {where}"
    if target.mode == "index":
        return f"an entry of {where}" if index else f"the sum of {where}"
    return (
        f"a channel chosen in this run, of {where}"
        if target.mode == "input"
        else (
            f"the strongest channel of {where}"
            if target.mode == "argmax"
            else f"channels of {where}"
        )
    )


def _row(record: DrawableRecord, sample: int, output: str | None) -> Array | None:
    """Returns the prediction of one sample where it is a vector."""
    predictions = record.predictions
    name = output if output in predictions else next(iter(predictions), None)
    array = None if name is None else predictions[name]
    if name is None or array is None:
        return None
    axes = record.run.manifest.output(name).axes
    at = batch_axis(axes)
    if array.ndim > 2 or at is None or sample >= array.shape[at]:
        return None
    return np.atleast_1d(np.asarray(one_row(array, axes, sample), np.float64))


def _predicted(row: Array, names: Sequence[str] | None) -> str:
    if row.size == 1:
        value = float(row[0])
        if names is not None and len(names) == 2 and 0 <= value <= 1:
            chosen = int(value >= 0.5)
            return f"predicted {names[chosen]} (p = {value if chosen else 1 - value:.2f})"
        return f"predicted {value:.3g}"
    if is_distribution(row):
        top = int(np.argmax(row))
        return f"predicted {class_name(top, names)} (p = {row[top]:.2f})"
    if names is not None and len(names) == row.size:
        top = int(np.argmax(row))
        return f"predicted {class_name(top, names)} (score {row[top]:.3g})"
    return ""


def _explained(
    record: DrawableRecord,
    sample: int,
    target: TargetSpec,
    row: Array | None,
    names: Sequence[str] | None,
) -> str:
    """Returns what was differentiated where it is not simply the predicted class."""
    if target.mode == "callable":
        return f"explained: {target.name or 'a function of the outputs'}"
    if target.mode == "contrast":
        of = None if target.layer is not None else names
        sides = [class_name(i, of) if isinstance(i, int) else i for i in target.chosen or ()]
        said = " rather than ".join(RANKS.get(side, side) for side in sides)
        return f"explained: {said}"
    if target.layer is not None:
        return f"explained: {of_layer(target)}"
    if row is not None and row.size == 1:  # what is explained speaks for the second of two classes
        other = names is not None and len(names) == 2 and 0 <= float(row[0]) < 0.5
        return f"explained: {names[1]}" if names is not None and other else ""
    said = _asked_for(record, sample, target, row, names)
    return f"explained: {said}" if said else ""


def _asked_for(
    record: DrawableRecord,
    sample: int,
    target: TargetSpec,
    row: Array | None,
    names: Sequence[str] | None,
) -> str:
    """Returns which class or entry was asked for, nothing where it is the predicted class."""
    of, sizes = _axes(record, target.output)
    of_units = bool(of) and of[-1] != CLASS and names is None
    if target.mode == "index" and (of_units or len(of) > 1):
        return _entry(of, sizes, target, names)
    index = _index(record, sample, target)
    if index is None or index < 0 or (row is not None and index == int(np.argmax(row))):
        return ""
    return f"{of[-1]} {index}" if of_units else class_name(index, names)


def _axes(record: DrawableRecord, output: str | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the axes of a prediction but that of the batch, and their sizes."""
    array = None if output is None else record.predictions.get(output)
    if output is None or array is None:
        return (), ()
    named = zip(record.run.manifest.output(output).axes, array.shape, strict=True)
    kept = [(name, size) for name, size in named if name != BATCH]
    return tuple(name for name, _ in kept), tuple(size for _, size in kept)


def _entry(
    axes: Sequence[str], sizes: Sequence[int], target: TargetSpec, names: Sequence[str] | None
) -> str:
    """Returns which entry of an output is explained: `"step 0, unit 2"`, `"last step, nine"`.

    Axes that are summed over, and those of one entry, are left out.
    """
    entries = target.index or ()
    if len(entries) != len(axes):
        return ""
    said = []
    for place, (axis, size, entry) in enumerate(zip(axes, sizes, entries, strict=True)):
        if entry is None or size == 1:
            continue
        named = names is not None and place == len(axes) - 1 and 0 <= entry < len(names)
        known = str(names[entry]) if names is not None and named else f"{axis} {entry}"
        said.append(f"last {axis}" if entry == -1 else known)
    return ", ".join(said)


def _index(record: DrawableRecord, sample: int, target: TargetSpec) -> int | None:
    """Returns which class was asked for, None where it is not a single one."""
    if target.mode == "index" and target.index:
        return target.index[-1]
    if target.mode == "input" and record.run.target is not None:
        return int(record.run.target[sample])
    return None
