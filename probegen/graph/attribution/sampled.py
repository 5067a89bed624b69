"""Gradients at several points around the input, put together: one Scan over the points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.errors import NotDifferentiableError
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.attribution.affine_start import (
    OnSegments,
    batch_axis,
    behind_affine_start,
    segments,
)
from probegen.graph.attribution.forward_at import Fold, forward_at, renaming, repeated, usual_count
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.held_masks import held_masks
from probegen.graph.core.values import dims_of, dtype_of, rank_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.tables import backward_pass
from probegen.graph.tables.base import BackwardPass
from probegen.methods.axes import BATCH, Axes
from probegen.methods.samples import Place, Point, Samples


@dataclasses.dataclass(frozen=True)
class Moved:
    """A tensor that moves from point to point.

    Attributes:
        at: the tensor.
        place: which one it is.
        samples: what is made of the gradients at it. Tensors that move together have the same
            points; what is made of the gradients may differ.
    """

    at: ir.Value
    place: Place
    samples: Samples


def sampled_gradients(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    moved: Sequence[Moved],
    backward: BackwardPass,
    holding: Mapping[ir.Value, int] | None = None,
    chunk: int | None = 1,
) -> list[ir.Value]:
    """Writes what methods make of the gradients at all points.

    One Scan: a step runs a copy of the forward nodes behind the tensors at some points, all in one
    batch, and their backward pass. The seed is that of the input itself: the class stays the same
    at all points. So do masks, which a point would otherwise compute anew. Loops within make the
    points of a step, and put the gradients together: the graph does not grow with their number.

    Args:
        builder: where the nodes go; its `forward` graph holds the forward pass.
        seeds: the scores and the gradient of the target with respect to them.
        moved: the tensors that move together from point to point; one may stand there several
            times, with other things made of its gradients.
        backward: writes the backward pass.
        holding: inputs of the graph that hold samples, of any number -> the axis of the samples;
            none where points cannot be folded into the batch.
        chunk: points of a step; None for a usual number.

    Returns:
        What is made of the gradients at each.

    Raises:
        NotDifferentiableError: no gradient flows to a tensor.
    """
    places = {one.at: one.place for one in moved}
    moved = [dataclasses.replace(one, samples=one.samples.of([*places.values()])) for one in moved]
    held = held_masks(builder.forward, places)
    sampling = _Sampling(builder, seeds, backward, held, holding or {}, chunk)
    behind = _behind_affine_start(sampling, moved)
    return _at_points(sampling, moved) if behind is None else behind


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """What is the same wherever the points lie: see `sampled_gradients`.

    Attributes:
        held: the nodes whose results are those of the unmoved tensors.
    """

    builder: Builder
    seeds: Mapping[ir.Value, ir.Value]
    backward: BackwardPass
    held: Collection[ir.Node]
    holding: Mapping[ir.Value, int]
    chunk: int | None


def _behind_affine_start(sampling: _Sampling, moved: Sequence[Moved]) -> list[ir.Value] | None:
    """Writes the sums at points behind the affine part of the model; None where that is no help."""
    builder, backward, held = sampling.builder, sampling.backward, sampling.held
    if backward != backward_pass(None):  # other rules may tell an affine operator from its Jacobian
        return None
    ops = OnnxOperations(builder)
    places = {one.at: one.place for one in moved}
    behind = behind_affine_start(builder.forward, places, sampling.seeds, held)
    axes = _axes_behind(behind, places, sampling.holding)
    starts = {one.at: one.samples.line_start(ops, one.at, one.place) for one in moved if axes}
    known = {at: start for at, start in starts.items() if start is not None}
    if not known or len(known) < len(places):
        return None
    samples = moved[0].samples
    lines = segments(builder, known, behind, held)
    on_lines = OnSegments(samples.entries()[0], samples.weights, [lines[v] for v in behind])
    there = [
        Moved(value, Place(axes=axes[value], number=i), on_lines) for i, value in enumerate(behind)
    ]
    totals = _at_points(sampling, there)
    found = backward(builder, dict(zip(behind, totals, strict=True)), [*places])
    of_each = dict(zip(places, _flowing(found), strict=True))
    results = [
        one.samples.of_sum(
            ops, of_each[one.at], one.at, one.place, one.samples.once(ops, one.at, one.place)
        )
        for one in moved
    ]
    return [result for result in results if result is not None]


def _axes_behind(
    behind: Sequence[ir.Value], places: Mapping[ir.Value, Place], holding: Mapping[ir.Value, int]
) -> dict[ir.Value, Axes]:
    """Returns the axes of tensors, as far as folding asks; nothing where samples cannot be told."""
    at, place = next(iter(places.items()))
    batch = place.axes.index(BATCH) if holding and BATCH in place.axes else None
    found: dict[ir.Value, Axes] = {}
    for value in behind:
        axis = None if batch is None else batch_axis(value, at, batch)
        if batch is not None and axis is None:
            return {}
        found[value] = tuple(BATCH if i == axis else f"axis {i}" for i in range(rank_of(value)))
    return found


def _at_points(sampling: _Sampling, moved: Sequence[Moved]) -> list[ir.Value]:
    """Writes the loop over the points; see `sampled_gradients`."""
    builder, seeds = sampling.builder, sampling.seeds
    places = {one.at: one.place for one in moved}
    samples = moved[0].samples
    fold = _fold(sampling, samples, places)
    loop = StepWriter(builder)
    outside = OnnxOperations(builder)
    entries = _Entries(builder, loop, samples, fold.count)
    points = {at: _Points(outside, entries, samples, at, place) for at, place in places.items()}
    sums = [
        [loop.carry(first) for first in one.samples.start(outside, one.at, one.place)]
        for one in moved
    ]
    replaced = {at: of.folded(loop.body, fold) for at, of in points.items()}
    copies = forward_at(builder, loop, replaced, list(seeds), fold, sampling.held)
    of_copies = {
        copies[scores]: s if fold.count == 1 else repeated(builder, s, 0, fold)
        for scores, s in seeds.items()
    }
    found = _gradients_inside(loop.body, of_copies, list(replaced.values()), sampling.backward)
    gradients_at = dict(zip(replaced, found, strict=True))
    results: list[ir.Value] = []
    for one, carried in zip(moved, sums, strict=True):
        of = points[one.at]
        results.extend(of.put_together(loop.body, one.samples, carried, gradients_at[one.at]))
    totals = iter(loop.finish(results)[0])
    return [
        one.samples.finish(
            outside, [next(totals) for _ in carried], one.at, one.place, points[one.at].once
        )
        for one, carried in zip(moved, sums, strict=True)
    ]


def _fold(sampling: _Sampling, samples: Samples, places: Mapping[ir.Value, Place]) -> Fold:
    """Returns how many points a step takes; steps take as many as each other where they can."""
    count, chunk, holding = len(samples.weights), sampling.chunk, sampling.holding
    if not holding or not all(BATCH in place.axes for place in places.values()):
        return Fold(1, {})
    if chunk is None:
        graph, ends = sampling.builder.forward, list(sampling.seeds)
        chunk = usual_count(graph, [*places], ends, holding, backward=True)
    steps = math.ceil(count / min(chunk, count))
    return Fold(math.ceil(count / steps), holding)


class _Entries:
    """What a step reads of the arrays of the points: their entries, of each element type.

    With several points a step, entries have the points for their first axis. The last step is
    filled up with the last point, which counts once.
    """

    def __init__(self, builder: Builder, loop: StepWriter, samples: Samples, chunk: int) -> None:
        self._builder, self._loop, self._samples = builder, loop, samples
        self.chunk = chunk
        self._read: dict[tuple[int, ir.DataType], ir.Value] = {}
        count = len(samples.weights)
        self._numbers = np.arange(math.ceil(count / chunk) * chunk)

    def of(self, place: ir.Value) -> list[ir.Value]:
        """Returns this step's entries of each array, of the element type of a tensor."""
        arrays = self._samples.entries()
        return [self._entry(i, values, place) for i, values in enumerate(arrays)]

    def weight(self, place: ir.Value) -> ir.Value:
        """Returns the weights of this step's points."""
        return self._entry(-1, self._samples.weights, place)

    def counts(self) -> ir.Value | None:
        """Returns which of this step's points count, None where all do."""
        there = self._numbers < len(self._samples.weights)
        return None if there.all() else self._entry(-2, there, None)

    def _entry(self, number: int, values: Any, like: ir.Value | None) -> ir.Value:
        array = np.asarray(values)
        dtype = ir.DataType.from_numpy(array.dtype)
        if like is not None and not isinstance(values, np.ndarray):
            dtype = dtype_of(like)
        if (number, dtype) not in self._read:
            if self.chunk > 1:
                array = array[np.minimum(self._numbers, len(array) - 1)]
                array = array.reshape(-1, self.chunk, *array.shape[1:])
            sequence = self._builder.const(array, dtype)
            self._read[number, dtype] = self._loop.read(sequence, backwards=False)
        return self._read[number, dtype]


class _Points:
    """The points of one tensor that a step takes, and what is made of the gradients there.

    Attributes:
        once: what all points share.
    """

    def __init__(
        self,
        outside: OnnxOperations,
        entries: _Entries,
        samples: Samples,
        value: ir.Value,
        place: Place,
    ) -> None:
        self._entries, self._samples = entries, samples
        self._value, self._place = value, place
        self.once = samples.once(outside, value, place)
        self._read = entries.of(value)
        self._at: ir.Value | None = None

    def folded(self, body: Builder, fold: Fold) -> ir.Value:
        """Writes the tensor at this step's points: one tensor, with a longer batch for several."""
        if fold.count == 1:
            self._at = self._point(OnnxOperations(body), self._read)
            return self._at
        inner = StepWriter(body)
        entry = [inner.read(e, backwards=False) for e in self._read]
        at = self._point(OnnxOperations(inner.body), entry)
        self._at = inner.finish([], [Collected(at, backwards=False)])[1][0]
        batch = self._place.axes.index(BATCH)
        order = [*range(1, batch + 1), 0, *range(batch + 1, len(self._place.axes) + 1)]
        sizes = [-1 if i == batch else (self._value, i) for i in range(len(self._place.axes))]
        joined = body.reshape(body.transpose(self._at, order), sizes)
        joined.shape = ir.Shape([renaming(fold)(d) for d in dims_of(self._value)])
        return joined

    def _point(self, ops: OnnxOperations, entry: Sequence[ir.Value]) -> ir.Value:
        return self._samples.point(ops, self._value, self._place, self.once, entry)

    def put_together(
        self, body: Builder, samples: Samples, sums: Sequence[ir.Value], gradient: ir.Value
    ) -> list[ir.Value]:
        """Writes the sums after this step.

        Args:
            body: the loop's body.
            samples: what is made of the gradients.
            sums: the sums before.
            gradient: at the folded points.
        """
        assert self._at is not None
        weight = None if samples.equal_weights else self._entries.weight(self._value)
        chunk = self._entries.chunk
        if chunk == 1:
            point = Point(self._place, self._value, self.once, self._read, self._at, weight)
            return list(samples.step(OnnxOperations(body), sums, gradient, point))
        batch, rank = self._place.axes.index(BATCH), len(self._place.axes)
        sizes: list[Size] = [(self._value, i) for i in range(rank)]
        apart = body.reshape(gradient, [*sizes[:batch], chunk, -1, *sizes[batch + 1 :]])
        apart = body.transpose(apart, [batch, *(i for i in range(rank + 1) if i != batch)])
        apart.shape = ir.Shape([chunk, *dims_of(self._value)])
        inner = StepWriter(body)
        carried = [inner.carry(s) for s in sums]
        read = [inner.read(v, backwards=False) for v in (apart, self._at, *self._read)]
        one = None if weight is None else inner.read(weight, backwards=False)
        ops = OnnxOperations(inner.body)
        point = Point(self._place, self._value, self.once, read[2:], read[1], one)
        after = list(samples.step(ops, carried, read[0], point))
        counts = self._entries.counts()
        if counts is not None:
            there = inner.read(counts, backwards=False)
            after = [ops.where(there, a, c) for a, c in zip(after, carried, strict=True)]
        return inner.finish(after)[0]


def _gradients_inside(
    body: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    points: Sequence[ir.Value],
    backward: BackwardPass,
) -> list[ir.Value]:
    """Differentiates what the body holds so far."""
    body.attach()
    return _flowing(backward(body, seeds, points))


def _flowing(found: Sequence[ir.Value | None]) -> list[ir.Value]:
    """Returns gradients, all of which are there."""
    if any(gradient is None for gradient in found):
        raise NotDifferentiableError("no gradient flows from the target along the line.")
    return [gradient for gradient in found if gradient is not None]
