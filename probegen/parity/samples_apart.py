"""Whether a model treats samples by themselves, which every explanation of one relies on.

Nothing else would notice, since TensorFlow's gradients, and differences of the summed scores, are
those of all samples together as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import as_described, fixed_batch, rows_first
from probegen.errors import ProbegenError, VerificationError
from probegen.parity.comparison import base_limit
from probegen.parity.judging import Call
from probegen.parity.rows import RowsReference
from probegen.parity.samples import ORDINARY, Batch
from probegen.parity.trials import Tried, two_ordinary
from probegen.plan.making import make_plan
from probegen.plan.plan import Plan
from probegen.sources.base import Program, Reference
from probegen.sources.mixed_samples import explained_predictions, mixing_of_samples

Array = npt.NDArray[Any]


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
    mixed = _mixed(described, reference, tried, name)
    if mixed is not None:
        raise VerificationError(mixed)


def check_differences_apart(
    plan: Plan,
    call: Call,
    run: Callable[[Mapping[str, Array], Array | None], Mapping[str, Array]],
    name: str,
    computed_in: str,
) -> None:
    """Refuses differences from a baseline that go from one sample to another.

    A maximum over all samples of a batch may leave predictions as they are, as the loudest one of
    a mel spectrogram does: it only clips what is silent. The reference is silent, so that rules of
    differences hand on through it what belongs to other samples, and no sum is complete.

    Args:
        plan: what the artefact computes.
        call: one call of the artefact.
        run: computes the outputs for inputs and targets, samples first.
        name: of the source model.
        computed_in: the coarsest element type on the way.

    Raises:
        VerificationError: one moves where the others are exchanged, by more than a certificate
            allows; says what would work.
    """
    described, batch = plan.manifest, call.batch
    tabled = [g for g in plan.groups if g.table is not None and g.table.from_baseline]
    outputs = [o.spec for g in tabled for o in g.outputs]
    asks_more = described.region_input is not None or described.groups_input is not None
    if not outputs or batch.size < 2 or ORDINARY not in batch.rows or asks_more:
        return
    row = batch.rows.index(ORDINARY)
    target = None if call.target is None else np.broadcast_to(call.target, (batch.size,))
    same = None if target is None else np.full_like(target, target[row])
    alone = run(_copies(batch.feed, described, row), same)
    for output in outputs:
        before, after = (v[output.name][row].astype(np.float64) for v in (call.got, alone))
        moved, size = np.linalg.norm(before - after), np.linalg.norm(after)
        if moved > base_limit(output, computed_in) * size:
            share = moved / size if size else 1
            raise VerificationError(
                f"{output.name!r} of sample {row} depends on the other samples of its batch, "
                f"though predictions of {name!r} do not: it moves by {share:.1%} "
                "where they are exchanged. A maximum or minimum over the batch axis (that of a mel "
                "spectrogram's dynamic range, say) does so. Take a gradient method, or compile it "
                "for one sample at a time with dynamic_batch=False (--static-batch)."
            )


def warn_of_mixed_samples(program: Program, described: Manifest) -> None:
    """Warns of explanations of scores that depend on the other samples of a batch.

    For an artefact that is not verified. Nothing is said where the model does not run on samples
    that can be made up.

    Args:
        program: the source and what is compiled into it.
        described: what the artefact gives.
    """
    if not explained_predictions(described) or fixed_batch(described.inputs) == 1:
        return
    source = program.source
    try:
        reference = RowsReference(source.reference(make_plan(source.view, ())))
        tried = two_ordinary(described, reference, np.random.default_rng(0))
        mixed = _mixed(described, reference, tried, source.name)
    except Exception:  # a runtime of its own may not even open it
        return
    if mixed is not None:
        warnings.warn(mixed, stacklevel=3)


def _mixed(
    described: Manifest, reference: Reference, tried: Sequence[Tried], name: str
) -> str | None:
    """Says that explained predictions depend on the others of a batch; None where none does."""
    explained = explained_predictions(described)
    found = next((t for t in tried if t[0].size > 1 and ORDINARY in t[0].rows), None)
    if not explained or found is None:
        return None
    batch, before = found
    ordinary = [i for i, kind in enumerate(batch.rows) if kind == ORDINARY]
    rows = dict.fromkeys((ordinary[0], ordinary[len(ordinary) // 2], ordinary[-1]))
    named = {output: before[output] for output in explained}
    each = _predicted_among_copies(described, reference, batch, list(rows))
    hard, computed_in = ~np.array(batch.hard), reference.computed_in
    anywhere = fixed_batch(described.inputs) is None
    moved = (
        mixing_of_samples(named, after, row, hard, computed_in, anywhere=anywhere)
        for row, after in each
    )
    moves = next((m for m in moved if m is not None), None)
    if moves is None:
        return None
    output, said = moves
    return (
        f"what {name!r} predicts for a sample depends on the other samples of its batch: {said} "
        "compile it for one sample at a time with dynamic_batch=False (--static-batch). Where the "
        "first axis of an ONNX model holds no samples (the nodes of one graph, say), name the axes "
        f"and leave the batch out: {_without_batch(described, output)}."
    )


def _predicted_among_copies(
    described: Manifest, reference: Reference, batch: Batch, rows: Sequence[int]
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yields samples of a batch with what is predicted where every sample is a copy of them.

    Those that the model does not run on are left out.
    """
    fits = False
    for row in rows:
        alone = _copies(batch.feed, described, row)
        # That is about sizes, which all copies share.
        fits = fits or reference.cause_of_failure(alone) is None
        if not fits:
            continue
        try:
            predicted = reference.predictions(alone)[0]
        except ProbegenError:
            raise
        except Exception:
            continue
        yield row, predicted


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


def _copies(feed: Mapping[str, Array], described: Manifest, row: int) -> dict[str, Array]:
    """Returns inputs in which every sample is one of them."""
    copies = {}
    for spec in described.inputs:
        rows = rows_first(feed[spec.name], spec.axes)
        same = np.broadcast_to(rows[min(row, len(rows) - 1)], rows.shape)
        copies[spec.name] = as_described(same, spec.axes)
    return copies
