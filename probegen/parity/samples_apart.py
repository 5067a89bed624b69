"""Whether a model treats samples by themselves, which every explanation of one relies on.

Nothing else would notice, since TensorFlow's gradients, and differences of the summed scores, are
those of all samples together as well.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import GROUPS_INPUT, REGION_INPUT, Manifest, OutputSpec
from probegen.artefact.rows import as_described, count_rows, fixed_batch, rows_first
from probegen.errors import ProbegenError, VerificationError
from probegen.parity.calls import Call
from probegen.parity.comparison import FLOOR_UNITS, ROUNDING, base_limit
from probegen.parity.rows import RowsReference
from probegen.parity.samples import ORDINARY, Batch
from probegen.parity.trials import Tried, two_ordinary
from probegen.plan.making import make_plan
from probegen.plan.plan import Plan
from probegen.sources.base import Program, Reference
from probegen.sources.mixed_samples import (
    EACH_BY_ITSELF,
    explained_predictions,
    mixing_by_size,
    mixing_of_samples,
)

Array = npt.NDArray[Any]

#: Ordinary samples that may move each other.
_SEVERAL = 2
#: How many copies of a sample are predicted at once beside one alone, where a sample has no more
#: numbers than that.
_MANY, _FEW_NUMBERS = 17, 2**14
#: How far explanations of samples are apart, of the longer, alone and among copies of themselves,
#: before the number of samples is said to move them: above what rounding, which is another in
#: batches of other sizes, does to all of a few samples by tipping gates.
_APART = 0.05
#: The cosine from which on two explanations point the same way.
_ALONG = 0.9
_BESIDE_OTHERS = (
    "It does so beside samples of another kind: silence, or what is a hundred times as loud. Alone "
    "and among samples of one kind each of those tried is explained by itself; where kinds come "
    "together, compile it for one sample at a time with dynamic_batch=False (--static-batch)."
)
_BESIDE_ALIKE = (
    "It does so beside samples that are nearly alike, as a maximum over the batch does near a tie. "
    "Compile it for one sample at a time with dynamic_batch=False (--static-batch), or let the "
    "model treat each sample by itself."
)
#: By how much of themselves the numbers of samples are less that are nearly alike.
_NEARLY = (1e-4, 1e-3, 1e-2)
#: How many more batches of ordinary samples are tried where hard ones depend on each other.
_MORE = 4


def check_samples_apart(
    described: Manifest, reference: Reference, tried: Sequence[Tried], name: str
) -> str:
    """Refuses explanations of scores that depend on the other samples of a batch.

    Ordinary samples (the first, one between and the last: the nodes of a graph do not all hang on
    others) are predicted once more, among copies of themselves. So are the hard ones: silence
    beside what is loud is where a maximum over the batch shows. What only these move is no reason
    to refuse what is right among samples of one kind; it is said.

    Args:
        described: what the artefact gives.
        reference: the source model, with the samples of its answers first.
        tried: batches with the source model's predictions for them.
        name: of the source model.

    Returns:
        What to say where hard samples alone move, or move the others; `""` otherwise.

    Raises:
        VerificationError: the prediction of an ordinary sample moves among ordinary ones; says of
            which output, and what would work.
    """
    found = next((t for t in tried if t[0].size > 1 and ORDINARY in t[0].rows), None)
    if found is None or not explained_predictions(described):
        return ""
    batch = found[0]
    ordinary = _some_ordinary(batch)
    hard = [row for row, is_hard in enumerate(batch.hard) if is_hard]
    mixed = _mixed(described, reference, found, ordinary, name)
    if mixed is None:
        mixed = _mixed(described, reference, found, hard, name)
    else:
        usual = _beside_ordinary(batch, described)
        among = _predicted(batch, usual, reference)
        if among is None or _mixed(described, reference, among, ordinary, name):
            raise VerificationError(_refused(described, mixed))
    if mixed is None:
        return ""
    for fresh in more_ordinary(described, reference, batch):
        if (more := _mixed(described, reference, fresh, range(fresh[0].size), name)) is not None:
            raise VerificationError(_refused(described, more))
    return f"{mixed[1]} {_BESIDE_OTHERS}"


def more_ordinary(described: Manifest, reference: Reference, batch: Batch) -> Iterator[Tried]:
    """Yields further batches of ordinary samples, to tell whether these depend on each other.

    None beside samples that a user gave, who knows what is ordinary.
    """
    if not batch.source:
        for seed in range(1, 1 + _MORE):
            yield from two_ordinary(described, reference, np.random.default_rng(seed))


def check_explanations_apart(
    plan: Plan,
    call: Call,
    run: Callable[[Mapping[str, Array], Array | None], Mapping[str, Array]],
    name: str,
    computed_in: str,
    further: Iterable[Mapping[str, Array]] = (),
    suspected: bool = False,
) -> str:
    """Refuses explanations of a sample that change with the other samples of its batch.

    Predictions may stay as they are where explanations do not. A maximum over all samples, as that
    of a mel spectrogram, only clips what is silent, and sends what it clips the gradient of to the
    loudest. Behind a saturated softmax nothing moves but the logits, which are what is explained.
    And a baseline is silent, so that rules of differences hand on through it what belongs to other
    samples.

    The first ordinary sample is explained once more among copies of itself, at its own place of a
    batch of the same size: the same numbers are then computed of it in the same order, so that
    rounding moves nothing, however chaotic the model is. And once among samples that are nearly
    alike, where a maximum over the batch has ties that no drawn sample is near to. A sum over all
    samples moves by no more than its terms do, though each gradient is then that of as many scores:
    ordinary samples are explained alone as well.

    Args:
        plan: what the artefact computes.
        call: one call of the artefact.
        run: computes the outputs for inputs and targets, samples first.
        name: of the source model.
        computed_in: the coarsest element type on the way.
        further: inputs of more ordinary samples, which are looked at where hard ones move.
        suspected: look at these in any case.

    Returns:
        What to say where it moves beside hard samples alone, or beside those that are nearly
        alike; `""` otherwise.

    Raises:
        VerificationError: one moves among ordinary samples, by more than a certificate allows and
            by more than from one run to the next; says what would work.
    """
    described, batch = plan.manifest, call.batch
    outputs = [o for o in described.explanations if o.is_attribution]
    if not outputs or batch.size < 2 or ORDINARY not in batch.rows:
        return ""
    row = batch.rows.index(ORDINARY)
    asked = None if call.target is None else np.broadcast_to(call.target, (batch.size,))

    def moves(feed: Mapping[str, Array], row: int, alone: Mapping[str, Array] | None = None) -> str:
        """Says which explanation of a sample is another among copies; `""` where none is.

        Args:
            feed: inputs.
            row: the sample's.
            alone: what comes out among copies, where that is known.
        """
        rows = count_rows(feed, described.inputs)
        target = None if asked is None else asked[:rows]
        if alone is None:
            same = None if target is None else np.full_like(target, target[row])
            alone = run(_copies(feed, described, row), same)
        once = run(feed, target)
        moving = [o for o in outputs if _moves(o, once, alone, row, computed_in)]
        # An engine may add up in any order.
        again = run(feed, target) if moving else once
        steady = (o for o in moving if not _moves(o, once, again, row, computed_in))
        return next((_by_how_much(o, once, alone, row) for o in steady), "")

    same = None if asked is None else np.full_like(asked, asked[row])
    alone = run(_copies(batch.feed, described, row), same)
    note = ""
    if any(_moves(o, call.got, alone, row, computed_in) for o in outputs):
        usual = _beside_ordinary(batch, described)
        if moved := moves(batch.feed if usual is None else usual, row):
            raise VerificationError(_refused_explanation(moved, name))
        note = moves(batch.feed, row)
    is_open = fixed_batch(described.inputs) is None
    if is_open and (apart := _apart_alone(outputs, call, described, asked, run, computed_in)):
        raise VerificationError(_refused_alone(apart, name))
    for fresh in further if note or suspected else ():
        if moved := next(filter(None, (moves(fresh, row) for row in range(_SEVERAL))), ""):
            raise VerificationError(_refused_explanation(moved, name))
    if note:
        return f"{note}. {_BESIDE_OTHERS}"
    try:
        note = moves(_nearly_alike(batch.feed, described, row), row, alone)
    except Exception:  # numbers that are cut to whole ones may stand for nothing then
        return ""
    return f"{note}. {_BESIDE_ALIKE}" if note else ""


def _apart_alone(
    outputs: Sequence[OutputSpec],
    call: Call,
    described: Manifest,
    asked: Array | None,
    run: Callable[[Mapping[str, Array], Array | None], Mapping[str, Array]],
    computed_in: str,
) -> str:
    """Says which explanation of samples is another where they stand alone; `""` where none is.

    Each of a few ordinary samples has to show it, in the same output: what explains it grows or
    shrinks with the number of samples, and points where it did. What is rounding alone, where
    nothing of a sample matters, points anywhere.
    """
    batch, left, said = call.batch, list(outputs), ""
    grown: dict[str, float] = {}
    predictions = explained_predictions(described)
    for row in batch.ordinary[:_SEVERAL]:
        target = None if asked is None else np.full_like(asked, asked[row])
        alone = run(_taken(batch.feed, described, [row]), None if target is None else target[:1])
        among = run(_copies(batch.feed, described, row), target)
        of_one, of_all = ({n: values[n] for n in predictions} for values in (alone, among))
        if mixing_by_size(of_all, of_one, computed_in) is not None:
            return ""  # the model predicts both alike, so the artefact is wrong at other sizes
        moved = {}
        for output in left:
            one, other = (_finite(values[output.name])[:1] for values in (alone, among))
            least = _least(_finite(call.got[output.name]), computed_in)
            length = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
            by = np.linalg.norm(one - other) / length if length > least else 0.0
            growth = _growth(one, other) if length > least else 0.0
            alike = abs(growth - grown.setdefault(output.name, growth)) < abs(growth) / 2
            if alike and by > max(_APART, 2 * base_limit(output, computed_in)):
                moved[output.name] = f"{by:.1%}"
        left = [output for output in left if output.name in moved]
        if not left:
            return ""
        said = (
            f"{left[0].name!r} of a sample alone and among {batch.size} copies of it is "
            f"{moved[left[0].name]} apart"
        )
    return said


def _growth(one: Array, other: Array) -> float:
    """Returns the logarithm of how much longer another explanation is that points the same way.

    0 where it points elsewhere.
    """
    lengths = [float(np.linalg.norm(values)) for values in (one, other)]
    if np.vdot(one, other) <= _ALONG * lengths[0] * lengths[1]:
        return 0.0
    return float(np.log(lengths[1] / lengths[0]))


def _refused_explanation(moved: str, name: str) -> str:
    """Says why explanations that change with other ordinary samples are none."""
    return (
        f"{moved}, though predictions of {name!r} do not, or hardly. A maximum, minimum or sum "
        "over the batch axis (that of a mel spectrogram's dynamic range, say) does so. Compile "
        "it for one sample at a time with dynamic_batch=False (--static-batch), or let the "
        "model treat each sample by itself."
    )


def _refused_alone(apart: str, name: str) -> str:
    """Says why explanations that change with the number of samples are none."""
    return (
        f"{apart}, though predictions of {name!r} are not, or hardly: what is explained is the "
        f"scores of all samples together. {EACH_BY_ITSELF} compile it for one sample at a time "
        "with dynamic_batch=False (--static-batch)."
    )


def _by_how_much(
    output: OutputSpec, before: Mapping[str, Array], after: Mapping[str, Array], row: int
) -> str:
    """Says of an explanation of a sample how far it moves with the other samples."""
    one, other = (_finite(values[output.name][row]) for values in (before, after))
    moved, size = np.linalg.norm(one - other), np.linalg.norm(other)
    by = f"{moved / size:.1%}" if size else f"{moved:.1e}, from nothing,"
    return (
        f"{output.name!r} of sample {row} depends on the other samples of its batch: it moves by "
        f"{by} where they are exchanged"
    )


def _moves(
    output: OutputSpec,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    row: int,
    computed_in: str,
) -> bool:
    """Tells whether a sample's explanation moves by more than a certificate lets it be off.

    Less than a few roundings of the largest explanation of the batch is nothing.
    """
    one, other = (_finite(values[output.name]) for values in (before, after))
    size = max(float(np.linalg.norm(other[row])), float(np.linalg.norm(one[row])))
    allowed = max(base_limit(output, computed_in) * size, _least(one, computed_in))
    return bool(np.linalg.norm(one[row] - other[row]) > allowed)


def _least(explained: Array, computed_in: str) -> float:
    """Returns a few roundings of the largest explanation of a batch, less than which is nothing."""
    lengths = np.linalg.norm(explained.reshape(len(explained), -1), axis=1)
    rounding = ROUNDING.get(computed_in, ROUNDING["float32"])
    return float(FLOOR_UNITS * rounding * lengths.max(initial=0.0))


def _finite(values: Array) -> Array:
    """Returns numbers in float64, zeros where they are none."""
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


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
        found = next(iter(two_ordinary(described, reference, np.random.default_rng(0))), None)
        rows = range(0 if found is None else found[0].size)
        mixed = None if found is None else _mixed(described, reference, found, rows, source.name)
    except Exception:  # a runtime of its own may not even open it
        return
    if mixed is not None:
        warnings.warn(_refused(described, mixed), stacklevel=3)


def _mixed(
    described: Manifest, reference: Reference, tried: Tried, rows: Sequence[int], name: str
) -> tuple[str, str, str] | None:
    """Returns which explained prediction of some samples depends on the others; None where none.

    With it come what to say, and what would make it right, up to another way out. Hard samples are
    asked for at their own place alone: rounding may tell others apart.
    """
    batch, before = tried
    named = {output: before[output] for output in explained_predictions(described)}
    each = list(_predicted_among_copies(described, reference, batch, rows))
    large, computed_in = ~np.array(batch.hard), reference.computed_in
    open_batch = fixed_batch(described.inputs) is None
    moved = (
        mixing_of_samples(
            *(named, after, row, large, computed_in), anywhere=open_batch and not batch.hard[row]
        )
        for row, after in each
    )
    found = next((m for m in moved if m is not None), None)
    if found is None and open_batch and not any(batch.hard[row] for row in rows):
        found = _mixed_by_size(described, reference, batch, dict(each[:_SEVERAL]))
    if found is None:
        return None
    output, said, way_out = found
    depends = f"what {name!r} predicts for a sample depends on the other samples of its batch"
    return output, f"{depends}: {said}", way_out


def _mixed_by_size(
    described: Manifest,
    reference: Reference,
    batch: Batch,
    among_copies: Mapping[int, Mapping[str, Array]],
) -> tuple[str, str, str] | None:
    """Returns which explained prediction of samples depends on how many there are; None where none.

    Each of the samples has to show it: rounding, which is another in batches of other sizes, may
    break a tie of one.

    Args:
        described: what the artefact gives.
        reference: the source model.
        batch: the batch that the samples stand in.
        among_copies: samples by number -> what is predicted of them among copies, as many as that.
    """
    names = explained_predictions(described)
    numbers = sum(batch.feed[spec.name].size for spec in described.inputs) / batch.size

    def differs(row: int, size: int) -> tuple[str, str, str] | None:
        try:
            after = reference.predictions(_taken(batch.feed, described, [row] * size))[0]
        except Exception:  # it does not run for so many at once, which others tell
            return None
        named = {name: after[name] for name in names}
        return mixing_by_size(among_copies[row], named, reference.computed_in)

    for size in (1, *([_MANY] if numbers <= _FEW_NUMBERS else [])):
        each = (differs(row, size) for row in among_copies)
        found = list(itertools.takewhile(lambda one: one is not None, each))
        if found and len(found) == len(among_copies):
            return found[-1]
    return None


def _refused(described: Manifest, mixed: tuple[str, str, str]) -> str:
    """Says why ordinary samples that depend on each other are not explained, and what would be."""
    output, said, way_out = mixed
    return (
        f"{said} {way_out} compile it for one sample at a time with dynamic_batch=False "
        "(--static-batch). Where the first axis of an ONNX model holds no samples (the nodes of "
        "one graph, say), name the axes and leave the batch out: "
        f"{_without_batch(described, output)}."
    )


def _some_ordinary(batch: Batch) -> list[int]:
    """Returns the first ordinary sample, one between and the last."""
    ordinary = batch.ordinary
    return list(dict.fromkeys((ordinary[0], ordinary[len(ordinary) // 2], ordinary[-1])))


def _beside_ordinary(batch: Batch, described: Manifest) -> dict[str, Array] | None:
    """Returns the inputs with ordinary samples in the places of hard ones.

    None where there are no hard ones, or not two ordinary ones.
    """
    ordinary = batch.ordinary
    if len(ordinary) < _SEVERAL or len(ordinary) == batch.size:
        return None
    places = [
        row if row in ordinary else ordinary[row % len(ordinary)] for row in range(batch.size)
    ]
    return _taken(batch.feed, described, places)


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
    return _taken(feed, described, [row] * count_rows(feed, described.inputs))


def _nearly_alike(feed: Mapping[str, Array], described: Manifest, row: int) -> dict[str, Array]:
    """Returns inputs in which every sample is one of them, the others less by very little.

    Zeros, which may be padding, and whole numbers stay.
    """
    near, rng = _copies(feed, described, row), np.random.default_rng(0)
    for spec in described.inputs:
        rows = rows_first(near[spec.name], spec.axes)
        if rows.dtype.kind == "f" and len(rows) > 1:
            shares = np.resize(_NEARLY, len(rows)).reshape(-1, *[1] * (rows.ndim - 1))
            less = 1 - shares * rng.uniform(size=rows.shape)
            less[row] = 1
            near[spec.name] = as_described((rows * less).astype(rows.dtype), spec.axes)
    return near


def _predicted(
    batch: Batch, usual: Mapping[str, Array] | None, reference: Reference
) -> Tried | None:
    """Returns a batch with ordinary samples alone and what is predicted of it, where it runs."""
    if usual is None or reference.cause_of_failure(usual) is not None:
        return None
    among = dataclasses.replace(batch, feed=dict(usual), rows=(ORDINARY,) * batch.size)
    return among, reference.predictions(usual)[0]


def _taken(
    feed: Mapping[str, Array], described: Manifest, places: Sequence[int]
) -> dict[str, Array]:
    """Returns inputs with a sample of theirs in each place; of those without a batch, their own."""
    taken = {}
    for spec in described.inputs:
        rows = rows_first(feed[spec.name], spec.axes)
        taken[spec.name] = as_described(
            rows[np.minimum(places, len(rows) - 1)] if len(rows) > 1 else rows, spec.axes
        )
    for name in (REGION_INPUT, GROUPS_INPUT):
        if name in feed:
            taken[name] = feed[name][list(places)]
    return taken
