"""Rules of operators that pick values by position, and of those that put them back.

`x` is what is picked from, `g` the gradient of what was picked. The gradient of x is `g` at the
positions picked and zero elsewhere; where a position was picked more than once, the sum. What
is known when the graph is written decides the form: a Pad where the positions are a run, a
Gather from `g` and one zero where each was picked at most once, a scatter with addition in
general.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import (
    Dim,
    attribute,
    constant_of,
    dims_of,
    dtype_of,
    rank_of,
    shape_of,
)
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    axis_of,
    given,
    inputs,
    optional,
    required_ints,
    widened,
)
from probegen.graph.vjp.decomposition import decomposed

_INT64 = ir.DataType.INT64

#: Bounds of a slice from here on mean "to the end", and below the negative "to the start":
#: no axis is that long, and exporters write 10**9, 2**31 - 1 or 2**63 - 1.
_FAR = 10**9

#: Zeros before and after along an axis; None stands for what is missing to the size of x.
_Padding = tuple[int | None, int | None]


# -- slices --------------------------------------------------------------------------------


def slice_(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Slice, with steps of any sign.

    An axis of open size is taken to be long enough for constant bounds not to be clamped.
    """
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    pads: dict[int, _Padding] = {}
    for position, axis in enumerate(_sliced_axes(node, x)):
        start, stop, step = (_known(optional(node, i), position) for i in (1, 2, 4))
        step = 1 if optional(node, 4) is None else step
        size = dims_of(x)[axis]
        if start is None or stop is None or step is None:
            g = _spread_at_run_time(b, g, _positions(b, node, position, x, axis), x, axis)
        elif isinstance(size, int):
            picked = list(range(*slice(start, stop, step).indices(size)))
            if _is_run(picked):
                pads[axis] = (picked[0], size - picked[-1] - 1)
            else:
                g = _spread(b, g, picked, axis, size)
        elif step == 1 and (start >= 0 or not 0 <= stop < _FAR):
            pads[axis] = _around(start, stop)
        elif step == -1 and (start == -1 or start >= _FAR) and stop <= -_FAR:
            g = _reversed(b, g, axis)
        else:
            g = _spread_at_run_time(b, g, _positions(b, node, position, x, axis), x, axis)
    yield x, _padded(b, g, x, pads)


def _sliced_axes(node: ir.Node, x: ir.Value) -> list[int]:
    axes = optional(node, 3)
    if axes is not None:
        return [axis % rank_of(x) for axis in required_ints(axes, "its axes")]
    starts = inputs(node)[1]
    count = (shape_of(starts) or (None,))[0]
    if not isinstance(count, int):
        raise Refused("how many axes it slices is not known")
    return list(range(count))


def _known(bounds: ir.Value | None, position: int) -> int | None:
    constant = constant_of(bounds)
    return None if constant is None else int(constant[position])


def _around(start: int, stop: int) -> _Padding:
    """Returns the zeros around `x[start:stop]` where the size of x is open."""
    after = 0 if stop >= _FAR else -stop if stop < 0 else None
    return (start, after) if start >= 0 else (None, after)


def _positions(b: Builder, node: ir.Node, position: int, x: ir.Value, axis: int) -> ir.Value:
    """Returns the positions a Slice picks on one axis: what it makes of 0, 1, 2..."""

    def bound(index: int) -> ir.Value:
        values = optional(node, index)
        if values is None:
            return b.ints(1)
        constant = constant_of(values)
        if constant is not None:
            return b.ints(int(constant[position]))
        picked = b.op("Gather", values, b.ints(position), shape=[1], axis=0)
        return b.cast(picked, _INT64)

    everything = _count_up(b, b.size(x, axis))
    return b.op("Slice", everything, bound(1), bound(2), b.ints(0), bound(4), shape=[None])


def _reversed(b: Builder, value: ir.Value, axis: int) -> ir.Value:
    bounds = (b.ints(-1), b.ints(-(2**63) + 1), b.ints(axis), b.ints(-1))
    return b.op("Slice", value, *bounds, shape=value)


# -- gathers -------------------------------------------------------------------------------


def gather(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Gather: positions picked twice get the sum, as repeated tokens of an embedding do."""
    b = walk.builder
    g, (x, indices) = given(dy), inputs(node)
    if x not in walk.wanted:
        return
    axis = axis_of(node, x, 0)
    size = dims_of(x)[axis]
    rows = _one_axis(b, g, x, axis, rank_of(indices))
    constant = constant_of(indices)
    if constant is not None and isinstance(size, int):
        picked = [int(i) % size for i in constant.reshape(-1)]
        if len(set(picked)) == len(picked):
            yield x, _spread(b, rows, picked, axis, size)
            return
    if constant is not None and constant.size == 1:
        index = int(constant.reshape(()))
        around: _Padding = (index, None) if index >= 0 else (None, -index - 1)
        yield x, _padded(b, rows, x, {axis: around})
        return
    yield x, _add_rows(b, rows, b.reshape(b.cast(indices, _INT64), [-1]), x, axis)


def _one_axis(b: Builder, g: ir.Value, x: ir.Value, axis: int, rank: int) -> ir.Value:
    """Makes one axis, in place of `axis` of x, of the `rank` axes that indices put there."""
    if rank == 1:
        return g
    if rank == 0:
        return b.unsqueeze(g, [axis])
    before = [(g, i) for i in range(axis)]
    after = [(x, i) for i in range(axis + 1, rank_of(x))]
    dims = [d for d in dims_of(g)[axis : axis + rank] if isinstance(d, int)]
    return b.reshape(g, [*before, math.prod(dims) if len(dims) == rank else -1, *after])


def _add_rows(b: Builder, rows: ir.Value, positions: ir.Value, x: ir.Value, axis: int) -> ir.Value:
    """Returns zeros like x to which `rows` are added along `axis`, at 1-D int64 positions."""
    perm = [axis, *(i for i in range(rank_of(x)) if i != axis)]
    back = [perm.index(i) for i in range(len(perm))]
    moved = widened(b, b.transpose(rows, perm))
    sizes = [(x, i) for i in perm]
    if b.opset >= 16:
        zeros = b.zeros(sizes, dtype_of(moved))
        column = b.unsqueeze(positions, [1])
        added = b.op("ScatterND", zeros, column, moved, shape=zeros, reduction="add")
    else:
        one_hot = b.cast(_one_hot(b, positions, b.size(x, axis)), dtype_of(moved))
        flat = b.op("Flatten", moved, shape=[dims_of(moved)[0], None], axis=1)
        product = b.op("MatMul", one_hot, flat, shape=[dims_of(x)[axis], None])
        added = b.reshape(product, sizes)
    return b.transpose(b.cast(added, dtype_of(x)), back)


def _one_hot(b: Builder, positions: ir.Value, size: ir.Value) -> ir.Value:
    """Returns `[size, positions]`, true where the row is the position, counted from either end."""
    rows = b.unsqueeze(_count_up(b, size), [1])
    return b.elementwise("Equal", rows, b.elementwise("Mod", positions, size))


def gather_elements(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GatherElements: each value back to where it came from."""
    b = walk.builder
    x, indices = inputs(node)
    if x in walk.wanted:
        axis = axis_of(node, x, 0)
        yield x, _scatter_add(b, "ScatterElements", x, indices, given(dy), axis)


def gather_nd(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GatherND: each slice back to where it came from."""
    b = walk.builder
    x, indices = inputs(node)
    if x in walk.wanted:
        full = _with_batch_positions(b, indices, int(attribute(node, "batch_dims", 0)))
        yield x, _scatter_add(b, "ScatterND", x, full, given(dy))


def _scatter_add(
    b: Builder,
    op_type: str,
    x: ir.Value,
    indices: ir.Value,
    g: ir.Value,
    axis: int | None = None,
) -> ir.Value:
    """Returns zeros like x to which `g` is added at `indices`."""
    if b.opset < 16:
        raise Refused(
            f"a position may be picked twice, and opset {b.opset} has no scatter that adds; "
            "opset 16 or later has"
        )
    g = widened(b, g)
    zeros = b.zeros([(x, i) for i in range(rank_of(x))], dtype_of(g))
    added = b.op(op_type, zeros, indices, g, shape=x, axis=axis, reduction="add")
    return b.cast(added, dtype_of(x))


def _with_batch_positions(b: Builder, indices: ir.Value, batch_dims: int) -> ir.Value:
    """Writes the positions in the batch axes into `indices`, `[batch..., picks..., depth]`."""
    if batch_dims == 0:
        return indices
    rank = rank_of(indices)
    column = b.slice(indices, rank - 1, 0, 1)
    grids = []
    for axis in range(batch_dims):
        others = [i for i in range(rank) if i != axis]
        grid = b.unsqueeze(_count_up(b, b.size(indices, axis)), others)
        grids.append(b.expand(grid, column))
    return b.concat([*grids, indices], axis=rank - 1)


def compress(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Compress: g where the condition holds, else 0."""
    b = walk.builder
    g, (x, condition) = given(dy), inputs(node)
    if x not in walk.wanted:
        return
    axis = attribute(node, "axis")
    source = x if axis is not None else b.reshape(x, [-1])
    at = 0 if axis is None else int(axis) % rank_of(x)
    size = dims_of(source)[at]
    constant = constant_of(condition)
    if constant is not None and isinstance(size, int):
        spread = _spread(b, g, [int(i) for i in np.flatnonzero(constant)], at, size)
    else:
        found = b.op("NonZero", condition, shape=[1, None], dtype=_INT64)
        spread = _spread_at_run_time(b, g, b.squeeze(found, [0]), source, at)
    yield x, b.reshape_like(spread, x)


def one_hot(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """OneHot: to its two values the sums of g where they stand; the indices only choose."""
    b, (indices, depth, values) = walk.builder, inputs(node)
    if values not in walk.wanted:
        return
    g = given(dy)
    binary = b.const([0, 1], dtype_of(g))
    hot = b.op(
        "OneHot", indices, depth, binary, shape=g, dtype=g.dtype, axis=attribute(node, "axis")
    )
    everything = list(range(rank_of(g)))
    on, total = (b.reduce_sum(v, everything, keepdims=False) for v in (b.mul(g, hot), g))
    both = [b.reshape(total_or_on, [1]) for total_or_on in (b.sub(total, on), on)]
    yield values, b.concat(both, axis=0)


def unique(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Unique: g to the first of equal entries, from which the output has its value."""
    b, x = walk.builder, inputs(node)[0]
    if x not in walk.wanted:
        return
    positions = b.output(node, 1, [None], _INT64)
    axis = attribute(node, "axis")
    source = b.reshape(x, [-1]) if axis is None else x
    at = 0 if axis is None else int(axis) % rank_of(x)
    yield x, b.reshape_like(_spread_at_run_time(b, given(dy), positions, source, at), x)


# -- scatters ------------------------------------------------------------------------------


def scatter(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """ScatterND and ScatterElements: g to both; what was overwritten gets 0.

    ONNX leaves open which of several updates of one place stays, where none are combined; runtimes
    let the last one stay. The same scatter of the updates' numbers tells which it was. A product
    gives each the product of the others; of equal extrema each gets its share, as in TensorFlow.
    """
    b = walk.builder
    g, (x, indices, updates) = given(dy), inputs(node)
    reduction = attribute(node, "reduction", "none")
    elements = node.op_type == "ScatterElements"
    axis = int(attribute(node, "axis", 0)) if elements else None
    if reduction in ("mul", "max", "min"):
        places = _Places(b, elements, indices, axis)
        met = _product_met if reduction == "mul" else _extremum_met
        for value, gradient in zip((x, updates), met(places, node, g), strict=True):
            if value in walk.wanted:
                yield value, gradient
        return
    if x in walk.wanted:
        if reduction == "add":
            yield x, g
        else:
            yield x, b.op(node.op_type, g, indices, b.zeros_like(updates), shape=x, axis=axis)
    if updates in walk.wanted:
        places = _Places(b, elements, indices, axis)
        picked = places.pick(g, updates)
        if reduction == "none" and _may_meet(x, indices, axis):
            picked = b.where(places.stays(x, updates), picked, b.zeros_like(updates))
        yield updates, picked


def _may_meet(x: ir.Value, indices: ir.Value, axis: int | None) -> bool:
    """Tells whether several updates of a scatter may be of one place."""
    known, sizes = constant_of(indices), dims_of(x)
    if known is None:
        return not _picks_once(indices, axis)
    if (known < 0).any():  # counted from the end
        picked = sizes[: known.shape[-1]] if axis is None else [sizes[axis]]
        if any(not isinstance(size, int) for size in picked):
            return True
        known = np.where(known < 0, known + np.array(picked, np.int64), known)
    if axis is None:
        rows = known.reshape(-1, known.shape[-1])
        return len(np.unique(rows, axis=0)) < len(rows)
    return bool((np.diff(np.sort(known, axis=axis), axis=axis) == 0).any())


def _picks_once(indices: ir.Value, axis: int | None) -> bool:
    """Tells whether positions that are computed are of the best ones, or of all that are not 0."""
    node = indices.producer()
    if node is not None and node.op_type == "TopK" and axis is not None:
        return axis_of(node, inputs(node)[0], -1) == axis and indices is node.outputs[1]
    if node is not None and node.op_type == "Transpose" and axis is None:
        before = inputs(node)[0].producer()
        return before is not None and before.op_type == "NonZero"
    return False


@dataclasses.dataclass(frozen=True)
class _Places:
    """The places that a scatter writes to.

    Attributes:
        b: the builder.
        elements: whether each element has an index of its own.
        indices: as the scatter has them.
        axis: of the indices, where each element has one.
    """

    b: Builder
    elements: bool
    indices: ir.Value
    axis: int | None

    def pick(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Returns what stands at the places."""
        op_type = "GatherElements" if self.elements else "GatherND"
        return self.b.op(op_type, value, self.indices, shape=like, axis=self.axis)

    def stays(self, x: ir.Value, updates: ir.Value) -> ir.Value:
        """Returns which updates are not overwritten by others, a bool of their shape."""
        b = self.b
        many = b.reshape(b.op("Size", updates, shape=[], dtype=_INT64), [1])
        count = b.reshape_like(b.count_up(many), updates)
        nowhere = b.cast(b.zeros_like(x), _INT64)
        left = self.put(nowhere, count, "none")
        return b.elementwise("Equal", self.pick(left, updates), count)

    def put(self, value: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        """Returns a value with updates put to the places."""
        op_type = "ScatterElements" if self.elements else "ScatterND"
        return self.b.op(
            op_type,
            value,
            self.indices,
            updates,
            shape=value,
            axis=self.axis,
            reduction=None if reduction == "none" else reduction,  # opset 16 and later have it
        )


def _product_met(places: _Places, node: ir.Node, g: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Returns the gradients of x and updates where they are multiplied, right at zeros too."""
    b, (x, _, updates) = places.b, inputs(node)
    to_x = places.put(g, updates, "mul")
    zero = b.cast(b.elementwise("Equal", updates, 0.0), dtype_of(updates))
    filled = b.add(updates, zero)
    count = places.put(b.zeros_like(x), zero, "add")
    others = places.pick(b.mul(g, places.put(x, filled, "mul")), updates)
    zero_others = b.sub(places.pick(count, updates), zero)
    counts = b.cast(b.elementwise("Equal", zero_others, 0.0), dtype_of(updates))
    return to_x, b.mul(b.div(others, filled), counts)


def _extremum_met(places: _Places, node: ir.Node, g: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Returns the gradients of x and updates where the greatest or the least of them stays."""
    b, (x, _, updates), y = places.b, inputs(node), node.outputs[0]
    dtype = dtype_of(x)
    of_x = b.cast(b.elementwise("Equal", x, y), dtype)
    of_updates = b.cast(b.elementwise("Equal", updates, places.pick(y, updates)), dtype)
    share = b.div(g, places.put(of_x, of_updates, "add"))
    return b.mul(share, of_x), b.mul(places.pick(share, updates), of_updates)


def _tensor_scatter(b: Builder, node: ir.Node) -> list[ir.Value]:
    """TensorScatter: rows of `update` `[batch, ..., rows, ...]` follow one another in the cache.

    They begin at the batch entry's index, or at 0; where `mode` is circular they go on at the
    cache's begin.
    """
    cache, update = inputs(node)[:2]
    rank = rank_of(cache)
    axis = axis_of(node, cache, -2)
    rows = b.reshape(_count_up(b, b.size(update, axis)), _at_axis(rank, axis))
    starts = optional(node, 2)
    if starts is not None:
        rows = b.add(rows, b.reshape(b.cast(starts, _INT64), _at_axis(rank, 0)))
    if attribute(node, "mode", "linear") == "circular":
        rows = b.elementwise("Mod", rows, b.size(cache, axis))
    places = b.op("Expand", rows, b.shape_value(update), shape=update)
    return [b.op("ScatterElements", cache, places, update, shape=cache, axis=axis)]


def _at_axis(rank: int, axis: int) -> list[int]:
    """Returns the shape that has all of a value along one axis."""
    return [-1 if i == axis else 1 for i in range(rank)]


# -- what they share -----------------------------------------------------------------------


def _is_run(positions: Sequence[int]) -> bool:
    """Tells whether positions are some, and follow one another."""
    return len(positions) > 0 and list(positions) == list(
        range(positions[0], positions[0] + len(positions))
    )


def _spread(b: Builder, rows: ir.Value, positions: Sequence[int], axis: int, size: int) -> ir.Value:
    """Puts `rows` at known positions, each used once, of an axis of `size`; 0 elsewhere."""
    rank = rank_of(rows)
    before, after = [0] * rank, [0] * rank
    if _is_run(positions):
        before[axis], after[axis] = positions[0], size - positions[-1] - 1
        return b.pad(rows, before, after)
    if len(positions) < size:
        after[axis] = 1
        rows = b.pad(rows, before, after)
    source = np.full(size, len(positions), dtype=np.int64)
    source[list(positions)] = np.arange(len(positions))
    return _take(b, rows, b.const(source), axis, size)


def _spread_at_run_time(
    b: Builder, rows: ir.Value, positions: ir.Value, x: ir.Value, axis: int
) -> ir.Value:
    """Puts `rows` at 1-D int64 positions, each used once, of an axis of x; 0 elsewhere."""
    rank = rank_of(rows)
    before, after = [0] * rank, [0] * rank
    after[axis] = 1
    padded = b.pad(rows, before, after)
    count = b.size(rows, axis)
    nowhere = b.op("Expand", count, b.size(x, axis), shape=[None])
    source = b.op("ScatterElements", nowhere, positions, _count_up(b, count), shape=nowhere)
    return _take(b, padded, source, axis, dims_of(x)[axis])


def _take(b: Builder, rows: ir.Value, source: ir.Value, axis: int, size: Dim) -> ir.Value:
    shape = list(dims_of(rows))
    shape[axis] = size
    return b.op("Gather", rows, source, shape=shape, axis=axis)


def _count_up(b: Builder, size: ir.Value) -> ir.Value:
    """Returns 0, 1... below `size`, an int64 `[1]`."""
    known = constant_of(size)
    if known is not None:
        return b.const(np.arange(int(known[0]), dtype=np.int64))
    return b.count_up(size)


def _padded(b: Builder, g: ir.Value, x: ir.Value, pads: Mapping[int, _Padding]) -> ir.Value:
    """Pads `g` with zeros to the shape of x; sizes that are open are measured at run time."""
    if not pads:
        return g
    before: list[int | ir.Value] = [0] * rank_of(x)
    after: list[int | ir.Value] = [0] * rank_of(x)
    for axis, (low, high) in pads.items():
        if low is not None and high is not None:
            before[axis], after[axis] = low, high
        else:
            missing = b.sub(b.size(x, axis), b.size(g, axis))
            rest = b.sub(missing, b.ints(low or high or 0)) if low or high else missing
            before[axis], after[axis] = (rest, high or 0) if low is None else (low, rest)
    numbers = [width for width in (*before, *after) if isinstance(width, int)]
    if len(numbers) == 2 * rank_of(x):
        if not any(numbers):
            return g
        return b.op("Pad", g, b.ints(*numbers), shape=x)
    pieces = [b.ints(w) if isinstance(w, int) else w for w in (*before, *after)]
    return b.op("Pad", g, b.concat(pieces, axis=0), shape=x)


RULES: Mapping[str, Rule] = {
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Compress": compress,
    "OneHot": one_hot,
    "Unique": unique,
    "TensorScatter": decomposed(_tensor_scatter),
    "ScatterND": scatter,
    "ScatterElements": scatter,
}
