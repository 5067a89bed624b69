"""Attributions that add up to a score only as what is left of far larger numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.errors import VerificationError
from probegen.parity.comparison import ROUNDING
from probegen.plan.completeness import moving_together
from probegen.plan.plan import Plan

Array = npt.NDArray[Any]

#: Part of the score that rounding the attributions may take away.
_MOST = 0.01


def check_cancellation(
    described: Manifest,
    plan: Plan,
    outputs: Sequence[Mapping[str, Array]],
    hard: Sequence[Sequence[bool]],
) -> None:
    """Refuses attributions that are to sum to a score, and cancel to less than their rounding.

    Where a model has a gain of a million at the baseline, as the length of a vector of zeros that
    something is divided by, multipliers from there are as large: whatever they say of single
    inputs, two engines agree on it, and nothing of it can be seen in the score. Several inputs
    that move together have one sum.

    Args:
        described: the artefact's manifest.
        plan: what was asked for.
        outputs: of each call, rows first, predictions among them.
        hard: of each call, which samples stand where functions have edges.

    Raises:
        VerificationError: half of the ordinary samples have such attributions; names the outputs.
    """
    for group in plan.groups:
        summed = [o for o in group.outputs if o.spec.sums_to_score and o.spec.target is not None]
        for part in moving_together(summed):
            _check_sum(described, [o.spec for o in part], outputs, hard)


def _check_sum(
    described: Manifest,
    specs: Sequence[OutputSpec],
    outputs: Sequence[Mapping[str, Array]],
    hard: Sequence[Sequence[bool]],
) -> None:
    found = [
        pair
        for call, edges in zip(outputs, hard, strict=True)
        for pair in _sizes(described, specs, call, edges)
    ]
    if not found:
        return
    total, size = np.median([t / s for t, s in found if s > 0] or [0.0]), found[0][1]
    wide = all(spec.dtype == "float64" for spec in specs)
    if total * ROUNDING["float64" if wide else "float32"] > _MOST:
        names = [repr(spec.name) for spec in specs]
        does, its = ("cancel", "their") if len(names) > 1 else ("cancels", "its")
        raise VerificationError(
            f"{' and '.join(names)} {does}: {its} magnitudes add up to {total:.1e} times the score "
            f"(about {size:.1e}) that the numbers sum to, so that rounding alone moves more "
            f"than {_MOST:.0%} of it. From this baseline the model has a very large gain, as a "
            "norm of zeros has. Start from another one, baseline= or background= with samples "
            "of the data, or take pg.IntegratedGradients."
        )


def _sizes(
    described: Manifest,
    specs: Sequence[OutputSpec],
    call: Mapping[str, Array],
    hard: Sequence[bool],
) -> list[tuple[float, float]]:
    """Returns the sum of magnitudes of each ordinary sample, and the size of its score."""
    rows = [i for i, is_hard in enumerate(hard) if not is_hard]
    if not rows:
        return []
    each = (np.nan_to_num(call[spec.name].astype(np.float64))[rows] for spec in specs)
    flat = np.concatenate([values.reshape(len(rows), -1) for values in each], axis=1)
    target = specs[0].target
    assert target is not None
    names = [o.name for o in described.predictions if target.output in (None, o.name)]
    scores = np.zeros(len(rows))
    for name in names:
        score = np.nan_to_num(call[name].astype(np.float64), posinf=0, neginf=0)
        scores = np.maximum(scores, np.abs(score[rows]).reshape(len(rows), -1).max(1, initial=0))
    sizes = np.maximum(scores, np.abs(flat.sum(1)))
    return list(zip(np.abs(flat).sum(1).tolist(), sizes.tolist(), strict=True))
