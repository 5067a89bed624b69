"""Which axis of an operation's result is which axis of its operands.

A TensorFlow operation keeps most axes: an addition all, a transposition all in another order, a
sum those that it does not sum over. What is known of an axis on one side of it holds on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

#: Axis of an operand, axis of a result.
Pairs = tuple[tuple[int, int], ...]


class Link(NamedTuple):
    """Two tensors, and which of their axes are the same."""

    operand: Any
    result: Any
    pairs: Pairs


#: Work element by element on all their operands, which broadcast.
BROADCASTS = frozenset(
    {
        "Add",
        "AddV2",
        "AddN",
        "Sub",
        "Mul",
        "MulNoNan",
        "Div",
        "RealDiv",
        "DivNoNan",
        "FloorDiv",
        "FloorMod",
        "TruncateMod",
        "TruncateDiv",
        "Pow",
        "Maximum",
        "Minimum",
        "SquaredDifference",
        "Atan2",
        "Xlogy",
        "Xlog1py",
        "Xdivy",
        "Select",
        "SelectV2",
        "BiasAdd",
        "ClipByValue",
        "Greater",
        "Less",
        "GreaterEqual",
        "LessEqual",
        "Equal",
        "NotEqual",
        "LogicalAnd",
        "LogicalOr",
    }
)
#: Keep the axes of their first operand in place, whatever becomes of their sizes.
_IN_PLACE = frozenset(
    {
        "Pad",
        "PadV2",
        "MirrorPad",
        "Tile",
        "Slice",
        "ReverseV2",
        "Roll",
        "Cumsum",
        "Cumprod",
        "Conv2D",
        "Conv3D",
        "Conv2DBackpropInput",
        "DepthwiseConv2dNative",
        "MaxPool",
        "MaxPool3D",
        "AvgPool",
        "AvgPool3D",
        "FusedBatchNorm",
        "FusedBatchNormV2",
        "FusedBatchNormV3",
        "SpaceToBatchND",
        "BatchToSpaceND",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "ResizeBicubic",
        "ResizeArea",
        "ScaleAndTranslate",
        "AdjustContrastv2",
        "ExtractImagePatches",
        "ExtractVolumePatches",
        "TopKV2",
        "MatrixBandPart",
        "MatrixSetDiagV3",
        "TensorScatterAdd",
        "TensorScatterUpdate",
        "AdjustHue",
        "AdjustSaturation",
    }
)
#: The operand of a transposed convolution that holds values is its last.
_LAST_OPERAND = frozenset({"Conv2DBackpropInput", "Conv3DBackpropInputV2"})
_REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "ArgMax", "ArgMin"})
#: Nothing is known of the axes of their results, although sizes may agree.
_OPAQUE = frozenset(
    {"MatrixInverse", "Cholesky", "Qr", "Svd", "Shape", "Reshape", "Transpose", "Squeeze"}
)


def links(op: Any) -> Iterator[Link]:
    """Returns what an operation tells about the axes of its operands and results."""
    if not op.inputs or not op.outputs:
        return
    kind = op.type
    if kind == "IdentityN":
        yield from (_same(a, b) for a, b in zip(op.inputs, op.outputs, strict=True))
    elif kind in BROADCASTS:
        yield from (_from_the_right(t, op.outputs[0]) for t in op.inputs)
    elif kind == "ConcatV2":
        yield from (_same(t, op.outputs[0]) for t in list(op.inputs)[:-1])
    elif kind in ("Split", "SplitV"):
        whole = op.inputs[1] if kind == "Split" else op.inputs[0]
        yield from (_same(whole, part) for part in op.outputs)
    elif kind in _LAST_OPERAND:
        yield _same(op.inputs[-1], op.outputs[0])
    elif kind in _IN_PLACE:
        yield _same(op.inputs[0], op.outputs[0])
    elif kind in _OF_AXES:
        yield from _OF_AXES[kind](op)
    elif kind in _REDUCTIONS:
        yield from _reduced(op)
    elif kind not in _OPAQUE and len(op.inputs) == 1 and _alike(op.inputs[0], op.outputs[0]):
        yield _same(op.inputs[0], op.outputs[0])


def reshaped(before: Sequence[int | None], after: Sequence[int | None]) -> Pairs:
    """Returns which axes a reshape leaves as they are, told from the sizes.

    Axes of equal size that have as much before (or behind) them on both sides are the same; axes
    of size 1 do not count. Open sizes are taken to be the same where both sides have as many.
    """
    open_too = sum(d is None for d in before) == sum(d is None for d in after)
    front = _in_step(before, after, open_too)
    back = _in_step(before[::-1], after[::-1], open_too)
    turned = [(len(before) - 1 - i, len(after) - 1 - j) for i, j in back]
    left, right = {i for i, _ in front}, {j for _, j in front}
    rest = [(i, j) for i, j in turned if i not in left and j not in right]
    # Both ends were walked to: in an ambiguous middle the front's answer holds.
    ordered = sorted([*front, *rest])
    return tuple(ordered) if [j for _, j in ordered] == sorted(j for _, j in ordered) else ()


def _in_step(
    before: Sequence[int | None], after: Sequence[int | None], open_too: bool
) -> list[tuple[int, int]]:
    found, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        a, b = before[i], after[j]
        if a == b and (a is not None or open_too):
            found.append((i, j))
            i, j = i + 1, j + 1
        elif a == 1:
            i += 1
        elif b == 1:
            j += 1
        else:
            break
    return found


def _same(operand: Any, result: Any) -> Link:
    if operand.shape.rank is None or operand.shape.rank != result.shape.rank:
        return Link(operand, result, ())
    return Link(operand, result, tuple((i, i) for i in range(operand.shape.rank)))


def _from_the_right(operand: Any, result: Any) -> Link:
    a, b = operand.shape.rank, result.shape.rank
    if a is None or b is None or a > b:
        return Link(operand, result, ())
    return Link(operand, result, tuple((i, i + b - a) for i in range(a)))


def _alike(operand: Any, result: Any) -> bool:
    return operand.shape.rank is not None and operand.shape.as_list() == _sizes(result)


def _sizes(tensor: Any) -> list[int | None] | None:
    return tensor.shape.as_list() if tensor.shape.rank is not None else None


def constant(tensor: Any) -> list[int] | None:
    """Returns whole numbers that are known now, or computed from such: axes, an order of axes."""
    value = _value(tensor)
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _value(tensor: Any) -> Any:
    value = tf.get_static_value(tensor)
    compute = _COMPUTED.get(tensor.op.type)
    if value is not None or compute is None:
        return value
    parts = [_value(t) for t in tensor.op.inputs]
    return None if any(p is None for p in parts) else compute(*parts)


#: Operations that orders of axes are computed by, as in a softmax over an axis not the last.
_COMPUTED: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "ConcatV2": lambda *parts: np.concatenate(parts[:-1], int(parts[-1])),
    "FloorMod": np.mod,
    "Pack": lambda *parts: np.stack(parts),
    "Range": np.arange,
    "Sub": np.subtract,
}


def _transposed(op: Any) -> Iterator[Link]:
    order = constant(op.inputs[1])
    if order is not None:
        yield Link(op.inputs[0], op.outputs[0], tuple((a, i) for i, a in enumerate(order)))


def _reshaped(op: Any) -> Iterator[Link]:
    before, after = _sizes(op.inputs[0]), _sizes(op.outputs[0])
    if before is not None and after is not None:
        yield Link(op.inputs[0], op.outputs[0], reshaped(before, after))


def _expanded(op: Any) -> Iterator[Link]:
    at, rank = constant(op.inputs[1]), op.outputs[0].shape.rank
    if at and rank is not None:
        kept = [i for i in range(rank) if i != at[0] % rank]
        yield Link(op.inputs[0], op.outputs[0], tuple(enumerate(kept)))


def _squeezed(op: Any) -> Iterator[Link]:
    rank = op.inputs[0].shape.rank
    if rank is None:
        return
    gone = {a % rank for a in op.get_attr("squeeze_dims")}
    if not gone:
        gone = {i for i, d in enumerate(op.inputs[0].shape) if d == 1}
    kept = [i for i in range(rank) if i not in gone]
    yield Link(op.inputs[0], op.outputs[0], tuple((a, i) for i, a in enumerate(kept)))


def _reduced(op: Any) -> Iterator[Link]:
    rank = op.inputs[0].shape.rank
    over = constant(op.inputs[1])
    if rank is None or over is None:
        return
    if op.outputs[0].shape.rank == rank:  # keepdims
        yield _same(op.inputs[0], op.outputs[0])
        return
    gone = {a % rank for a in over}
    kept = [i for i in range(rank) if i not in gone]
    yield Link(op.inputs[0], op.outputs[0], tuple((a, i) for i, a in enumerate(kept)))


def _packed(op: Any) -> Iterator[Link]:
    rank = op.outputs[0].shape.rank
    if rank is not None:
        kept = [i for i in range(rank) if i != op.get_attr("axis") % rank]
        yield from (Link(t, op.outputs[0], tuple(enumerate(kept))) for t in op.inputs)


def _unpacked(op: Any) -> Iterator[Link]:
    rank = op.inputs[0].shape.rank
    if rank is not None:
        kept = [i for i in range(rank) if i != op.get_attr("axis") % rank]
        pairs = tuple((a, i) for i, a in enumerate(kept))
        yield from (Link(op.inputs[0], part, pairs) for part in op.outputs)


def _strided(op: Any) -> Iterator[Link]:
    """Follows `x[...]` with its masks: an index drops an axis, `None` adds one."""
    axes = _axes_of_entries(op)
    if axes is not None:
        yield Link(op.inputs[0], op.outputs[0], tuple((a, b) for a, b, _ in axes))


def _axes_of_entries(op: Any) -> list[tuple[int, int, int | None]] | None:
    """Returns the axes that `x[...]` keeps: of `x`, of the result, and the entry that cuts it."""
    rank, begin = op.inputs[0].shape.rank, op.inputs[1].shape
    if rank is None or begin.rank != 1 or begin[0] is None:
        return None
    masks = {n: op.get_attr(f"{n}_mask") for n in ("ellipsis", "new_axis", "shrink_axis")}
    entries = int(begin[0])
    set_in = {n: [bool(m >> i & 1) for i in range(entries)] for n, m in masks.items()}
    taken = sum(
        not a and not e for a, e in zip(set_in["new_axis"], set_in["ellipsis"], strict=True)
    )
    axes: list[tuple[int, int, int | None]] = []
    a = b = 0
    for i in range(entries):
        if set_in["ellipsis"][i]:
            for _ in range(rank - taken):
                axes.append((a, b, None))
                a, b = a + 1, b + 1
        elif set_in["new_axis"][i]:
            b += 1
        elif set_in["shrink_axis"][i]:
            a += 1
        else:
            axes.append((a, b, i))
            a, b = a + 1, b + 1
    axes += [(a + i, b + i, None) for i in range(rank - a)]
    return axes if op.outputs[0].shape.rank == b + rank - a else None


def axes_cut(op: Any) -> frozenset[int]:
    """Returns the axes of an operand along which a slice leaves some entries out, or may do so.

    `x[:, 1:, :-1]` -> axes 1 and 2
    """
    if op.type == "Slice":
        first, sizes = constant(op.inputs[1]), constant(op.inputs[2])
        shape = op.inputs[0].shape
        if first is None or sizes is None or shape.rank is None:
            return frozenset(range(shape.rank or 0))
        return frozenset(
            i
            for i, (start, size, whole) in enumerate(zip(first, sizes, shape, strict=True))
            if start or size not in (-1, whole)
        )
    axes = _axes_of_entries(op) if op.type == "StridedSlice" else None
    whole = 0 if axes is None else op.get_attr("begin_mask") & op.get_attr("end_mask")
    steps = constant(op.inputs[3]) if axes else None
    before, after = op.inputs[0].shape, op.outputs[0].shape
    return frozenset(
        a
        for a, b, entry in axes or ()
        if entry is not None
        and not (whole >> entry & 1 and steps is not None and abs(steps[entry]) == 1)
        and (before[a] is None or before[a] != after[b])
    )


def _gathered(op: Any) -> Iterator[Link]:
    values, indices, out = op.inputs[0], op.inputs[1], op.outputs[0]
    axis = constant(op.inputs[2])
    if values.shape.rank is None or indices.shape.rank is None or axis is None:
        return
    at, more = axis[0] % values.shape.rank, indices.shape.rank - op.get_attr("batch_dims")
    before = [(i, i) for i in range(at)]
    behind = [(i, i + more - 1) for i in range(at + 1, values.shape.rank)]
    own = [(at, at)] if more == 1 else []
    yield Link(values, out, (*before, *own, *behind))
    if at == 0 or op.get_attr("batch_dims"):
        yield Link(indices, out, tuple((i, i) for i in range(indices.shape.rank)))


def _multiplied(op: Any) -> Iterator[Link]:
    (a, b), out = list(op.inputs)[:2], op.outputs[0]
    rank = out.shape.rank
    if rank is None or a.shape.rank != rank or b.shape.rank != rank:
        return
    turned = "transpose" if op.type == "MatMul" else "adj"
    names = (f"{turned}_a", f"{turned}_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    rows = rank - 1 if op.get_attr(names[0]) else rank - 2
    columns = rank - 2 if op.get_attr(names[1]) else rank - 1
    batch = [(i, i) for i in range(rank - 2)]
    yield Link(a, out, (*batch, (rows, rank - 2)))
    yield Link(b, out, (*batch, (columns, rank - 1)))


def contracted(op: Any, position: int) -> tuple[int, ...]:
    """Returns the axes of an operand of a matrix product that it sums over."""
    rank = op.inputs[position].shape.rank
    if rank is None:
        return ()
    if op.type == "Einsum":
        operands, result = letters(op)
        if operands is None or position >= len(operands):
            return ()
        return tuple(i for i, c in enumerate(operands[position]) if c not in result)
    turned = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    last = position == 0
    if op.get_attr(turned[position]):
        last = not last
    return (rank - 1 if last else rank - 2,)


def letters(op: Any) -> tuple[list[str] | None, str]:
    """Returns the letters of an Einsum's operands and of its result; None with an ellipsis."""
    equation = op.get_attr("equation").decode().replace(" ", "")
    operands, _, result = equation.partition("->")
    return (None, "") if "." in equation else (operands.split(","), result)


def _einsum(op: Any) -> Iterator[Link]:
    operands, result = letters(op)
    for term, tensor in zip(operands or (), op.inputs, strict=False):
        pairs = [(i, result.index(c)) for i, c in enumerate(term) if c in result]
        yield Link(tensor, op.outputs[0], tuple(pairs))


def _broadcast(op: Any) -> Iterator[Link]:
    yield _from_the_right(op.inputs[0], op.outputs[0])


_OF_AXES: dict[str, Callable[[Any], Iterator[Link]]] = {
    "BatchMatMul": _multiplied,
    "BatchMatMulV2": _multiplied,
    "BatchMatMulV3": _multiplied,
    "BroadcastTo": _broadcast,
    "Einsum": _einsum,
    "ExpandDims": _expanded,
    "GatherV2": _gathered,
    "MatMul": _multiplied,
    "Pack": _packed,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "StridedSlice": _strided,
    "Transpose": _transposed,
    "Unpack": _unpacked,
}
