"""Whether a model treats samples by themselves, which every explanation of one relies on.

Where a sample's score depends on the other samples of its batch, the gradient at it is that of all
their scores: right as a derivative, and no explanation of that sample. Nothing else would
notice, since TensorFlow's gradients, and differences of the summed scores, say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import PREDICTION, Manifest
from probegen.artefact.rows import as_described, rows_first
from probegen.errors import VerificationError
from probegen.parity.samples import ORDINARY, Batch
from probegen.parity.trials import Tried
from probegen.sources.base import Reference

Array = npt.NDArray[Any]

#: How far a prediction moves, of the largest one, before the other samples are said to move it.
#: Above rounding, and above what weights that are quantised anew for each batch do.
_MOVED = {"float16": 5e-2, "bfloat16": 2e-1}
_MOVED_USUALLY = 1e-2


def check_samples_apart(
    described: Manifest, reference: Reference, tried: Sequence[Tried], name: str
) -> None:
    """Refuses explanations of scores that depend on the other samples of a batch.

    Ordinary samples (the first, one between and the last: the nodes of a graph do not all hang on
    others) are predicted once more, among copies of themselves.

    Args:
        described: what the artefact gives.
        reference: the source model, with the samples of its answers first.
        tried: batches with the source model's predictions for them.
        name: of the source model.

    Raises:
        VerificationError: the prediction moves; says of which output, and what would work.
    """
    explained = _explained(described)
    found = next((t for t in tried if t[0].size > 1 and ORDINARY in t[0].rows), None)
    if not explained or found is None:
        return
    batch, before = found
    ordinary = [i for i, kind in enumerate(batch.rows) if kind == ORDINARY]
    for row in dict.fromkeys((ordinary[0], ordinary[len(ordinary) // 2], ordinary[-1])):
        _check_sample(described, reference, batch, before, row, explained, name)


def _check_sample(
    described: Manifest,
    reference: Reference,
    batch: Batch,
    before: Mapping[str, Array],
    row: int,
    explained: Sequence[str],
    name: str,
) -> None:
    """Refuses where a sample is predicted another way among copies of itself.

    Raises:
        VerificationError: it is.
    """
    alone = _copies(batch.feed, described, row)
    if reference.cause_of_failure(alone) is not None:
        return
    after = reference.predictions(alone)[0]
    for output in explained:
        if before[output].dtype.kind != "f":
            continue
        moved, size = _moved(before[output], after[output], row, ~np.array(batch.hard))
        limit = _MOVED.get(reference.computed_in, _MOVED_USUALLY)
        if moved > limit * size:
            raise VerificationError(
                f"what {name!r} predicts for a sample depends on the other samples of its batch: "
                f"{output!r} of sample {row} moves by {moved:.1e}, with values up to {size:.1e}, "
                "where the others are exchanged. What would come out explains the scores of all of "
                "them together. Let the model treat each sample by itself (sums, means and "
                "products over the batch axis mix them, such as tensordot(a, b, 2)), or compile it "
                "for one sample at a time with dynamic_batch=False (--static-batch). Where the "
                "first axis of an ONNX model holds no samples (the nodes of one graph, say), name "
                f"the axes and leave the batch out: {_without_batch(described, output)}."
            )


def _explained(described: Manifest) -> list[str]:
    """Returns the model's outputs whose scores are explained, not those of layers (`of=`)."""
    targets = [o.target for o in described.explanations if o.target and o.target.layer is None]
    named = {t.output for t in targets}
    return [
        o.name
        for o in described.outputs
        if o.kind == PREDICTION and (None in named or o.name in named)
    ]


def _copies(feed: Mapping[str, Array], described: Manifest, row: int) -> dict[str, Array]:
    """Returns inputs in which every sample is one of them."""
    copies = {}
    for spec in described.inputs:
        rows = rows_first(feed[spec.name], spec.axes)
        same = np.broadcast_to(rows[min(row, len(rows) - 1)], rows.shape)
        copies[spec.name] = as_described(same, spec.axes)
    return copies


def _moved(before: Array, after: Array, row: int, ordinary: Array) -> tuple[float, float]:
    """Returns by how much a sample moves, and the largest value of the ordinary ones."""
    change = before[row].astype(np.float64) - after[row].astype(np.float64)
    values = np.concatenate([before[ordinary].reshape(-1), after.reshape(-1)]).astype(np.float64)
    moved, size = (np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in (change, values))
    return float(moved), float(size)


def _without_batch(described: Manifest, output: str) -> str:
    """Returns how axes are named of a model that takes one sample, which has no axis of its own."""
    taken = described.inputs[0]
    given = next(o for o in described.outputs if o.name == output)
    named = {
        spec.name: ",".join(
            "node" if i == 0 else axis.replace("axis_", "other_")
            for i, axis in enumerate(spec.axes)
        )
        for spec in (taken, given)
    }
    return f"inputs={named}"
