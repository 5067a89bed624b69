"""Attributions by scores at changed inputs: one Scan over the points of a method."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.array_operations import OnnxOperations
from probegen.graph.attribution.forward_at import Fold, forward_at, renaming, usual_count
from probegen.graph.attribution.reach import Part, Reach, reach_of
from probegen.graph.attribution.spans import span_of
from probegen.graph.attribution.within_reach import forward_within_reach
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of, is_float
from probegen.graph.core.values import attribute, dims_of, dtype_of, rank_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.methods.axes import BATCH, Axes, batch_first
from probegen.methods.by_scores import ByScores, Subject, hidden_axes

_WIDE = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
#: Whole numbers all of which float32 holds.
_NARROW = frozenset(
    {ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that a method explains or changes.

    Attributes:
        at: the tensor.
        axes: its axes.
    """

    at: ir.Value
    axes: Axes


def attribution_by_scores(
    builder: Builder,
    probe: ByScores,
    explained: Tensor,
    moved: Sequence[Tensor],
    scores: ir.Value,
    seed: ir.Value,
    samples: Mapping[ir.Value, int],
    groups: ir.Value | None = None,
    held: Collection[ir.Node] = (),
    known: ScoresAtPoints | None = None,
) -> ir.Value:
    """Writes an attribution.

    One Scan: a step takes some points, runs a copy of the forward nodes behind the changed tensors
    on all of them in one batch, and adds what the scores say to the sums. The class is that of the
    unchanged samples at all points, for the seed is.

    Args:
        builder: where the nodes go; its graph holds the forward pass.
        probe: the method.
        explained: the tensor that is explained.
        moved: the tensors that are changed.
        scores: what the target is taken from, the batch first.
        seed: what the scores are multiplied by before they are summed up, of their shape.
        samples: inputs of the graph that hold samples, of any number -> the axis of the samples;
            empty where points cannot be folded into the batch.
        groups: int32 `[batch, ...positions]` of the request, where the method asked for them.
        held: nodes whose results are those of the unchanged tensors at all points: masks.
        known: the scores at the points, where they are computed already.

    Returns:
        The attribution, its axes as the method's `result` gives them for the explained tensor.
    """
    ops = OnnxOperations(builder)
    look = (
        _Look.at(builder, probe, explained, moved, scores, samples, groups, held)
        if known is None
        else known.look
    )
    prepared, score = look.prepared, summed_score(builder, scores, seed, 1)
    loop = StepWriter(builder)
    inside = OnnxOperations(loop.body)
    number = loop.read(look.numbers, backwards=False)
    carried = [loop.carry(zeros) for zeros in probe.start(ops, prepared, score)]
    if known is not None:
        found = loop.read(known.values, backwards=False)
    else:
        apart = look.scores_in(loop, number)
        found = summed_score(loop.body, apart, builder.unsqueeze(seed, [0]), 2)
    added = probe.added(inside, prepared, number, found, score)
    if look.there is not None:
        counts = loop.read(look.there, backwards=False)
        added = tuple(_where_counted(inside, counts, part) for part in added)
    sums = [loop.body.add(c, inside.sum(a, (0,))) for c, a in zip(carried, added, strict=True)]
    totals, _ = loop.finish(sums, count=look.steps if known is None else None)
    result = probe.explained(ops, look.subject, prepared, totals, score)
    if not probe.stays_wide:
        result = builder.cast(result, dtype_of(look.subject.value))
    return _in_own_order(builder, probe, result, look.subject.axes, explained)


@dataclasses.dataclass(frozen=True)
class ScoresAtPoints:
    """The scores of a class at all points, where these are computed for several classes at once.

    Attributes:
        look: the points, and what they share.
        values: the scores, `[steps, points, batch]`; of all classes with one more axis in front.
    """

    look: _Look
    values: ir.Value


def scores_at_points(
    builder: Builder,
    probe: ByScores,
    explained: Tensor,
    moved: Sequence[Tensor],
    scores: ir.Value,
    classes: ir.Value,
    seed_of: Callable[[Builder, ir.Value], ir.Value],
    samples: Mapping[ir.Value, int],
    groups: ir.Value | None = None,
) -> ScoresAtPoints:
    """Writes the scores of several classes at all points, of the same forward passes.

    Args:
        builder, probe, explained, moved, scores, samples, groups: see `attribution_by_scores`.
        classes: the classes, along the first axis.
        seed_of: writes, with some builder, what scores are multiplied by for one of the classes.
    """
    look = _Look.at(builder, probe, explained, moved, scores, samples, groups)
    loop = StepWriter(builder)
    apart = look.scores_in(loop, loop.read(look.numbers, backwards=False))
    each = StepWriter(loop.body)
    seed = seed_of(each.body, each.read(classes, backwards=False))
    found = summed_score(each.body, apart, each.body.unsqueeze(seed, [0]), 2)
    _, (of_step,) = each.finish([], [Collected(found, backwards=False)])
    _, (whole,) = loop.finish([], [Collected(of_step, backwards=False)], look.steps)
    return ScoresAtPoints(look, builder.transpose(whole, [1, 0, 2, 3]))


@dataclasses.dataclass(frozen=True)
class _Look:
    """A method's look at a tensor: its points, and how the model runs there.

    Attributes:
        builder: where the nodes around the loop over the points go.
        probe: the method.
        subject: what it looks at.
        moved: the tensors that are changed, as the model reads them.
        prepared: what all points share.
        scores: what the target is taken from.
        chunk: points of a step.
        fold: how they are folded into the batch; None where a step has one.
        numbers: of the points, `[steps, points]`.
        there: which of these count; None where all do.
        held: nodes whose results are those of the unchanged tensors.
        reach: what the points reach, where that saves something.
    """

    builder: Builder
    probe: ByScores
    subject: Subject[ir.Value]
    moved: Sequence[Tensor]
    prepared: Sequence[ir.Value]
    scores: ir.Value
    chunk: int
    fold: Fold | None
    numbers: ir.Value
    there: ir.Value | None
    held: Collection[ir.Node]
    reach: Reach | None

    @classmethod
    def at(
        cls,
        builder: Builder,
        probe: ByScores,
        explained: Tensor,
        moved: Sequence[Tensor],
        scores: ir.Value,
        samples: Mapping[ir.Value, int],
        groups: ir.Value | None = None,
        held: Collection[ir.Node] = (),
    ) -> _Look:
        """Prepares for the points of a method; see `attribution_by_scores`."""
        ops = OnnxOperations(builder)
        value, axes = _floating_rows(builder, explained)
        moved = [_as_read(builder.forward, one) for one in moved]
        rows = [_floating_rows(builder, m) for m in moved]
        numbered = None if groups is None else builder.cast(groups, _wide(value))
        subject = Subject(value, axes, tuple(rows), numbered)
        prepared = probe.prepared(ops, subject)
        if not all(BATCH in m.axes for m in moved) or isinstance(dims_of(scores)[0], int):
            samples = {}  # one sample alone, or scores of a fixed number of samples
        sizes = tuple(d if isinstance(d, int) else None for d in dims_of(value))
        count = probe.count(axes, sizes)
        reach = _reach(builder.forward, probe, Tensor(value, axes), moved, scores, held)
        places = [m.at for m in moved] if reach is None else reach.ends
        chunk = _chunk(builder.forward, probe, places, scores, samples)
        if count is None:
            numbers, there = _open_numbers(builder, probe.counted(ops, prepared), chunk)
        else:
            chunk = math.ceil(count / math.ceil(count / min(chunk, count)))
            numbers, there = _numbers(builder, count, chunk, _wide(value))
        fold = Fold(chunk, samples) if chunk > 1 else None
        return cls(
            builder,
            probe,
            subject,
            moved,
            prepared,
            scores,
            chunk,
            fold,
            numbers,
            there,
            held,
            reach,
        )

    @property
    def steps(self) -> ir.Value | None:
        """The number of steps, where the loop is to be a Loop.

        A Scan has to carry, and copy at every step, what it reads from outside: here most of the
        unchanged activations.
        """
        b = self.builder
        return None if self.reach is None else b.squeeze(b.size(self.numbers, 0), [0])

    def scores_in(self, loop: StepWriter, number: ir.Value) -> ir.Value:
        """Writes the scores at the points of a step into a loop, `[points, batch, ...]`."""
        inside, scores = OnnxOperations(loop.body), self.scores
        changed: dict[ir.Value, ir.Value] = {}
        for which, (m, (value, axes)) in enumerate(
            zip(self.moved, self.subject.moved, strict=True)
        ):
            version = self.probe.changed_one(inside, self.prepared, number, value, axes, which)
            whole = not is_float(m.at)
            changed[m.at] = _whole(loop.body, version, m, value) if whole else version
        if self.reach is None:
            points = {
                m.at: _point(loop.body, changed[m.at], m, value, self.fold)
                for m, (value, _) in zip(self.moved, self.subject.moved, strict=True)
            }
        else:
            ends = forward_within_reach(self.builder, loop.body, self.reach, changed, number)
            points = {v: _folded(loop.body, found, v, self.fold) for v, found in ends.items()}
        copies = forward_at(self.builder, loop, points, [scores], self.fold, self.held)
        rest = ((scores, i) for i in range(1, rank_of(scores)))
        return loop.body.reshape(copies.get(scores, scores), [self.chunk, -1, *rest])


def _reach(
    graph: ir.Graph,
    probe: ByScores,
    explained: Tensor,
    moved: Sequence[Tensor],
    scores: ir.Value,
    held: Collection[ir.Node],
) -> Reach | None:
    """Returns what a method's points reach; None where that is all, or not known."""
    sizes = tuple(d if isinstance(d, int) else None for d in dims_of(explained.at))
    windows = probe.windows(explained.axes, sizes)
    if windows is None:
        return None
    parts = {}
    for one in moved:
        hidden, known = hidden_axes(one.axes), dims_of(one.at)
        lengths = [d for i in hidden if isinstance(d := known[i], int)]
        if one.axes[:1] != (BATCH,) or len(lengths) != len(windows):
            return None
        spans = []
        for along, length in zip(windows, lengths, strict=True):
            starts, stops = np.transpose(along)
            spans.append(span_of(starts, stops, length))
        parts[one.at] = Part(hidden, tuple(spans))
    return reach_of(graph, parts, scores, held)


def _as_read(graph: ir.Graph, tensor: Tensor) -> Tensor:
    """Returns a tensor as the model reads it: turned, where that is all it does.

    Points are then made in the order that the model computes in, and need not be turned each. Where
    positions change places with each other, the tensor stays as it is.
    """
    readers = [node for node in graph if tensor.at in inputs_of(node)]
    if len(readers) != 1 or readers[0].op_type != "Transpose" or tensor.at.is_graph_output():
        return tensor
    order = attribute(readers[0], "perm", [])
    if len(order) != len(tensor.axes):
        return tensor
    axes = tuple(tensor.axes[i] for i in order)
    kept = [
        [a[i] for i in hidden_axes(a)] for a in (batch_first(x)[0] for x in (tensor.axes, axes))
    ]
    return Tensor(readers[0].outputs[0], axes) if kept[0] == kept[1] else tensor


def _batch_first(builder: Builder, moved: Tensor) -> tuple[ir.Value, Axes]:
    """Returns a tensor and its axes with the batch in front; one sample where it has none."""
    axes, order = batch_first(moved.axes)
    value = moved.at if BATCH in moved.axes else builder.unsqueeze(moved.at, [0])
    return builder.transpose(value, order), axes


def _floating_rows(builder: Builder, moved: Tensor) -> tuple[ir.Value, Axes]:
    """Returns as `_batch_first`; whole numbers as floating ones, which methods compute with."""
    value, axes = _batch_first(builder, moved)
    return (value if is_float(value) else builder.cast(value, ir.DataType.FLOAT)), axes


def _in_own_order(
    builder: Builder, probe: ByScores, result: ir.Value, axes: Axes, explained: Tensor
) -> ir.Value:
    """Returns a result that has the batch in front in the order that the tensor has its axes."""
    given, _ = probe.result(axes, (None,) * len(axes))
    own, _ = probe.result(explained.axes, (None,) * len(explained.axes))
    if BATCH not in own:
        return builder.squeeze(result, [0])
    return builder.transpose(result, [given.index(name) for name in own])


def summed_score(builder: Builder, scores: ir.Value, seed: ir.Value, first: int) -> ir.Value:
    """Returns the target's scalar, in 32 bits at least: what the seed leaves out counts nothing."""
    ops = OnnxOperations(builder)
    chosen = ops.where(ops.greater(ops.abs(seed), 0.0), ops.mul(scores, seed), 0.0)
    if dtype_of(chosen) not in _WIDE:
        chosen = builder.cast(chosen, ir.DataType.FLOAT)
    return ops.sum(chosen, tuple(range(first, rank_of(scores))))


def _wide(value: ir.Value) -> ir.DataType:
    """Returns the element type that positions and numbers of points have."""
    return ir.DataType.DOUBLE if value.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT


def _chunk(
    graph: ir.Graph,
    probe: ByScores,
    places: Sequence[ir.Value],
    scores: ir.Value,
    samples: Mapping[ir.Value, int],
) -> int:
    """Returns how many points a step takes."""
    if not samples:
        return 1
    return probe.chunk or usual_count(graph, places, [scores], samples)


def _numbers(
    builder: Builder, count: int, chunk: int, dtype: ir.DataType
) -> tuple[ir.Value, ir.Value | None]:
    """Returns the numbers of the points, `[steps, chunk]`, and where they count.

    The last step is filled up with the last point, which counts once. They are counted when the
    graph runs: the file holds none of them.
    """
    steps = math.ceil(count / chunk)
    numbers = _counted(builder, builder.const(np.int64(steps * chunk)), [steps, chunk])
    if steps * chunk == count:
        return builder.cast(numbers, dtype), None
    return _filled_up(builder, numbers, builder.const(np.int64(count)), dtype)


def _open_numbers(
    builder: Builder, count: ir.Value, chunk: int
) -> tuple[ir.Value, ir.Value | None]:
    """Returns what `_numbers` does where the count is known at run time alone."""
    whole = builder.cast(count, ir.DataType.INT64)
    steps = builder.div(builder.add(whole, chunk - 1), chunk)
    numbers = _counted(builder, builder.mul(steps, chunk), [-1, chunk])
    if chunk == 1:
        return builder.cast(numbers, dtype_of(count)), None
    return _filled_up(builder, numbers, whole, dtype_of(count))


def _counted(builder: Builder, end: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """Returns 0, 1, 2... below a number, in a shape."""
    known = None if -1 in sizes else math.prod(sizes)
    return builder.reshape(builder.count_up(end, known), sizes)


def _filled_up(
    builder: Builder, numbers: ir.Value, count: ir.Value, dtype: ir.DataType
) -> tuple[ir.Value, ir.Value]:
    """Returns numbers, those beyond the last as the last, and which are not beyond it."""
    kept = builder.elementwise("Min", numbers, builder.sub(count, 1))
    return builder.cast(kept, dtype), builder.elementwise("Less", numbers, count)


def _where_counted(ops: OnnxOperations, counts: ir.Value, part: ir.Value) -> ir.Value:
    rank = rank_of(part)
    return ops.where(ops.expand_dims(counts, tuple(range(1, rank))), part, 0.0)


def _whole(body: Builder, changed: ir.Value, moved: Tensor, value: ir.Value) -> ir.Value:
    """Returns versions of whole numbers as such; what was not changed keeps all its digits."""
    dtype = dtype_of(moved.at)
    if dtype in _NARROW:
        return body.cast(changed, dtype)
    own, _ = _batch_first(body, moved)
    same = body.elementwise("Equal", changed, body.unsqueeze(value, [0]))
    kept = body.cast(body.unsqueeze(own, [0]), ir.DataType.INT64)
    return body.cast(body.where(same, kept, body.cast(changed, ir.DataType.INT64)), dtype)


def _point(
    body: Builder, changed: ir.Value, moved: Tensor, value: ir.Value, fold: Fold | None
) -> ir.Value:
    """Returns versions of a tensor, `[points, ...]`, as one tensor with a longer batch."""
    joined = _folded(body, changed, value, fold)
    _, order = batch_first(moved.axes)
    if BATCH not in moved.axes:
        point = body.squeeze(joined, [0])
    else:
        point = body.transpose(joined, [order.index(i) for i in range(len(order))])
    return _named(point, moved.at, fold)


def _folded(body: Builder, versions: ir.Value, value: ir.Value, fold: Fold | None) -> ir.Value:
    """Returns versions `[points, batch, ...]` of a value, the batch first, as one longer batch."""
    sizes = [(value, i) for i in range(1, rank_of(value))]
    return _named(body.reshape(versions, [-1, *sizes]), value, fold)


def _named(point: ir.Value, value: ir.Value, fold: Fold | None) -> ir.Value:
    """Returns versions of a value with the sizes that it has, the batch longer."""
    rename = renaming(fold) if fold is not None else None
    point.shape = ir.Shape([d if rename is None else rename(d) for d in dims_of(value)])
    return point
