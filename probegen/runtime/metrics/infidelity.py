"""Infidelity: how far an attribution is from what changes of the input do (Yeh et al. 2019)."""

from __future__ import annotations

import warnings
from typing import Unpack

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import rows_first
from probegen.runtime.arguments import counted, positive
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.metrics.explained import Explained, changes_of, floating
from probegen.runtime.request import Request


def infidelity(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    samples: int = 32,
    noise: float = 0.1,
    perturbations: npt.ArrayLike | None = None,
    scaled: bool = False,
    seed: int = 0,
    **request: Unpack[Request],
) -> Array:
    """Returns the mean squared error of the attribution as a prediction of changed scores.

    For changes I of the input x: `mean over I of (I . attribution - (f(x) - f(x - I)))^2`
    (Yeh et al. 2019, def. 2.1), lower being better. Meant for slopes (units of "score per unit of
    input"); of shares of a score, the paper's form has changes `x - baseline` alone.

    f is the artefact's prediction. Where an attribution explains the logit behind a softmax, which
    no prediction tells, a warning says so: compile it with `logits=False`.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        samples: how many changes are drawn.
        noise: standard deviation of the normal distribution that they are drawn from, in the units
            of the input.
        perturbations: the changes I themselves, `[n, ...sample]` or `[n, batch, ...sample]`.
        scaled: multiply each sample's attribution by what makes the error smallest (sec. 2.2),
            so that its unit does not count.
        seed: of the noise; the same seed gives the same figures.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`.

    Raises:
        InputError: there is no such attribution, it explains no prediction, the input holds ids,
            or an argument does not fit.
    """
    count, deviation = counted("samples", samples), positive("noise", noise)
    explained = Explained.of(artefact, inputs, output, request)
    floating(explained, "infidelity")
    value = explained.value.astype(np.float64)
    if perturbations is None:
        # The same for all samples, so that no sample's figure depends on the others.
        perturbations = np.random.default_rng(seed).normal(
            0.0, deviation, (count, *value.shape[1:])
        )
    changes = changes_of(perturbations, explained)
    weights, score = _elements(explained), explained.scores()
    _warn_of_logits(explained)
    foretold, happened = [], []
    for change in changes:
        moved = (value - change).astype(explained.value.dtype)
        fed = value - moved.astype(np.float64)  # the change in the input's precision
        foretold.append((weights * fed).reshape(len(value), -1).sum(1))
        happened.append(score - explained.scores(moved))
    told, seen = np.stack(foretold), np.stack(happened)
    if scaled:
        square = (told**2).sum(0)
        told = told * ((told * seen).sum(0) / np.where(square > 0, square, 1.0))
    return np.asarray(((told - seen) ** 2).mean(0))


def _elements(explained: Explained) -> Array:
    """Returns the attribution so that it broadcasts against the input, rows first."""
    spec = explained.positions.spec
    if sorted(explained.spec.axes) == sorted(spec.axes):
        order = [explained.spec.axes.index(axis) for axis in spec.axes]
        return rows_first(np.transpose(explained.array, order), spec.axes).astype(np.float64)
    return rows_first(explained.positions.over(explained.map()), spec.axes)


def _warn_of_logits(explained: Explained) -> None:
    target = explained.spec.target
    if target is None or not target.logits or target.output is None:
        return
    if explained.artefact.manifest.output(target.output).detail.get("activation"):
        warnings.warn(
            f"{explained.spec.name!r} explains a logit, and the artefact predicts what a softmax "
            "or sigmoid makes of it: infidelity compares the two. Compile it with logits=False, "
            "or pass scaled=True, which leaves the unit out.",
            stacklevel=3,
        )
