"""Rules of operators that move values about and change none of them.

`x` is a node's input, `y` its output, `g` the gradient of `y`. Operators that pick some of the
values and leave others stand in `probegen.graph.vjp.selection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Rule, Walk
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.values import attribute, constant_of, dims_of, rank_of, shape_of
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    axis_of,
    given,
    inputs,
    optional,
    unary,
)

# -- one layout into another -----------------------------------------------------------------


def _reshape(v: Local) -> ir.Value:
    """Reshape and Flatten: the shape of x again."""
    return v.b.reshape_like(v.g, v.x)


def _squeeze(v: Local) -> ir.Value:
    """Squeeze: the axes again, from the same input, be it known or not."""
    axes = optional(v.node, 1)
    if axes is None:
        return v.b.reshape_like(v.g, v.x)
    return v.b.op("Unsqueeze", v.g, axes, shape=v.x)


def _unsqueeze(v: Local) -> ir.Value:
    """Unsqueeze: without the axes, from the same input, be it known or not."""
    return v.b.op("Squeeze", v.g, v.node.inputs[1], shape=v.x)


def _transpose(v: Local) -> ir.Value:
    """Transpose: the inverse permutation."""
    perm = attribute(v.node, "perm") or list(reversed(range(rank_of(v.x))))
    return v.b.transpose(v.g, [perm.index(axis) for axis in range(len(perm))])


def _expand(v: Local) -> ir.Value:
    """Expand: the sum over what was repeated."""
    return v.b.unbroadcast(v.g, v.x)


def _depth_to_space(v: Local) -> ir.Value:
    """DepthToSpace: SpaceToDepth, or the mode CRD by a reshape, as that has no inverse."""
    b, x, g, block = v.b, v.x, v.g, int(attribute(v.node, "blocksize"))
    if attribute(v.node, "mode", "DCR") == "DCR":
        return b.op("SpaceToDepth", g, shape=x, blocksize=block)
    split: list[Size] = [(g, 0), (g, 1), (x, 2), block, (x, 3), block]
    return b.reshape_like(b.transpose(b.reshape(g, split), [0, 1, 3, 5, 2, 4]), x)


def _space_to_depth(v: Local) -> ir.Value:
    """SpaceToDepth: DepthToSpace in the mode of its inverse."""
    b, x, g, block = v.b, v.x, v.g, int(attribute(v.node, "blocksize"))
    mode = attribute(v.node, "mode", "DCR")
    return b.op("DepthToSpace", g, shape=x, blocksize=block, mode=None if mode == "DCR" else mode)


def _reverse_sequence(v: Local) -> ir.Value:
    """ReverseSequence: the same reversal, which undoes itself."""
    names = ("batch_axis", "time_axis")
    axes = {name: attribute(v.node, name) for name in names}
    return v.b.op("ReverseSequence", v.g, v.node.inputs[1], shape=v.x, **axes)


def _trilu(v: Local) -> ir.Value:
    """Trilu: the same triangle of g."""
    return v.b.op("Trilu", v.g, optional(v.node, 1), shape=v.x, upper=attribute(v.node, "upper"))


# -- together and apart --------------------------------------------------------------------


def concat(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Concat: each input gets its part of g; parts that are not asked for are not cut out."""
    b = walk.builder
    g, reads = given(dy), inputs(node)
    axis = axis_of(node, g, 0)
    sizes = [dims_of(x)[axis] for x in reads]
    known = [size for size in sizes if isinstance(size, int)]
    if len(reads) == 1:
        yield reads[0], g
    elif len(known) < len(sizes) or all(x in walk.wanted for x in reads):
        if len(known) == len(sizes):
            cuts = b.ints(*known)
        else:
            cuts = b.concat([b.size(x, axis) for x in reads], axis=0)
        parts = b.ops("Split", g, cuts, outputs=len(reads), shapes=reads, axis=axis)
        yield from ((x, part) for x, part in zip(reads, parts, strict=True) if x in walk.wanted)
    else:
        for position, x in enumerate(reads):
            if x in walk.wanted:
                start = sum(known[:position])
                yield x, b.slice(g, axis, start, start + known[position])


def split(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Split: the parts together again, zeros where a part has no gradient."""
    b = walk.builder
    x = inputs(node)[0]
    if x not in walk.wanted:
        return
    axis = axis_of(node, x, 0)
    sizes = [(shape_of(y) or (None,) * rank_of(x))[axis] for y in node.outputs]
    first = next(i for i, g in enumerate(dy) if g is not None)
    last = next(i for i, g in reversed(list(enumerate(dy))) if g is not None)
    outside = [*sizes[:first], *sizes[last + 1 :]]
    known = [size for size in outside if isinstance(size, int)]
    if len(known) < len(outside):
        first, last = 0, len(sizes) - 1
        known = []
    parts = [
        g if g is not None else b.zeros_like(y)
        for g, y in list(zip(dy, node.outputs, strict=True))[first : last + 1]
    ]
    before, after = ([0] * rank_of(x) for _ in range(2))
    before[axis], after[axis] = sum(known[:first]), sum(known[first:])
    yield x, b.pad(b.concat(parts, axis), before, after)


def tile(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Tile: the sum over the copies."""
    b = walk.builder
    g, (x, repeats) = given(dy), inputs(node)
    if x not in walk.wanted:
        return
    constant = constant_of(repeats)
    if constant is None:
        yield x, _untile_at_run_time(b, g, x, repeats)
    else:
        yield x, _untile(b, g, x, [int(n) for n in constant.reshape(-1)])


def _untile(b: Builder, g: ir.Value, x: ir.Value, repeats: Sequence[int]) -> ir.Value:
    dims = dims_of(x)
    repeated = [i for i, n in enumerate(repeats) if n != 1]
    if all(dims[i] == 1 for i in repeated):
        return b.reduce_sum(g, repeated, keepdims=True)
    sizes: list[Size] = []
    copies = []
    for axis, n in enumerate(repeats):
        if n != 1:
            copies.append(len(sizes))
            sizes.append(n)
        sizes.append((x, axis))
    return b.reduce_sum(b.reshape(g, sizes), copies, keepdims=False)


def _untile_at_run_time(b: Builder, g: ir.Value, x: ir.Value, repeats: ir.Value) -> ir.Value:
    rank = rank_of(x)
    pairs = b.concat([b.unsqueeze(repeats, [1]), b.unsqueeze(b.shape_value(x), [1])], axis=1)
    sizes = b.reshape(pairs, [2 * rank])
    apart = b.op("Reshape", g, sizes, shape=[None] * (2 * rank))
    copies = b.ints(*range(0, 2 * rank, 2))
    return b.op("ReduceSum", apart, copies, shape=x, keepdims=0)


RULES: Mapping[str, Rule] = {
    "Reshape": unary(_reshape),
    "Flatten": unary(_reshape),
    "Squeeze": unary(_squeeze),
    "Unsqueeze": unary(_unsqueeze),
    "Transpose": unary(_transpose),
    "Expand": unary(_expand),
    "DepthToSpace": unary(_depth_to_space),
    "SpaceToDepth": unary(_space_to_depth),
    "ReverseSequence": unary(_reverse_sequence),
    "Trilu": unary(_trilu),
    "Concat": concat,
    "Split": split,
    "Tile": tile,
}
