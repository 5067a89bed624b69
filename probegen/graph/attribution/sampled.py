"""Gradients at several points around the input, put together: one Scan over the points."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.errors import NotDifferentiableError
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.held_masks import held_masks
from probegen.graph.core.queries import nodes_from
from probegen.graph.core.values import dtype_of
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.tables.base import BackwardPass
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
) -> list[ir.Value]:
    """Writes what methods make of the gradients at all points.

    One Scan: a step runs a copy of the forward nodes behind the tensors at a point, and their
    backward pass. The seed is that of the input itself: the class stays the same at all points.
    So do masks, which a point would otherwise compute anew.

    Args:
        builder: where the nodes go; its `forward` graph holds the forward pass.
        seeds: the scores and the gradient of the target with respect to them.
        moved: the tensors that move together from point to point; one may stand there several
            times, with other things made of its gradients.
        backward: writes the backward pass.

    Returns:
        What is made of the gradients at each.

    Raises:
        NotDifferentiableError: no gradient flows to a tensor.
    """
    loop = StepWriter(builder)
    body = loop.body
    outside, inside = OnnxOperations(builder), OnnxOperations(body)
    places = list({one.at: one.place for one in moved}.values())
    moved = [dataclasses.replace(one, samples=one.samples.of(places)) for one in moved]
    entries = _Entries(builder, loop, moved[0].samples)
    points: dict[ir.Value, Point[ir.Value]] = {}
    for one in moved:
        if one.at not in points:
            once = one.samples.once(outside, one.at, one.place)
            entry = entries.of(one.at)
            at = one.samples.point(inside, one.at, one.place, once, entry)
            points[one.at] = Point(one.place, one.at, once, entry, at)
    sums = [
        [loop.carry(first) for first in one.samples.start(outside, one.at, one.place)]
        for one in moved
    ]
    replaced = {value: point.at for value, point in points.items()}
    copies = _copy_forward(builder.forward, body, replaced, seeds)
    of_copies = {copies[scores]: seed for scores, seed in seeds.items()}
    found = _gradients_inside(body, of_copies, list(replaced.values()), backward)
    gradients_at = dict(zip(points, found, strict=True))
    results: list[ir.Value] = []
    for one, carried in zip(moved, sums, strict=True):
        gradient = gradients_at[one.at]
        weight = None if one.samples.equal_weights else entries.weight(gradient)
        point = dataclasses.replace(points[one.at], weight=weight)
        results.extend(one.samples.step(inside, carried, gradient, point))
    totals = iter(loop.finish(results)[0])
    return [
        one.samples.finish(
            outside, [next(totals) for _ in carried], one.at, one.place, points[one.at].once
        )
        for one, carried in zip(moved, sums, strict=True)
    ]


class _Entries:
    """What a step reads of the arrays of the points: their entries, of each element type."""

    def __init__(self, builder: Builder, loop: StepWriter, samples: Samples) -> None:
        self._builder, self._loop, self._samples = builder, loop, samples
        self._read: dict[tuple[int, ir.DataType], ir.Value] = {}

    def of(self, place: ir.Value) -> list[ir.Value]:
        """Returns this step's entry of each array, of the element type of a tensor."""
        arrays = self._samples.entries()
        return [self._entry(i, values, place) for i, values in enumerate(arrays)]

    def weight(self, gradient: ir.Value) -> ir.Value:
        """Returns the weight of this step's point."""
        return self._entry(-1, self._samples.weights, gradient)

    def _entry(self, number: int, values: Any, like: ir.Value) -> ir.Value:
        own = isinstance(values, np.ndarray)
        dtype = ir.DataType.from_numpy(values.dtype) if own else dtype_of(like)
        if (number, dtype) not in self._read:
            sequence = self._builder.const(values, dtype)
            self._read[number, dtype] = self._loop.read(sequence, backwards=False)
        return self._read[number, dtype]


def _gradients_inside(
    body: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    points: Sequence[ir.Value],
    backward: BackwardPass,
) -> list[ir.Value]:
    """Differentiates what the body holds so far."""
    body.attach()
    found = backward(body, seeds, points)
    if any(gradient is None for gradient in found):
        raise NotDifferentiableError("no gradient flows from the target along the line.")
    return [gradient for gradient in found if gradient is not None]


def _copy_forward(
    graph: ir.Graph,
    body: Builder,
    replaced: Mapping[ir.Value, ir.Value],
    wanted: Mapping[ir.Value, ir.Value],
) -> dict[ir.Value, ir.Value]:
    """Copies into `body` the nodes of `graph` through which `replaced` reach `wanted`.

    Values that do not depend on them are read from the graph around, weights above all, and so
    are masks.

    Returns:
        Value of the graph -> its copy.
    """
    copies = dict(replaced)
    for node in nodes_from(graph, replaced, wanted, skip=held_masks(graph, replaced)):
        copy_node(body, node, copies)
    return copies
