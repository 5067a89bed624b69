"""Predictions of a sample that depend on the other samples of its batch.

The gradient at such a sample is that of all their scores: right as a derivative, and no explanation
of that sample. It shows where a sample is predicted once more, among copies of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import PREDICTION, Manifest

Array = npt.NDArray[Any]

#: How far a prediction moves, of the largest one, before the other samples are said to move it.
#: Above rounding, and above what weights that are quantised anew for each batch do.
_MOVED = {"float16": 5e-2, "bfloat16": 2e-1}
_MOVED_USUALLY = 1e-2
#: The first way out where predictions depend on the other samples, and on a sample's place.
EACH_BY_ITSELF = (
    "Let the model treat each sample by itself (sums, means and products over the batch axis mix "
    "them, such as tensordot(a, b, 2)), or"
)
_OF_ALL = f"What would come out explains the scores of all of them together. {EACH_BY_ITSELF}"
_ALL_ALIKE = (
    "Let the model treat each sample alike (a triangle of a matrix takes the batch axis for one of "
    "its own, such as tril(x) of vectors), or"
)

_ALL_SIZES = (
    "Let the model treat a sample alike in batches of any size (neither sum over the batch nor "
    "count its samples), or"
)


def explained_predictions(described: Manifest) -> list[str]:
    """Returns the model's outputs whose scores are explained, not those of layers (`of=`)."""
    targets = [o.target for o in described.explanations if o.target and o.target.layer is None]
    named = {t.output for t in targets}
    return [
        o.name
        for o in described.outputs
        if o.kind == PREDICTION and (None in named or o.name in named)
    ]


def mixing_of_samples(
    before: Mapping[str, Array],
    among_copies: Mapping[str, Array],
    row: int,
    ordinary: npt.NDArray[np.bool_],
    computed_in: str,
    *,
    anywhere: bool = False,
) -> tuple[str, str, str] | None:
    """Returns which prediction of a sample depends on the others of its batch; None where none.

    With it come what to say of it, and what would make it right, up to another way out.

    Args:
        before: explained predictions by name, samples first, of a batch of different samples.
        among_copies: the same of a batch of copies of one of them.
        row: which one.
        ordinary: the samples of the first batch that say how large values are.
        computed_in: the coarsest element type that the model computes in.
        anywhere: whether a sample is to be predicted alike wherever it stands. In a batch of a
            fixed size each place may have a state of its own.
    """
    for name, values in before.items():
        if values.dtype.kind != "f":
            continue
        after, most = among_copies[name], _MOVED.get(computed_in, _MOVED_USUALLY)
        moved, size = _moved(values, after, row, ordinary)
        if moved > most * size:
            said = (
                f"{name!r} of sample {row} moves by {moved:.1e}, with values up to {size:.1e}, "
                "where the others are exchanged."
            )
            return name, said, _OF_ALL
        apart = max(_moved(after, after, row, ordinary, r)[0] for r in range(len(after)))
        if anywhere and apart > most * size:
            said = (
                f"{name!r} of copies of sample {row} differs by {apart:.1e}, with values up to "
                f"{size:.1e}: it depends on where among them a sample stands."
            )
            return name, said, _ALL_ALIKE
    return None


def mixing_by_size(
    among_copies: Mapping[str, Array],
    fewer_or_more: Mapping[str, Array],
    computed_in: str,
) -> tuple[str, str, str] | None:
    """Returns which prediction of a sample depends on how many there are; None where none.

    Args:
        among_copies: explained predictions by name, samples first, of copies of a sample.
        fewer_or_more: the same of another number of copies.
        computed_in: the coarsest element type that the model computes in.

    Returns:
        The same as `mixing_of_samples`.
    """
    for name, values in fewer_or_more.items():
        if values.dtype.kind != "f":
            continue
        before, most = among_copies[name], _MOVED.get(computed_in, _MOVED_USUALLY)
        moved, size = _moved(before, values, 0, np.ones(len(before), bool), 0)
        if moved > most * size:
            said = (
                f"{name!r} of a sample differs by {moved:.1e}, with values up to {size:.1e}, "
                f"between {len(before)} copies of it and {len(values)}."
            )
            return name, said, _ALL_SIZES
    return None


def _moved(
    before: Array,
    after: Array,
    row: int,
    ordinary: npt.NDArray[np.bool_],
    other: int | None = None,
) -> tuple[float, float]:
    """Returns by how much a sample moves, and the largest value of the ordinary ones.

    Args:
        before, after: predictions, samples first.
        row: the sample.
        ordinary: which say how large values are.
        other: where it stands afterwards; in the same place where it is left out.
    """
    there = after[row if other is None else other]
    change = before[row].astype(np.float64) - there.astype(np.float64)
    values = np.concatenate([before[ordinary].reshape(-1), after.reshape(-1)]).astype(np.float64)
    moved, size = (np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in (change, values))
    return float(moved), float(size)
