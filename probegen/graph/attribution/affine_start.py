"""Points on a straight line, taken behind the part of the model that is affine.

A model often begins with what is affine in its input: a scaling, a convolution, a product with
weights. A straight line through the input is a straight line behind that part too, with the points
at the same fractions of it. So a loop over points need not run that part, nor its backward pass:

    sum over points of w_t J^T g(x_t)  ->  J^T (sum over points of w_t g(y_t))

where `y_t` are the points behind it, `g` the gradients there, and `J` is the same at all points. It
runs twice, for the two ends of the line, and back once, however many points there are. Nothing but
the rounding changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from probegen.graph.attribution.forward_at import bytes_of
from probegen.graph.autodiff import nodes_between
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.queries import depending_on, inputs_of, is_float, key_of, nodes_from
from probegen.graph.core.values import attribute, constant_of, dims_of, shape_of
from probegen.graph.vjp import BLOCKING
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place, Samples

#: Affine in all of their inputs together.
_IN_ALL = frozenset({"Add", "Concat", "Identity", "Mean", "Neg", "Sub", "Sum"})
#: Affine in their first input, whatever the others are.
_IN_FIRST = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "Div",
        "Expand",
        "Flatten",
        "Gather",
        "GlobalAveragePool",
        "Pad",
        "ReduceMean",
        "ReduceSum",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
#: Affine in one of their inputs.
_IN_ONE = frozenset({"Gemm", "MatMul", "Mul"})
#: Their other inputs may be infinite, as masks are, and the way between two infinite ends is NaN.
_CHECKED = frozenset({"Add", "Concat", "Div", "Mean", "Mul", "Pad", "Sub", "Sum"})
#: What is worth leaving out of a loop.
_COSTLY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: They ask for sizes, which are the same at all points.
_SIZES = frozenset({"Shape", "Size"})
#: Sums over many more elements than the input has cost more than they save.
_MOST_TIMES_LARGER = 8


def behind_affine_start(
    graph: ir.Graph,
    moved: Collection[ir.Value],
    ends: Collection[ir.Value],
    held: Collection[ir.Node],
) -> list[ir.Value]:
    """Returns the tensors behind the affine part that moved tensors go through first.

    Whatever else depends on the moved tensors depends on these alone, and gradients flow to each.
    Empty where nothing costly is affine, or where these are much larger than the moved ones.

    Args:
        graph: holds the forward pass.
        moved: the tensors that move along one line.
        ends: what is wanted of the forward pass.
        held: nodes whose results do not move: masks.
    """
    fixed = {*held, *(node for node in graph if key_of(node) in _SIZES)}
    depending = depending_on(graph, moved, fixed)
    affine, costly = set(moved), False
    behind: dict[ir.Value, None] = {}
    for node in nodes_from(graph, moved, ends, fixed):
        if _is_affine(node, affine, depending):
            affine.update(node.outputs)
            costly = costly or key_of(node) in _COSTLY
        else:
            behind.update(dict.fromkeys(v for v in inputs_of(node) if v in affine))
    behind.update(dict.fromkeys(end for end in ends if end in affine))
    if not costly or not _get_gradients(graph, behind, ends, affine):
        return []
    sizes = [sum(bytes_of(v, ()) for v in values) for values in (moved, behind)]
    if any(shape_of(v) is None for v in behind) or sizes[1] > _MOST_TIMES_LARGER * sizes[0]:
        return []
    return [*behind]


def _is_affine(
    node: ir.Node, affine: Collection[ir.Value], depending: Collection[ir.Value]
) -> bool:
    """Tells whether a node's outputs are affine in the moved tensors, given which values are."""
    key, inputs = key_of(node), list(inputs_of(node))
    moving = [v for v in inputs if v in depending]
    if not all(v in affine for v in moving) or not all(map(is_float, node.outputs)):
        return False
    beside = [v for v in inputs if v not in affine]
    if key in _CHECKED and not all(_is_finite(v, nonzero=key == "Div") for v in beside):
        return False
    if key in _IN_ALL:
        return True
    if key in _IN_FIRST:
        if key == "BatchNormalization" and attribute(node, "training_mode", 0):
            return False
        return moving == [node.inputs[0]]
    return key in _IN_ONE and sum(v in moving for v in node.inputs[:2]) == 1


def _is_finite(value: ir.Value, nonzero: bool) -> bool:
    """Tells whether a value is known to be finite, and not 0; whole numbers are finite."""
    if not is_float(value):
        return True
    found = constant_of(value)
    if found is None:
        return False
    numbers = found.astype(np.float64)
    return bool(np.isfinite(numbers).all() and (not nonzero or numbers.all()))


def _get_gradients(
    graph: ir.Graph,
    values: Collection[ir.Value],
    ends: Collection[ir.Value],
    affine: Collection[ir.Value],
) -> bool:
    """Tells whether a gradient of the ends flows to each of some values.

    Not by another of them: what the affine part makes of one is no longer made of it.
    """
    path = nodes_between(graph, values, ends, BLOCKING)
    read = {v for node in path if node.outputs[0] not in affine for v in inputs_of(node)}
    return all(value in read or value in ends for value in values)


@dataclasses.dataclass(frozen=True)
class Segment:
    """A line between two values of a tensor.

    Attributes:
        start: where the fraction is 0.
        way: from there to where it is 1.
    """

    start: ir.Value
    way: ir.Value


@dataclasses.dataclass(frozen=True)
class OnSegments(Samples):
    """The points of a line, behind the affine part.

    Attributes:
        fractions: where each point lies.
        weights: of the points.
        segments: of each tensor, by the number of its place.
    """

    fractions: Sequence[float]
    weights: Sequence[float]
    segments: Sequence[Segment]

    def entries(self) -> tuple[Any, ...]:
        """Returns the fractions."""
        return (self.fractions,)

    def once(self, ops: Operations[T], value: T, place: Place) -> tuple[T, ...]:
        """Returns the way and where it starts."""
        del ops, value
        line = self.segments[place.number]
        return cast("tuple[T, ...]", (line.way, line.start))

    def point(
        self, ops: Operations[T], value: T, place: Place, once: Sequence[T], entry: Sequence[T]
    ) -> T:
        """Returns the start plus a fraction of the way."""
        del value, place
        return ops.add(ops.mul(once[0], entry[0]), once[1])


def segments(
    builder: Builder,
    starts: Mapping[ir.Value, ir.Value],
    behind: Sequence[ir.Value],
    held: Collection[ir.Node],
) -> dict[ir.Value, Segment]:
    """Writes the line that each tensor behind the affine part moves along.

    Args:
        builder: where the nodes go; its `forward` graph holds the forward pass.
        starts: moved tensor -> where its own line starts, of its shape.
        behind: what `behind_affine_start` returned.
        held: nodes whose results do not move.
    """
    copies = dict(starts)
    for node in nodes_from(builder.forward, starts, behind, held):
        copy_node(builder, node, copies)
    return {value: Segment(copies[value], builder.sub(value, copies[value])) for value in behind}


def batch_axis(value: ir.Value, like: ir.Value, axis: int) -> int | None:
    """Returns which axis of a tensor holds the samples; None where that does not show.

    Args:
        value: the tensor.
        like: one whose axis of samples is known.
        axis: that axis.
    """
    name, sizes = dims_of(like)[axis], shape_of(value)
    if sizes is None or not isinstance(name, str) or list(sizes).count(name) != 1:
        return None
    return list(sizes).index(name)
