"""Deletion and insertion: the score as the strongest positions go or come (Petsiuk et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import BATCH, rows_first, without_batch
from probegen.errors import InputError
from probegen.runtime.arguments import positive
from probegen.runtime.axes import HEIGHT, NEIGHBOURS, WIDTH
from probegen.runtime.inputs import Array, Inputs, describe
from probegen.runtime.loaded import Artefact
from probegen.runtime.metrics.explained import Explained
from probegen.runtime.request import Request

#: A number, `"blur"`, or an array of one sample (or of all).
Baseline = float | str | npt.ArrayLike | None

BLUR = "blur"
#: Petsiuk et al. blur with a kernel of 11 positions and this deviation.
_REACH, _DEVIATION = 5, 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The score of each sample along the way.

    Attributes:
        shares: which share of the positions was changed, `[step]`, from 0 to 1.
        scores: float64 `[batch, step]`.
    """

    shares: Array
    scores: Array

    @property
    def area(self) -> Array:
        """The area below the curve over shares from 0 to 1 by trapezoids, `[batch]`."""
        heights = (self.scores[:, 1:] + self.scores[:, :-1]) / 2
        return np.asarray(heights @ np.diff(self.shares))


def deletion(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    baseline: Baseline = 0.0,
    step: float = 0.05,
    **request: Unpack[Request],
) -> Array:
    """Returns the area below the score as the strongest positions are replaced; lower is better.

    Petsiuk et al. 2018, sec. 4.2. Positions go with all of their channels, the largest numbers of
    the attribution first (ties in their order); the score is the artefact's prediction of the
    class that is explained.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        baseline: what takes the place: a number, `"blur"` (a Gaussian of deviation 5 over 11
            positions, as in the paper), or an array of one sample or of all of them. None is 0.
        step: the share of positions that goes between two measurements, at least one position.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`, in the unit of the prediction: 0 to 1 for probabilities.

    Raises:
        InputError: there is no such attribution, it explains no prediction, it says nothing of
            positions of an input, an argument does not fit, or the model makes no number of what is
            left.
    """
    found = 0.0 if baseline is None else baseline
    return removal_curve(artefact, inputs, output, baseline=found, step=step, **request).area


def insertion(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    baseline: Baseline = None,
    step: float = 0.05,
    **request: Unpack[Request],
) -> Array:
    """Returns the area below the score as the strongest positions come; higher is better.

    As `deletion`, from the baseline to the sample.

    Args:
        artefact: a loaded artefact.
        inputs: as `Artefact.run` takes them.
        output: name of the attribution.
        baseline: as in `deletion`; None is `"blur"` for what has height and width, 0 for the rest.
        step: as in `deletion`.
        request: `target`, `region` and `groups`, as `Artefact.run` takes them.

    Returns:
        Float64 `[batch]`, in the unit of the prediction.

    Raises:
        InputError: as `deletion`.
    """
    return removal_curve(
        artefact, inputs, output, baseline=baseline, step=step, insert=True, **request
    ).area


def removal_curve(
    artefact: Artefact,
    inputs: Inputs,
    output: str,
    *,
    baseline: Baseline = None,
    step: float = 0.05,
    insert: bool = False,
    **request: Unpack[Request],
) -> Curve:
    """Returns the curve that `deletion` (or with `insert` `insertion`) is the area of.

    Raises:
        InputError: as `deletion`.
    """
    share = positive("step", step, most=1.0)
    explained = Explained.of(artefact, inputs, output, request)
    explained.scores()  # says at once what it cannot follow
    value, ground = explained.value, _ground(explained, baseline)
    heat = explained.map()
    flat = heat.reshape(len(heat), -1)
    ranks = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(heat.shape)
    size = flat.shape[1]
    taken = [*range(0, size, max(1, round(share * size))), size]
    scores = []
    for count in taken:
        chosen = explained.positions.over(ranks < count)
        gone = rows_first(chosen, explained.positions.spec.axes)
        scores.append(explained.scores(np.where(gone != insert, ground, value)))
    curve = np.stack(scores, axis=1)
    for sample, at in np.argwhere(~np.isfinite(curve))[:1]:
        replaced = size - taken[at] if insert else taken[at]
        raise InputError(
            f"the score of sample {sample} is {curve[sample, at]} where {replaced} of {size} "
            f"positions of {explained.positions.spec.name!r} hold the baseline, so that there is "
            "no area below it. Give another baseline=; of ids, one that is no padding."
        )
    return Curve(np.array(taken) / size, curve)


def _ground(explained: Explained, baseline: Any) -> Array:
    """Returns what takes the place of positions, of the input's shape, rows first."""
    value, axes = explained.value, explained.positions.axes
    spec = explained.positions.spec
    if baseline is None:
        baseline = BLUR if {HEIGHT, WIDTH} <= set(axes) else 0.0
    if isinstance(baseline, str):
        if baseline != BLUR:
            raise InputError(f"baseline is {baseline!r}; it takes a number, 'blur' or an array.")
        along = [axis for axis in axes if axis in NEIGHBOURS]
        numbers = value.dtype.kind == "f" or spec.preprocessing is not None
        if not along or not numbers or spec.integer or spec.vocabulary is not None:
            raise InputError(
                f"the input {spec.name!r} {describe(spec.axes, spec.shape)} ({spec.dtype}) has no "
                "neighbours to blur with; pass a number or an array for a baseline."
            )
        places = [1 + without_batch(spec.axes, spec.axes).index(axis) for axis in along]
        return _blurred(value, places)
    try:
        ground = np.asarray(baseline)
    except ValueError as error:
        raise InputError(f"baseline is no regular array: {error}") from error
    fits = ground.shape in ((), value.shape[1:], value.shape)
    if not fits or ground.dtype.kind not in "biuf" or not np.isfinite(ground).all():
        raise InputError(
            f"baseline has the shape {ground.shape} and type {ground.dtype}; expected a finite "
            f"number, or finite numbers {list(value.shape[1:])} (one sample) or "
            f"{list(value.shape)} ({BATCH} first)."
        )
    if value.dtype.kind in "iu" and (ground != np.floor(ground)).any():
        raise InputError(f"baseline must be whole, as the input {spec.name!r} is {spec.dtype}.")
    if value.dtype.kind in "iu" and (ground != ground.astype(value.dtype)).any():
        raise InputError(
            f"baseline goes from {ground.min()} to {ground.max()}, and the input {spec.name!r} "
            f"takes {spec.dtype}: expected numbers in the units of the input."
        )
    return np.broadcast_to(ground, value.shape).astype(value.dtype)


def _blurred(value: Array, axes: list[int]) -> Array:
    """Returns an array smoothed by a Gaussian along some axes, edges going on as they are."""
    offsets = np.arange(-_REACH, _REACH + 1)
    kernel = np.exp(-0.5 * (offsets / _DEVIATION) ** 2)
    kernel /= kernel.sum()
    smooth = value.astype(np.float64)
    for axis in axes:
        size = smooth.shape[axis]
        places = np.clip(np.arange(size)[:, np.newaxis] + offsets, 0, size - 1)
        weights = np.zeros((size, size))
        np.add.at(weights, (np.arange(size)[:, np.newaxis], places), kernel)
        smooth = np.moveaxis(np.tensordot(weights, smooth, (1, axis)), 0, axis)
    return (np.rint(smooth) if value.dtype.kind in "iu" else smooth).astype(value.dtype)
