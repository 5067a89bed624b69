"""The forward pass at other values of some tensors, several points at once in one batch.

A loop over points runs a copy of the forward nodes in its body. With `Fold` each run takes
`count` points: the samples of all of them lie behind each other along the batch axis, first all
samples at the first point, then all at the second. What depends on the inputs and not on what is
changed is computed once, outside of the loop, for as many copies of the samples. Weights stay
where they are.

That is right wherever the graph takes any number of samples and answers for each by itself, which
is what an open batch axis says. A graph that is written for a fixed number of samples runs one
point at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import Rename, copy_node
from probegen.graph.core.queries import depending_on, inputs_of, is_float, nodes_from
from probegen.graph.core.values import Dim, dims_of, element_bytes, shape_of, static_shape
from probegen.graph.loops.step_writer import StepWriter

#: The largest activation of all points of a run together takes no more bytes than this, a sample
#: of the request, where nobody says another number of points.
LARGEST_ACTIVATION = 32 * 2**20
#: Where a run has a backward pass, which needs all activations: those of all points of it together,
#: and as much again for their gradients, take no more bytes than the weights do, which a run reads
#: once, and between these two, a sample of the request. Several points in a run save reading the
#: weights; activations that fill more than the processor's cache cost more than that.
CACHED_ACTIVATIONS, ALL_ACTIVATIONS = 2 * 2**20, 256 * 2**20
#: More points in a run make it no faster.
_MOST = 16
#: What an open size other than the batch is taken for.
_USUAL_SIZE = 128


@dataclasses.dataclass(frozen=True)
class Fold:
    """How points are folded into the batch.

    Attributes:
        count: points in a run.
        inputs: inputs of the graph that hold samples -> the axis of the samples.
    """

    count: int
    inputs: Mapping[ir.Value, int]


def usual_count(
    graph: ir.Graph,
    places: Collection[ir.Value],
    ends: Iterable[ir.Value],
    inputs: Mapping[ir.Value, int],
    *,
    backward: bool = False,
) -> int:
    """Returns how many points a run takes by default.

    See `LARGEST_ACTIVATION`; with a backward pass, `ALL_ACTIVATIONS`. One where a reshaping fixes
    how many samples there are, whatever the inputs say.

    Args:
        graph: holds the forward pass.
        places: the tensors that change.
        ends: what is computed from them.
        inputs: those that hold samples -> the axis of the samples; without any it is 1.
        backward: whether a run goes back as well.
    """
    if not inputs:
        return 1
    batch = {dims_of(value)[at] for value, at in inputs.items()}
    nodes = nodes_from(graph, places, ends)
    if any(_fixes_the_batch(node) for node in nodes):
        return 1
    sizes = [bytes_of(v, batch) for v in (*places, *(v for n in nodes for v in n.outputs))]
    if backward:
        weights = {v for node in nodes for v in inputs_of(node) if v.is_initializer()}
        room = max(CACHED_ACTIVATIONS, sum(bytes_of(v, ()) for v in weights))
        return max(1, min(_MOST, min(room, ALL_ACTIVATIONS) // max(1, 2 * sum(sizes))))
    return max(1, min(_MOST, LARGEST_ACTIVATION // max(1, *sizes)))


def _fixes_the_batch(node: ir.Node) -> bool:
    """Tells whether a node brings tensors of any size to one size, as `reshape(x, (14, 4))`."""
    if node.op_type != "Reshape":
        return False
    before, after = node.inputs[0], node.outputs[0]
    if before is None or not is_float(before) or shape_of(before) is None:
        return False
    return static_shape(before) is None and static_shape(after) is not None


def bytes_of(value: ir.Value, batch: Collection[Dim]) -> int:
    """Returns what a value takes for one sample; 0 where its rank is not known.

    Args:
        value: the value; open sizes are taken for usual ones.
        batch: what the number of samples is called.
    """
    sizes = shape_of(value)
    if sizes is None:
        return 0
    known = (d if isinstance(d, int) else 1 if d in batch else _USUAL_SIZE for d in sizes)
    return math.prod(known) * max(1, int(element_bytes(value)))


def forward_at(
    builder: Builder,
    loop: StepWriter,
    points: Mapping[ir.Value, ir.Value],
    ends: Sequence[ir.Value],
    fold: Fold | None,
    skip: Collection[ir.Node] = (),
) -> dict[ir.Value, ir.Value]:
    """Copies into a loop's body the forward nodes through which changed tensors reach `ends`.

    Args:
        builder: writes around the loop; its graph holds the forward pass.
        loop: the loop.
        points: tensor -> what stands in its place in the body, folded where `fold` is given.
        ends: what is wanted of the forward pass.
        fold: how many points each run takes; None for one.
        skip: nodes whose results are those of the unchanged tensors: masks.

    Returns:
        Value of the graph -> its copy; the ends may be missing where they do not depend.
    """
    graph = builder.forward
    nodes = nodes_from(graph, points, ends, skip)
    copies, rename = dict(points), None
    if fold is not None and fold.count > 1:
        made = {v for node in nodes for v in node.outputs}
        read = {v for node in nodes for v in inputs_of(node)} - made - set(points)
        copies.update(_unchanged(builder, read, fold))
        rename = renaming(fold)
    for node in nodes:
        copy_node(loop.body, node, copies, rename)
    return copies


def _unchanged(
    builder: Builder, read: Collection[ir.Value], fold: Fold
) -> dict[ir.Value, ir.Value]:
    """Computes for so many copies of the samples what depends on the inputs; returns copies."""
    graph = builder.forward
    depending = depending_on(graph, fold.inputs)
    wanted = [v for v in read if v in depending]
    nodes = nodes_from(graph, fold.inputs, wanted)
    used = {v for n in nodes for v in inputs_of(n)} | set(wanted)
    rename = renaming(fold)
    copies: dict[ir.Value, ir.Value] = {}
    for value, axis in fold.inputs.items():
        if value in used:
            copies[value] = repeated(builder, value, axis, fold)
    for node in nodes:
        copy_node(builder, node, copies, rename)
    return {v: copies[v] for v in wanted}


def repeated(builder: Builder, value: ir.Value, axis: int, fold: Fold) -> ir.Value:
    """Writes a value, whose samples lie along an axis, as often as a run has points."""
    sizes, rename = dims_of(value), renaming(fold)
    times = builder.ints(*(fold.count if i == axis else 1 for i in range(len(sizes))))
    return builder.op("Tile", value, times, shape=[rename(d) for d in sizes])


def renaming(fold: Fold) -> Rename:
    """Returns what open sizes are called where the batch is longer than their names say."""
    kept = {
        size
        for value, axis in fold.inputs.items()
        for i, size in enumerate(dims_of(value))
        if i != axis
    }

    def rename(size: Dim) -> Dim:
        if not isinstance(size, str) or size in kept:
            return size
        return f"{size} at {fold.count} points"

    return rename
