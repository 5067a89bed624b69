"""Values that are not finite: which of them are meant, and what makes the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.rows import rows_first
from probegen.errors import InputError, VerificationError
from probegen.sources.base import Reference

Array = npt.NDArray[Any]

#: What samples are that nobody has given.
_MADE_UP = (
    " on samples that were made up, numbers about 0 (of others, images of 0 to 1 say, pass some "
    "with samples=, --samples)"
)


def check_finite(
    reference: Reference,
    name: str,
    outputs: Mapping[str, Array],
    feed: Mapping[str, Array],
    hard: Sequence[bool],
    made_up: bool = False,
) -> None:
    """Refuses outputs that are not finite for ordinary samples.

    Args:
        reference: what gave them.
        name: what the model is called.
        outputs: the outputs.
        feed: the inputs.
        hard: which samples stand where functions have edges.
        made_up: whether the samples were drawn, so that others may do.

    Raises:
        InputError: because the samples are not finite themselves.
        VerificationError: for another reason; says where it first arises, or that it is the
            baseline.
    """
    for output, value in outputs.items():
        if not finite({output: value}, hard):
            rows = [i for i, is_hard in enumerate(hard) if not is_hard]
            flat = value[rows].astype(np.float64)
            samples = {
                i.name: rows_first(feed[i.name], i.axes, len(hard))[rows]
                for i in reference.plan.manifest.inputs
            }
            _check_samples(output, samples)
            _check_start(reference, output, outputs, hard)
            raise VerificationError(
                f"{name!r} itself gives values that are not finite in "
                f"{output!r} ({np.isnan(flat).sum()} NaN, {np.isinf(flat).sum()} infinite of "
                f"{flat.size}), so that nothing can be compared{_MADE_UP if made_up else ''}. "
                f"{reference.where_not_finite(feed)}"
            )


def _check_start(
    reference: Reference, output: str, outputs: Mapping[str, Array], hard: Sequence[bool]
) -> None:
    """Blames the baseline of an attribution that is not finite where all predictions are.

    Raises:
        VerificationError: there is one; says what works.
    """
    plan = reference.plan
    probes = [o.probe for group in plan.groups for o in group.outputs if o.spec.name == output]
    starts = [f for f in ("baseline", "background") if any(hasattr(p, f) for p in probes)]
    predicted = {o.name: outputs[o.name] for o in plan.manifest.predictions if o.name in outputs}
    if starts and finite(predicted, hard):
        raise VerificationError(
            f"{output!r} is not finite, though all predictions are: there is none that is at its "
            f"{starts[0]}, where the model divides by zero, as by the norm or the deviation of a "
            f"row of equal numbers. Start from another one, {starts[0]}= with samples of the data, "
            "or take pg.IntegratedGradients."
        )


def finite(outputs: Mapping[str, Array], hard: Sequence[bool]) -> bool:
    """Tells whether outputs are finite for all ordinary samples.

    Negative infinity is let pass in samples that have finite values as well: the logarithm of a
    probability of zero, or a logit that a mask takes out.
    """
    rows = [i for i, is_hard in enumerate(hard) if not is_hard]
    for value in outputs.values():
        if value.dtype.kind in "fV" and value.ndim and rows:
            flat = value[rows].reshape(len(rows), -1).astype(np.float64)
            meant = np.isneginf(flat) & np.isfinite(flat).any(axis=1, keepdims=True)
            if not (np.isfinite(flat) | meant).all():
                return False
    return True


def _check_samples(name: str, feed: Mapping[str, Array]) -> None:
    """Blames samples that are not finite themselves.

    Raises:
        InputError: one is not.
    """
    for given, value in feed.items():
        if value.dtype.kind in "fV":
            bad = ~np.isfinite(value.astype(np.float64))
            if bad.any():
                at = [int(i) for i in np.argwhere(bad)[0]]
                raise InputError(
                    f"the samples hold values that are not finite: {int(bad.sum())} of input "
                    f"{given!r}, the first at {at}; the source model then gives such values in "
                    f"{name!r}, and nothing can be compared. Verify on samples that are finite."
                )
