"""The `target` argument of a run: which class to differentiate, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest, names_of_scores
from probegen.errors import InputError, did_you_mean
from probegen.runtime.inputs import Array
from probegen.text import amount

#: A class index or name for all rows, or one for each row; -1 and "argmax" are a row's own best.
Target = int | str | Sequence[int | str] | npt.NDArray[np.integer[Any]]

ARGMAX = -1
_BEST = "argmax"


def check_target(target: Target | None, manifest: Manifest, batch: int) -> Array | None:
    """Returns the int32 `[batch]` target to feed, or None where the artefact takes none.

    Raises:
        InputError: the artefact takes no target, or this one is out of range, of the wrong
            type or of the wrong length.
    """
    if not manifest.target_input:
        if target is not None:
            raise InputError(
                "a target was given, but it was fixed when the artefact was compiled: "
                f"{_fixed(manifest)}. Compile with target='input' to choose it in each run."
            )
        return None
    rows = _rows(ARGMAX if target is None else target, batch)
    if len(rows) != batch:
        raise InputError(
            f"target has {amount(len(rows), 'entry')} for a batch of {batch}; "
            "pass one for each row, or a single one for all."
        )
    return np.array([_index(row, manifest) for row in rows], np.int32)


def _rows(target: Target, batch: int) -> Sequence[Any]:
    """Returns a target for each row; arrays become plain Python values."""
    plain = np.asarray(target).tolist() if hasattr(target, "__array__") else target
    if isinstance(plain, Sequence) and not isinstance(plain, str):
        return plain
    return [plain] * batch


def _fixed(manifest: Manifest) -> str:
    modes = [f"{o.name!r} is of {o.target.mode}" for o in manifest.explanations if o.target]
    return ", ".join(modes) or "it has no gradient outputs"


def _index(target: Any, manifest: Manifest) -> int:
    """Returns one class index, checked against the range that the manifest knows."""
    if isinstance(target, str):
        return _named(target, manifest)
    if isinstance(target, bool) or not isinstance(target, int | np.integer):
        raise InputError(
            f"the target {target!r} is a {type(target).__name__}; "
            "pass a class index (int) or a class name (str)."
        )
    classes = manifest.target_classes
    if target < ARGMAX or (classes is not None and target >= classes):
        legal = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise InputError(
            f"the target {int(target)} is out of range: legal are {legal}, "
            "or -1 for each row's argmax."
        )
    return int(target)


def _named(target: str, manifest: Manifest) -> int:
    """Returns the index of a class by its name, or what stands for the best one."""
    if target == _BEST and target not in (manifest.class_names or ()):
        return ARGMAX
    if manifest.class_names is None:
        raise InputError(
            f"the target {target!r} is a name, but the artefact knows no class names; pass an "
            "index, or compile with class_names=[...]."
        )
    if target not in manifest.class_names:
        raise InputError(
            f"there is no class {target!r}.{did_you_mean(target, manifest.class_names)}"
        )
    return scored_class(target, manifest.class_names, manifest.target_classes)


def scored_class(name: str, names: Sequence[str], classes: int | None) -> int:
    """Returns which score is that of a class.

    Args:
        name: of the class, one of `names`.
        names: of all classes.
        classes: how many scores there are; None where that is open.

    Raises:
        InputError: none is: a single score is that of the second of two classes, or these are
            names of another output.
    """
    scored = names_of_scores(names, classes)
    if scored is not None and name in scored:
        return scored.index(name)
    if classes == 1 and len(names) == 2:
        raise InputError(
            f"the model has one score, that of {names[1]!r}. What it says of {name!r} is the same "
            f"with the other sign: explain {names[1]!r}."
        )
    raise InputError(
        f"{name!r} is one of {len(names)} names of classes, and what is explained has {classes}: "
        "pass an index."
    )
