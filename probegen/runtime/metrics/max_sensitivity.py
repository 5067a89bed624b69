"""Max-sensitivity: how much an attribution changes with its input (Yeh et al. 2019)."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import rows_first
from probegen.runtime.arguments import counted, positive
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.metrics.explained import Explained, changes_of, floating
from probegen.runtime.request import Request


def max_sensitivity(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    samples: int = 16,
    radius: float = 0.02,
    perturbations: npt.ArrayLike | None = None,
    relative: bool = True,
    seed: int = 0,
    **request: Unpack[Request],
) -> Array:
    """Returns the largest change of an attribution near each sample.

    `max over d of |attribution(x + d) - attribution(x)| / |attribution(x)|` in Euclidean norms, d
    drawn evenly from a cube of `radius` (Yeh et al. 2019, def. 3.1; the division, which the
    paper leaves out, is that of Captum and Quantus). Lower is better. The class stays that of the
    sample, unless the artefact was compiled with `target="argmax"`.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        samples: how many points are tried.
        radius: how far an element of the input moves at most, in its own units.
        perturbations: the changes d themselves, `[n, ...sample]` or `[n, batch, ...sample]`.
        relative: divide by the norm of the attribution; False is the paper's own form.
        seed: of the points; the same seed gives the same figures.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`; infinite where the attribution is all zero and changes.

    Raises:
        InputError: there is no such attribution, the input holds ids, or an argument does not fit.
    """
    count, reach = counted("samples", samples), positive("radius", radius)
    explained = Explained.of(artefact, inputs, output, request)
    floating(explained, "max_sensitivity")
    value = explained.value.astype(np.float64)
    if perturbations is None:
        # The same for all samples, so that no sample's figure depends on the others.
        perturbations = np.random.default_rng(seed).uniform(
            -reach, reach, (count, *value.shape[1:])
        )
    changes = changes_of(perturbations, explained)
    first = rows_first(explained.array, explained.spec.axes).astype(np.float64)
    largest = np.zeros(len(value))
    for change in changes:
        again = explained.attribution_at((value + change).astype(explained.value.dtype))
        largest = np.maximum(largest, _norms(again - first))
    if not relative:
        return largest
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(largest == 0, 0.0, largest / _norms(first)))


def _norms(values: Array) -> Array:
    return np.asarray(np.linalg.norm(values.reshape(len(values), -1), axis=1))
