"""Attributions of several classes from those of each, by numpy: what references do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import CLASSES
from probegen.artefact.seeds import choices, seeds
from probegen.plan.plan import GradientGroup

Array = npt.NDArray[Any]


def class_by_class(
    group: GradientGroup,
    scores: Array,
    request: Array | None,
    feed: Mapping[str, Array],
    of_seeds: Callable[[Sequence[Array]], Sequence[Mapping[str, Array]]],
) -> dict[str, Array]:
    """Returns the outputs of a group, and which classes they explain.

    Args:
        group: what is differentiated.
        scores: what the target is taken from, the batch first.
        request: the targets asked for, where they are chosen by the request.
        feed: the inputs by name, a region among them where one weighs the scores.
        of_seeds: returns the outputs by name, or some of them, of each of `artefact.seeds.seeds`.
    """
    region = group.target.weights(feed)
    each = of_seeds(seeds(scores, group.target.spec, request, region))
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
