"""Attributions of several classes from those of each, by numpy: what references do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASSES
from probegen.artefact.seeds import choices
from probegen.plan.plan import GradientGroup

Array = npt.NDArray[Any]


def all_classes(
    group: GradientGroup,
    scores: Array,
    each: Sequence[Mapping[str, Array]],
    region: Array | None = None,
) -> dict[str, Array]:
    """Returns the outputs of a group, and which classes they explain.

    Args:
        group: what is differentiated.
        scores: what the target is taken from, the batch first.
        each: the outputs by name, or some of them, for each of `artefact.seeds.seeds`.
        region: what weighs the scores, where something does.
    """
    if not group.target.spec.several:
        return dict(each[0])
    found = {}
    for output in (o for o in group.outputs if o.spec.name in each[0]):
        name = output.spec.name
        found[name] = np.stack([one[name] for one in each], output.classes_at)
        for beside in output.beside_of(CLASSES):
            classes = np.moveaxis(choices(scores, group.target.spec, region), 0, 1).astype(np.int32)
            if group.target.spec.layer is not None:
                classes = classes.reshape(classes.shape[:2])
            found[beside] = classes
    return found
