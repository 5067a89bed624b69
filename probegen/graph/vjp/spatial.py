"""What the spatial families share: the geometry of sliding windows, and data movement.

A window position `o` of one axis covers the input at `stride * o + dilation * t - before` for
each kernel position `t`. Sizes are numbers where they are known at compile time, else None.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, dtype_of, rank_of, shape_of

#: Rows of up to this size are spread by one matrix, longer ones in pieces of that size.
_WHOLE, _PIECE = 64, 32

#: The largest matrix that an axis is multiplied with: 64 MB of 32-bit floats.
_LARGEST = 2**24

#: The end of a Slice that runs to either end of an axis, whatever its size.
END = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows along one spatial axis.

    Attributes:
        size: of the input, unpadded; None where it is open.
        count: of windows; None where it is open.
        kernel, stride, dilation: of the windows.
        before, after: padding; None where it depends on an open size (`auto_pad` with a
            stride).
        lower: whether such padding puts the odd one before (`SAME_LOWER`).
    """

    size: int | None
    count: int | None
    kernel: int
    stride: int
    dilation: int
    before: int | None
    after: int | None
    lower: bool = False

    @property
    def extent(self) -> int:
        """Number of input positions from the first to the last that a window covers."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def static(self) -> bool:
        """Whether all sizes are known at compile time."""
        return self.size is not None and self.count is not None and self.before is not None

    @property
    def padding(self) -> tuple[int, int]:
        """Padding before and after.

        Raises:
            Refused: it is known at run time only.
        """
        if self.before is None or self.after is None:
            raise Refused("its padding depends on a size that is known at run time only")
        return self.before, self.after


def axes_of(
    node: ir.Node,
    kernel: Sequence[int],
    sizes: Sequence[int | None],
    counts: Sequence[int | None],
) -> list[Axis]:
    """Returns the geometry of a convolution or pooling, one entry a spatial axis.

    Args:
        node: has the attributes `strides`, `dilations`, `pads` and `auto_pad`.
        kernel: kernel sizes.
        sizes: of what the windows slide over, None where open.
        counts: numbers of windows, None where open.

    Raises:
        Refused: runtimes do not agree where the windows lie.
    """
    rank = len(kernel)
    pads = attribute(node, "pads") or [0] * (2 * rank)
    strides = attribute(node, "strides") or [1] * rank
    dilations = attribute(node, "dilations") or [1] * rank
    mode = attribute(node, "auto_pad", "NOTSET")
    found = []
    for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        around: tuple[int | None, int | None] = (pads[i], pads[rank + i])
        if mode != "NOTSET":
            extent = dilations[i] * (kernel[i] - 1) + 1
            _refuse_negative(mode, size, strides[i], extent)
            around = _automatic(mode, size, strides[i], extent)
        lower = mode == "SAME_LOWER"
        found.append(Axis(size, count, kernel[i], strides[i], dilations[i], *around, lower))
    return found


def sizes_of(x: ir.Value) -> list[int | None]:
    """Returns the spatial sizes of `x`, None for open ones.

    Raises:
        UnknownShapeError: the rank is unknown.
    """
    rank_of(x)
    return [d if isinstance(d, int) else None for d in (shape_of(x) or ())[2:]]


def known(size: int | None) -> int:
    """Returns a size, which has to be known.

    Raises:
        Refused: it is not.
    """
    if size is None:
        raise Refused("its sizes are known at run time only")
    return size


def _automatic(
    mode: str, size: int | None, stride: int, extent: int
) -> tuple[int | None, int | None]:
    """Returns the padding of one axis that `auto_pad` stands for."""
    if mode == "VALID":
        return 0, 0
    if stride == 1:
        total = extent - 1
    elif size is None:
        return None, None
    else:
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _refuse_negative(mode: str, size: int | None, stride: int, extent: int) -> None:
    """Refuses windows so far apart that `auto_pad` stands for less than no padding.

    onnxruntime then begins behind the first element, of some operators and by other numbers than
    TensorFlow and ONNX's reference, which do not pad. Less by one changes nothing.

    Raises:
        Refused: they may be.
    """
    apart = stride - extent
    if size is not None:
        apart = size - (math.ceil(size / stride) - 1) * stride - extent
    if mode != "VALID" and apart > 1:
        raise Refused(
            f"auto_pad={mode} with strides of {stride} over windows of {extent} pads by a negative "
            "number, of which runtimes make different things; give the node pads= in its place"
        )


# -- phases --------------------------------------------------------------------------------

#: Where a phase begins: one number below the stride for each spatial axis.
Offsets = tuple[int, ...]

_META = "probegen.phases"


@dataclasses.dataclass(frozen=True)
class Phases:
    """A tensor in parts: `whole[.., s1*i1 + p1, s2*i2 + p2] = parts[p1, p2][.., i1, i2]`.

    Attributes:
        parts: one tensor `[batch, channels, *spatial]` for each combination of offsets that is
            not zero everywhere; all of one shape, of which the batch alone may be open.
        strides: one a spatial axis.
        sizes: of the whole; what the parts have beyond is no part of it.
    """

    parts: Mapping[Offsets, ir.Value]
    strides: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def full(self) -> bool:
        """Whether no phase is zero everywhere."""
        return len(self.parts) == math.prod(self.strides)


def put_together(b: Builder, phases: Phases) -> ir.Value:
    """Writes the whole tensor, and notes on it what it is made of."""
    parts = dict(phases.parts)
    if len(parts) == 1:
        ((offsets, part),) = parts.items()
        whole = spread(b, part, phases.strides, offsets, phases.sizes)
    else:
        some = next(iter(parts.values()))
        missing = [p for p in all_offsets(phases.strides) if p not in parts]
        if missing:
            parts |= dict.fromkeys(missing, b.zeros_like(some))
        whole = resize_to(b, interleaved(b, parts, phases.strides), phases.sizes)
    whole.meta[_META] = phases
    return whole


def phases_of(value: ir.Value) -> Phases | None:
    """Returns what `put_together` made a value of, None where something else made it."""
    found = value.meta.get(_META)
    return found if isinstance(found, Phases) else None


# -- data movement -------------------------------------------------------------------------


def reshaped(b: Builder, value: ir.Value, sizes: Sequence[Dim]) -> ir.Value:
    """Writes a Reshape to `sizes`.

    One may be open. Where several are, all but one are those that `value` has at the same places.
    """
    target = [d if isinstance(d, int) else -1 for d in sizes]
    if target.count(-1) > 1:
        before = shape_of(value) or ()
        copied = [i for i, d in enumerate(sizes[: len(before)]) if target[i] < 0 and d == before[i]]
        target = [0 if i in copied else d for i, d in enumerate(target)]
    return b.op("Reshape", value, b.ints(*target), shape=sizes)


def window(b: Builder, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
    """Writes `value[start:stop]` of one axis as Python counts; `END` is the end of any axis."""
    kept = list(shape_of(value) or ())
    size = kept[axis]
    kept[axis] = len(range(*slice(start, stop).indices(size))) if isinstance(size, int) else None
    return b.op("Slice", value, b.ints(start), b.ints(stop), b.ints(axis), shape=kept)


def fit(
    b: Builder,
    value: ir.Value,
    before: Mapping[int, int],
    after: Mapping[int, int],
    like: ir.Value | None = None,
) -> ir.Value:
    """Grows axes by zeros, or cuts them where a width is negative; axes may have open sizes.

    Args:
        b: the builder.
        value: any tensor.
        before: axis -> number of positions to add at its start.
        after: axis -> number of positions to add at its end.
        like: has the shape of the result, where the caller knows more of it than can be
            computed.
    """
    axes = [axis for axis in range(rank_of(value)) if before.get(axis) or after.get(axis)]
    shape = list(shape_of(value) or ())
    for axis in axes:
        size = shape[axis]
        change = before.get(axis, 0) + after.get(axis, 0)
        shape[axis] = size + change if isinstance(size, int) else None if change else size
    result = shape if like is None else shape_of(like)

    cut = [axis for axis in axes if min(before.get(axis, 0), after.get(axis, 0)) < 0]
    grown = [axis for axis in axes if max(before.get(axis, 0), after.get(axis, 0)) > 0]
    if cut:
        kept = list(shape)
        for axis in grown:
            size = kept[axis]
            added = max(before.get(axis, 0), 0) + max(after.get(axis, 0), 0)
            kept[axis] = size - added if isinstance(size, int) else None
        starts = [max(-before.get(axis, 0), 0) for axis in cut]
        stops = [min(after.get(axis, 0), 0) or END for axis in cut]
        value = b.op(
            "Slice",
            value,
            b.ints(*starts),
            b.ints(*stops),
            b.ints(*cut),
            shape=kept if grown else result,
        )
    if grown:
        widths = [
            max(side.get(axis, 0), 0) for side in (before, after) for axis in range(len(shape))
        ]
        value = b.op("Pad", value, b.ints(*widths), shape=result)
    return value


def resize_to(b: Builder, value: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """Grows spatial axes by zeros at their end, or cuts them there, to static `sizes`."""
    change = {
        2 + i: want - have
        for i, (want, have) in enumerate(zip(sizes, sizes_of(value), strict=True))
        if have is not None and want != have
    }
    return fit(b, value, {}, change)


def flipped(b: Builder, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Reverses `axes`, those of size 1 left out."""
    shape = shape_of(value) or ()
    turned = [axis for axis in axes if shape[axis] != 1]
    if not turned:
        return value
    last, step = b.ints(*([-1] * len(turned))), b.ints(*([-1] * len(turned)))
    end = b.ints(*([-END] * len(turned)))
    return b.op("Slice", value, last, end, b.ints(*turned), step, shape=value)


def interleaved(
    b: Builder, phases: Mapping[tuple[int, ...], ir.Value], strides: Sequence[int]
) -> ir.Value:
    """Merges tensors so that `result[.., s1*i1 + p1, s2*i2 + p2] = phases[p1, p2][.., i1, i2]`.

    The last axis is merged by a Concat along a new axis of size 1, the others by a Concat of
    what follows them: both copy and neither permutes, which is what runtimes do fastest.

    Args:
        b: the builder.
        phases: one tensor `[batch, channels, *spatial]` for each combination of offsets below
            `strides`; all of one shape, of which the batch alone may be open.
        strides: one a spatial axis.
    """
    parts = dict(phases)
    for axis in reversed(range(len(strides))):
        stride = strides[axis]
        if stride == 1:
            continue
        heads = {p[:axis] + p[axis + 1 :]: None for p in parts}
        merged = {}
        for rest in heads:
            group = [parts[(*rest[:axis], i, *rest[axis:])] for i in range(stride)]
            merged[(*rest[:axis], 0, *rest[axis:])] = _merged(b, group, 2 + axis)
        parts = merged
    (result,) = parts.values()
    return result


def phases_to_space(b: Builder, value: ir.Value, strides: Sequence[int]) -> ir.Value:
    """Merges phases that stand side by side in the channels, as `interleaved` merges tensors.

    One or three nodes whatever the strides, where interleaving takes some for each phase; as
    fast for few channels only.

    Args:
        b: the builder.
        value: `[batch, phases * channels, *spatial]`, the phases in the order of `all_offsets`;
            the batch alone may be open.
        strides: one a spatial axis.
    """
    batch, stacked, *low = shape_of(value) or ()
    if not isinstance(stacked, int):
        raise TypeError("phases are merged for known numbers of channels")
    rank = len(strides)
    channels = stacked // math.prod(strides)
    high = [known(n) * s for n, s in zip(sizes_of(value), strides, strict=True)]
    if rank == 2 and strides[0] == strides[1]:
        shape = [batch, channels, *high]
        return b.op("DepthToSpace", value, shape=shape, blocksize=strides[0], mode="DCR")
    apart = reshaped(b, value, [batch, *strides, channels, *low])
    pairs = [axis for i in range(rank) for axis in (rank + 2 + i, 1 + i)]
    return reshaped(b, b.transpose(apart, [0, rank + 1, *pairs]), [batch, channels, *high])


def _merged(b: Builder, group: Sequence[ir.Value], axis: int) -> ir.Value:
    """Interleaves tensors of one shape along one axis."""
    shape = list(shape_of(group[0]) or ())
    size = shape[axis]
    if not isinstance(size, int):
        raise TypeError("tensors are interleaved along axes of known size")
    joined = [*shape[:axis], size * len(group), *shape[axis + 1 :]]
    if axis == len(shape) - 1:
        columns = [reshaped(b, part, [*shape, 1]) for part in group]
        return reshaped(b, b.concat(columns, axis + 1), joined)
    return reshaped(b, b.concat(group, axis + 1), joined)


def spread(
    b: Builder,
    value: ir.Value,
    strides: Sequence[int],
    offsets: Sequence[int],
    sizes: Sequence[int],
) -> ir.Value:
    """Puts `value[.., i]` at `offset + stride * i` of each spatial axis, zeros elsewhere.

    The last axis is multiplied with a matrix of zeros and ones: several times faster in
    onnxruntime than a Pad that does the same, and than interleaving with zeros.

    Args:
        b: the builder.
        value: `[batch, channels, *spatial]`, of which batch and channels alone may be open.
        strides: one a spatial axis.
        offsets: one a spatial axis, each below its stride.
        sizes: of the result; positions beyond are dropped.
    """
    rows_too = len(strides) > 1 and known(sizes_of(value)[-1]) <= _WHOLE
    if rows_too:
        value = _spread_rows(b, value, strides[-2:], offsets[-2:], sizes[-1])
    else:
        value = _spread_last(b, value, strides[-1], offsets[-1])
    for axis in range(len(strides) - (2 if rows_too else 1)):
        value = _spread_outer(b, value, 2 + axis, strides[axis], offsets[axis])
    return resize_to(b, value, sizes)


def _spread_rows(
    b: Builder, value: ir.Value, strides: Sequence[int], offsets: Sequence[int], width: int
) -> ir.Value:
    """Spreads the last two axes at once: the matrix also leaves the room of the empty rows."""
    *lead, height, count = shape_of(value) or ()
    if not isinstance(height, int) or not isinstance(count, int):
        raise TypeError("tensors are spread along axes of known size")
    places = [offsets[1] + strides[1] * i for i in range(count)]
    inside = [i for i in range(count) if places[i] < width]
    matrix = np.zeros((count, strides[0], width), dtype_of(value).numpy())
    matrix[inside, offsets[0], [places[i] for i in inside]] = 1
    flat = b.const(matrix.reshape(count, -1))
    rows = b.op("MatMul", value, flat, shape=[*lead, height, strides[0] * width])
    return reshaped(b, rows, [*lead, height * strides[0], width])


def _spread_last(b: Builder, value: ir.Value, stride: int, offset: int) -> ir.Value:
    """Spreads the last axis in pieces, so that the matrix does not grow with its size."""
    if stride == 1:
        return value
    count = known(sizes_of(value)[-1])
    axis = rank_of(value) - 1
    value = fit(b, value, {}, {axis: -count % _PIECE})
    *lead, whole = shape_of(value) or ()
    pieces = known(whole if isinstance(whole, int) else None) // _PIECE
    matrix = np.zeros((_PIECE, _PIECE, stride), dtype_of(value).numpy())
    matrix[range(_PIECE), range(_PIECE), offset] = 1
    flat = b.const(matrix.reshape(_PIECE, -1))
    apart = reshaped(b, value, [*lead, pieces, _PIECE])
    spaced = b.op("MatMul", apart, flat, shape=[*lead, pieces, _PIECE * stride])
    return reshaped(b, spaced, [*lead, pieces * _PIECE * stride])


def _spread_outer(b: Builder, value: ir.Value, axis: int, stride: int, offset: int) -> ir.Value:
    """Spreads an axis that others follow: padding of what follows leaves whole zero slices."""
    if stride == 1:
        return value
    shape = list(shape_of(value) or ())
    inner = math.prod(d for d in shape[axis + 1 :] if isinstance(d, int))
    size = shape[axis]
    if not isinstance(size, int):
        raise TypeError("tensors are spread along axes of known size")
    flat = reshaped(b, value, [*shape[: axis + 1], inner])
    wide = fit(b, flat, {axis + 1: offset * inner}, {axis + 1: (stride - 1 - offset) * inner})
    return reshaped(b, wide, [*shape[:axis], size * stride, *shape[axis + 1 :]])


def along(b: Builder, value: ir.Value, matrices: Mapping[int, np.ndarray]) -> ir.Value:
    """Multiplies axes with constant matrices: `result[.., j, ..] = sum_i value[.., i, ..] m[i, j]`.

    Args:
        b: the builder.
        value: any tensor whose sizes are known from the first given axis on.
        matrices: axis -> matrix `[size of value, size of result]`.

    Raises:
        Refused: a matrix would be too large for a file.
    """
    largest = max((matrix.size for matrix in matrices.values()), default=0)
    if largest > _LARGEST:
        raise Refused(f"it would take a matrix of {largest} elements, more than {_LARGEST}")
    # Shrinking axes first keeps what the others have to multiply small.
    order = sorted(matrices, key=lambda axis: matrices[axis].shape[1] / matrices[axis].shape[0])
    for axis in order:
        value = _along_axis(b, value, axis, matrices[axis])
    return value


def _along_axis(b: Builder, value: ir.Value, axis: int, matrix: np.ndarray) -> ir.Value:
    shape = list(shape_of(value) or ())
    before, after = matrix.shape
    matrix = matrix.astype(dtype_of(value).numpy())
    result = [*shape[:axis], after, *shape[axis + 1 :]]
    if axis == len(shape) - 1:
        return b.op("MatMul", value, b.const(matrix), shape=result)
    left = b.const(np.ascontiguousarray(matrix.T))
    if axis == len(shape) - 2:
        return b.op("MatMul", left, value, shape=result, dtype=value.dtype)
    inner = math.prod(d for d in shape[axis + 1 :] if isinstance(d, int))
    flat = reshaped(b, value, [*shape[:axis], before, inner])
    product = b.op("MatMul", left, flat, shape=[*shape[:axis], after, inner], dtype=value.dtype)
    return reshaped(b, product, result)


def repeated(b: Builder, value: ir.Value, times: Sequence[int]) -> ir.Value:
    """Repeats every element along the spatial axes: `result[.., i] = value[.., i // times]`."""
    if all(number == 1 for number in times):
        return value
    sizes = [d and d * number for d, number in zip(sizes_of(value), times, strict=True)]
    return b.op(
        "Resize",
        value,
        None,
        b.const(np.array([1, 1, *times], dtype=np.float32)),
        shape=[*(shape_of(value) or ())[:2], *sizes],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def all_offsets(strides: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns every combination of offsets below `strides`, the last running fastest."""
    return list(itertools.product(*(range(s) for s in strides)))
