"""One class or step of an attribution that explains several at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from probegen.artefact.manifest import CLASSES, OutputSpec, TargetSpec
from probegen.artefact.rows import BATCH, batch_axis, rows_first
from probegen.errors import InputError
from probegen.runtime.inputs import Array
from probegen.runtime.run import DrawableRecord, Run
from probegen.runtime.target import scored_class
from probegen.text import amount

#: How classes behind the best are counted in words.
_NTH = {1: "second", 2: "third"}


def nth_best(rank: int) -> str:
    """Returns the name of a rank: the best class (0), the second best (1) and so on."""
    return "best" if rank == 0 else f"{_NTH.get(rank, f'{rank + 1}th')} best"


def class_axis(spec: OutputSpec) -> int | None:
    """Returns which axis of an attribution several classes lie along, None where none does.

    Steps that are explained each by itself are such, too.
    """
    target = spec.target
    if target is None or not target.several or not spec.is_attribution:
        return None
    return spec.axes.index(target.axis) if target.axis in spec.axes else None


def classes_of(spec: OutputSpec, arrays: Mapping[str, Array], rows: int) -> Array | None:
    """Returns the classes that an attribution explains, `[batch, k]`.

    None where it explains one, where the classes are others at each position, and where it
    explains steps.

    Args:
        spec: the manifest's entry.
        arrays: the outputs of the run.
        rows: the number of samples.
    """
    at, target = class_axis(spec), spec.target
    if at is None or target is None or target.step is not None:
        return None
    if target.mode == "top":
        told = arrays.get(f"{spec.name}/{CLASSES}")
        return told if told is not None and told.ndim == 2 else None
    count = arrays[spec.name].shape[at]
    chosen = target.chosen if target.mode == "list" else range(count)
    return np.broadcast_to(np.array(chosen, np.int32), (rows, count))


def one_class(record: DrawableRecord, entries: Sequence[int]) -> tuple[Array, OutputSpec, Run]:
    """Returns one class of a record that explains several: its array, its entry, and its run.

    Args:
        record: the record.
        entries: which one along its axis of classes, for each sample.
    """
    at, target = _several(record)
    rows = record.run.rows
    chosen = np.asarray(entries, np.int64)
    batch = batch_axis(record.axes)
    if batch is None:
        array = np.take(record.array, int(chosen[0]), axis=at)
    else:
        turned = np.moveaxis(record.array, (batch, at), (0, 1))
        picked = turned[np.arange(len(turned)), chosen[: len(turned)]]
        array = np.moveaxis(picked, 0, batch)
    spec, run = record.spec, record.run
    if target.step is not None:
        said = f"{of_steps(target)} at step {int(chosen[0])}"
        now = dataclasses.replace(target, mode="callable", count=None, step=None, name=said)
    elif record.classes is None:
        said = f"the {nth_best(int(chosen[0]))} class at each position"
        now = dataclasses.replace(target, mode="callable", count=None, chosen=None, name=said)
    else:
        now = dataclasses.replace(target, mode="input", count=None, chosen=None)
        of_rows = record.classes[np.arange(rows), chosen].astype(np.int32)
        run = dataclasses.replace(run, target=of_rows)
    left = [i for i in range(len(spec.axes)) if i != at]
    alone = dataclasses.replace(
        spec,
        axes=tuple(spec.axes[i] for i in left),
        shape=tuple(spec.shape[i] for i in left),
        target=now,
    )
    return array, alone, run


def of_steps(target: TargetSpec) -> str:
    """Says what is explained at each step of a sequence."""
    if target.mode == "input":
        return "the class chosen in this run"
    if target.mode == "argmax":
        return "the highest class"
    index = [i for i in target.index or () if i is not None]
    return f"entry {index[0]}" if len(index) == 1 else "the sum" if not index else f"entry {index}"


def _several(record: DrawableRecord) -> tuple[int, TargetSpec]:
    """Returns the axis of classes of a record, and its target.

    Raises:
        InputError: it explains one class.
    """
    at, target = class_axis(record.spec), record.spec.target
    if at is None or target is None:
        raise InputError(f"{record.name!r} explains one class; it has no axis of classes.")
    return at, target


def entries_of_step(record: DrawableRecord, step: int) -> list[int]:
    """Returns where a step lies along the axis of steps, for each sample.

    Raises:
        InputError: the record does not explain each step, or not so many.
    """
    at, target = class_axis(record.spec), record.spec.target
    if at is None or target is None or target.step is None:
        raise InputError(
            f"{record.name!r} does not explain each step of a sequence; a probe with "
            "target=('steps', 3) does."
        )
    count = int(record.shape[at])
    if not -count <= step < count:
        raise InputError(
            f"{record.name!r} explains {amount(count, 'step')}, 0 to {count - 1}; got {step}."
        )
    return [step % count] * record.run.rows


def entries_of_rank(record: DrawableRecord, rank: int) -> list[int]:
    """Returns where the best class (rank 0), or the next, lies along the axis, for each sample.

    Raises:
        InputError: the record explains one class, or not so many.
    """
    at, target = _several(record)
    if target.step is not None:
        raise InputError(
            f"{record.name!r} explains steps, not classes; `.of_step(0)` is the first."
        )
    count = int(record.shape[at])
    if not 0 <= rank < count:
        raise InputError(f"{record.name!r} explains {amount(count, 'class')}; rank goes from 0.")
    return [row[rank] for row in _best_entries(record, count)]


def _best_entries(record: DrawableRecord, count: int) -> list[list[int]]:
    """Returns for each sample the entries along the axis of classes, highest prediction first.

    In the order in which they stand where the prediction does not tell.
    """
    plain = [list(range(count))] * record.run.rows
    target, classes = record.spec.target, record.classes
    if classes is None or target is None or target.mode == "top":
        return plain
    scores = record.predictions.get(str(target.output))
    if scores is None:
        return plain
    axes = record.run.manifest.output(str(target.output)).axes
    rows = rows_first(scores, axes, record.run.rows)
    named = [axis for axis in axes if axis != BATCH]
    if len(named) != 1 or classes.max(initial=0) >= rows.shape[1]:
        return plain
    chosen = np.take_along_axis(rows, classes.astype(np.int64), axis=1).astype(np.float64)
    return [np.argsort(-row, kind="stable").tolist() for row in chosen]


def entries_of_class(record: DrawableRecord, which: int | str) -> list[int]:
    """Returns where a class lies along the axis of classes, for each sample.

    Raises:
        InputError: it is not among the classes of a sample, or has no such name.
    """
    names = record.run.manifest.class_names
    index = which
    if isinstance(which, str):
        if names is None or which not in names:
            known = "the artefact knows no class names" if names is None else f"known: {names[:12]}"
            raise InputError(f"there is no class {which!r}: {known}.")
        target = record.spec.target
        index = scored_class(which, names, None if target is None else target.classes)
    if record.classes is None:
        raise InputError(f"{record.name!r} explains no classes that are the same at all positions.")
    found = []
    for row, classes in enumerate(record.classes.tolist()):
        if index not in classes:
            raise InputError(
                f"{record.name!r} does not explain class {which!r} in sample {row}, where it "
                f"explains {classes[:12]}."
            )
        found.append(classes.index(index))
    return found
