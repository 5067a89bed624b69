"""Sparseness: the Gini index of an attribution's magnitudes (Chalasani et al. 2020)."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from probegen.artefact.rows import rows_first
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.metrics.explained import Explained
from probegen.runtime.request import Request


def sparseness(
    artefact: Artefact, inputs: Inputs, output: str, **request: Unpack[Request]
) -> Array:
    """Returns how much of an attribution stands in few elements.

    The Gini index of the magnitudes of all of its elements (Chalasani et al. 2020, sec. 4.1): 0
    where all are equally large (or all zero), 1 - 1/n where one of n holds everything.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`, 0 to 1.

    Raises:
        InputError: there is no such attribution, or the inputs do not fit.
    """
    explained = Explained.of(artefact, inputs, output, request)
    values = np.abs(rows_first(explained.array, explained.spec.axes).astype(np.float64))
    ordered = np.sort(values.reshape(len(values), -1), axis=1)
    size = ordered.shape[1]
    ranks = 2 * np.arange(1, size + 1) - size - 1
    total = size * ordered.sum(1)
    return np.asarray((ordered @ ranks) / np.where(total > 0, total, 1.0))
