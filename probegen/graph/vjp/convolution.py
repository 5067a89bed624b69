"""Rules of convolutions.

Notation of one axis: kernel position t, dilation d, stride s, padding p before; window o reads
the input at j = s*o + d*t - p. The gradient of the input therefore gathers at j the windows
o = (j + p - d*t) / s that are whole. With s = 1 this is a convolution with the kernel turned
round. With s > 1 every phase j mod s has its own kernel positions and is one convolution at
the low resolution of the windows: no multiplication with an inserted zero.

Kernels are turned and cut by nodes over the stored weight, which runtimes fold at load: a
file holds every weight once.

Measured with onnxruntime on a CPU (float32, two threads), the gradient of a stride-2 3x3
depthwise convolution at 96x56x56 took 2.0 ms by ConvTranspose, 2.2 by phases and
DepthToSpace, 0.85 by `spread` and one convolution; that of a dense one at 64x28x28 took 0.54,
0.68 and 0.68, and 0.46 by phases and `interleaved`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, dims_of, rank_of, shape_of, static_shape
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    given,
    inputs,
    optional,
    required,
    required_ints,
)
from probegen.graph.vjp.spatial import (
    END,
    Axis,
    Phases,
    all_offsets,
    axes_of,
    fit,
    flipped,
    known,
    phases_to_space,
    put_together,
    reshaped,
    resize_to,
    sizes_of,
    spread,
)

#: Below this number of input channels all phases come from one convolution: runtimes compute
#: output channels in blocks of up to 16, and a convolution a phase would leave most empty. More
#: phases than that are too many nodes.
_BLOCK = 16

#: What stands between a convolution and the next: an activation, or a part of one.
_ACTIVATIONS = frozenset({"Clip", "HardSwish", "Mul", "Relu", "Sigmoid"})


def convolution(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Conv: x `[batch, C, *in]`, kernel `[M, C/group, *k]`, bias `[M]`, y `[batch, M, *out]`."""
    b = walk.builder
    g, x, w = given(dy), required(node, 0), required(node, 1)
    group = int(attribute(node, "group", 1))
    axes = axes_of(node, _sizes(w)[2:], sizes_of(x), sizes_of(node.outputs[0]))
    if x in walk.wanted:
        yield x, _input_gradient(b, g, x, w, axes, group)
    if w in walk.wanted:
        yield w, _kernel_gradient(b, x, g, w, axes, group)
    yield from _bias_gradient(walk, node, g)


def transposed_convolution(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """ConvTranspose: x `[batch, C, *in]`, kernel `[C, M/group, *k]`, y `[batch, M, *out]`.

    It is the gradient of a convolution that slides over y, so its own gradient is that
    convolution: same kernel, nothing to turn.
    """
    b = walk.builder
    g, x, w = given(dy), required(node, 0), required(node, 1)
    group = int(attribute(node, "group", 1))
    axes = _transposed_axes(node, _sizes(w)[2:], sizes_of(x))
    if x in walk.wanted:
        before, after = zip(*(axis.padding for axis in axes), strict=True)
        yield (
            x,
            _conv(
                b,
                g,
                w,
                before,
                after,
                shape=x,
                strides=[a.stride for a in axes],
                dilations=[a.dilation for a in axes],
                group=group,
            ),
        )
    if w in walk.wanted:
        yield w, _kernel_gradient(b, g, x, w, axes, group)
    yield from _bias_gradient(walk, node, g)


def columns_to_image(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Col2Im: the blocks of g, `[batch, C*block, blocks]` from `[batch, C, *image]`."""
    b, x = walk.builder, inputs(node)[0]
    if x not in walk.wanted:
        return
    image, block = (
        required_ints(optional(node, i), what) for i, what in ((1, "its sizes"), (2, "its blocks"))
    )
    rank = len(image)
    pads = attribute(node, "pads") or [0] * (2 * rank)
    before, after = [0, 0, *pads[:rank]], [0, 0, *pads[rank:]]
    blocks = b.pad(given(dy), before, after)
    strides, dilations = (attribute(node, name) or [1] * rank for name in ("strides", "dilations"))
    for i in range(rank):
        extent = dilations[i] * (block[i] - 1) + 1
        starts = np.arange(0, image[i] + before[2 + i] + after[2 + i] - extent + 1, strides[i])
        places = dilations[i] * np.arange(block[i])[:, None] + starts
        # Of each axis two: place in the block, and block.
        axis = 2 + 2 * i
        shape = [*dims_of(blocks)[:axis], *places.shape, *dims_of(blocks)[axis + 1 :]]
        blocks = b.op("Gather", blocks, b.const(places), shape=shape, axis=axis)
    order = [0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)]
    yield x, b.reshape_like(b.transpose(blocks, order), x)


RULES: dict[str, Rule] = {
    "Col2Im": columns_to_image,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
}


# -- gradient with respect to the input ----------------------------------------------------


def _input_gradient(
    b: Builder, g: ir.Value, x: ir.Value, w: ir.Value, axes: Sequence[Axis], group: int
) -> ir.Value:
    """Returns the gradient of a convolution's input, in the form that is fastest."""
    if all(axis.stride == 1 for axis in axes):
        return _phase(b, g, _swapped(b, w, group), axes, [0] * len(axes), group, x)
    if not all(axis.static for axis in axes):
        return by_transposed_convolution(b, g, x, w, axes, group)
    strides = [axis.stride for axis in axes]
    used = [p for p in all_offsets(strides) if _reached(axes, p)]
    if len(used) > 1 and _sizes(w)[1] == 1 and group > 1 and not _widened(x):
        return _by_spreading(b, g, x, w, axes, group)

    sizes = [size for size in sizes_of(x) if size is not None]
    rough = [-(-size // s) for size, s in zip(sizes, strides, strict=True)]
    low = [*(shape_of(x) or ())[:2], *rough]
    undilated = all(axis.dilation == 1 for axis in axes)
    small = _sizes(w)[1] < _BLOCK or len(used) > _BLOCK
    if len(used) > 1 and group == 1 and undilated and small:
        return resize_to(b, _phases_at_once(b, g, w, axes, low), sizes)
    kernel = _swapped(b, w, group)
    parts = {p: _phase(b, g, kernel, axes, p, group, low) for p in used}
    return put_together(b, Phases(parts, tuple(strides), tuple(sizes)))


def _widened(x: ir.Value) -> bool:
    """Tells whether an image is the activation of what a 1x1 convolution has widened.

    So it is in the blocks of MobileNet and EfficientNet. The gradient goes back through both on
    its phases then, and is put together where it has few channels again.
    """
    for _ in range(3):
        made_by = x.producer()
        if made_by is None or made_by.domain:
            return False
        if made_by.op_type == "Conv":
            sizes = _sizes(made_by.inputs[1]) if made_by.inputs[1] is not None else [0, 0]
            narrow = 0 < 2 * sizes[1] <= sizes[0] and attribute(made_by, "group", 1) == 1
            return narrow and all(size == 1 for size in sizes[2:])
        if made_by.op_type not in _ACTIVATIONS or made_by.inputs[0] is None:
            return False
        x = made_by.inputs[0]
    return False


@dataclasses.dataclass(frozen=True)
class _Taps:
    """The kernel positions that one phase of one axis uses.

    Attributes:
        positions: of the kernel, ascending.
        dilation: distance of consecutive ones at the resolution of the windows.
        shift: the first one reads window q - shift for the phase's element q.
    """

    positions: range
    dilation: int
    shift: int

    @property
    def reach(self) -> int:
        """Distance of the last position from the first, in windows."""
        return (len(self.positions) - 1) * self.dilation


def _taps(axis: Axis, phase: int) -> _Taps:
    """Returns the kernel positions t with d*t = phase + p (mod s)."""
    before, _ = axis.padding
    s, d = axis.stride, axis.dilation
    # They recur with a period of at most s.
    hits = [t for t in range(min(axis.kernel, 2 * s)) if (d * t - before - phase) % s == 0]
    if not hits:
        return _Taps(range(0), 1, 0)
    period = hits[1] - hits[0] if len(hits) > 1 else s
    shift = (d * hits[0] - before - phase) // s
    return _Taps(range(hits[0], axis.kernel, period), max(d * period // s, 1), shift)


def _reached(axes: Sequence[Axis], phase: Sequence[int]) -> bool:
    """Tells whether any kernel position serves a phase."""
    return all(_taps(axis, p).positions for axis, p in zip(axes, phase, strict=True))


def _phase(
    b: Builder,
    g: ir.Value,
    kernel: ir.Value,
    axes: Sequence[Axis],
    phase: Sequence[int],
    group: int,
    shape: ir.Value | Sequence[Dim],
) -> ir.Value:
    """Writes the convolution of `g` that makes one phase, of the given shape.

    `kernel` has its channels swapped and its positions in forward order.
    """
    taps = [_taps(axis, p) for axis, p in zip(axes, phase, strict=True)]
    before = [t.reach + t.shift for t in taps]
    after = [
        t.reach - axis.padding[1]
        if axis.stride == 1
        else -(-known(axis.size) // axis.stride) - known(axis.count) - t.shift
        for axis, t in zip(axes, taps, strict=True)
    ]
    return _conv(
        b,
        g,
        _picked(b, kernel, [t.positions for t in taps]),
        before,
        after,
        shape=shape,
        dilations=[t.dilation for t in taps],
        group=group,
    )


def _by_spreading(
    b: Builder, g: ir.Value, x: ir.Value, w: ir.Value, axes: Sequence[Axis], group: int
) -> ir.Value:
    """Inserts zeros into `g`, then convolves at full resolution.

    Meant for depthwise kernels: their few multiplications are cheaper at full resolution than
    putting phases together.
    """
    ends = [known(axis.size) + axis.padding[0] for axis in axes]
    lengths = [min(known(a.count) * a.stride, end) for a, end in zip(axes, ends, strict=True)]
    wide = spread(b, g, [a.stride for a in axes], [0] * len(axes), lengths)
    return _conv(
        b,
        wide,
        flipped(b, _swapped(b, w, group), range(2, 2 + len(axes))),
        [axis.extent - 1 - axis.padding[0] for axis in axes],
        [end - length for end, length in zip(ends, lengths, strict=True)],
        shape=x,
        dilations=[axis.dilation for axis in axes],
        group=group,
    )


def _phases_at_once(
    b: Builder, g: ir.Value, w: ir.Value, axes: Sequence[Axis], low: Sequence[Dim]
) -> ir.Value:
    """Makes all phases, of shape `low`, in one convolution, and merges them.

    Kernel position t = s*v + phase - c serves the phase from place v of a window common to
    all; behind c zeros, the kernel falls apart into the phases' kernels by a Reshape alone.
    """
    rank = len(axes)
    strides = [axis.stride for axis in axes]
    number = math.prod(strides)
    highest = [-(-axis.padding[0] // axis.stride) for axis in axes]
    zeros = [a.stride * high - a.padding[0] for a, high in zip(axes, highest, strict=True)]
    places = [-(-(a.kernel + c) // a.stride) for a, c in zip(axes, zeros, strict=True)]
    end = [a.stride * v - a.kernel - c for a, v, c in zip(axes, places, zeros, strict=True)]

    out, channels = _sizes(w)[:2]
    spatial = range(2, 2 + rank)
    whole = fit(b, w, dict(zip(spatial, zeros, strict=True)), dict(zip(spatial, end, strict=True)))
    pairs = [size for pair in zip(places, strides, strict=True) for size in pair]
    apart = reshaped(b, whole, [out, channels, *pairs])
    by_phase = b.transpose(apart, [*range(3, 3 + 2 * rank, 2), 1, 0, *range(2, 2 + 2 * rank, 2)])
    turned = flipped(b, by_phase, range(2 + rank, 2 + 2 * rank))
    kernel = reshaped(b, turned, [number * channels, out, *places])

    rough = [known(d if isinstance(d, int) else None) for d in low[2:]]
    side_by_side = _conv(
        b,
        g,
        kernel,
        [v - 1 - high for v, high in zip(places, highest, strict=True)],
        [n - known(a.count) + high for n, a, high in zip(rough, axes, highest, strict=True)],
        shape=[low[0], number * channels, *low[2:]],
    )
    return phases_to_space(b, side_by_side, strides)


def by_transposed_convolution(
    b: Builder, g: ir.Value, x: ir.Value, w: ir.Value, axes: Sequence[Axis], group: int
) -> ir.Value:
    """Handles open sizes: the full transposed convolution, cut to the input at run time.

    Args:
        b: the builder.
        g: `[batch, M, *out]`.
        x: has the spatial sizes of the result, and no other part in it.
        w: `[M, C/group, *k]`.
        axes: the geometry of the convolution of which this is the gradient.
        group: of that convolution.

    Returns:
        The gradient of the input, `[batch, C, *in]`.
    """
    lead = [(shape_of(g) or ())[0], _sizes(w)[1] * group]
    full = b.op(
        "ConvTranspose",
        g,
        w,
        shape=[*lead, *[None] * len(axes)],
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        output_padding=[axis.stride - 1 for axis in axes],
        group=group,
    )
    spatial = range(2, 2 + len(axes))
    starts = [_run_time_padding(b, axis, x, g, i) for axis, i in zip(axes, spatial, strict=True)]
    start = b.concat(starts, 0)
    end = b.add(start, b.concat([b.size(x, i) for i in spatial], 0))
    shape = [*lead, *(shape_of(x) or ())[2:]]
    return b.op("Slice", full, start, end, b.ints(*spatial), shape=shape)


def _run_time_padding(b: Builder, axis: Axis, x: ir.Value, y: ir.Value, i: int) -> ir.Value:
    """Returns the padding before axis i of `x` as int64 `[1]`."""
    if axis.before is not None:
        return b.ints(axis.before)
    covered = b.add(b.mul(b.sub(b.size(y, i), 1), axis.stride), axis.extent)
    total = b.elementwise("Max", b.sub(covered, b.size(x, i)), 0)
    return b.div(b.add(total, int(axis.lower)), 2)


# -- gradients with respect to kernel and bias ---------------------------------------------


def _kernel_gradient(
    b: Builder, wide: ir.Value, narrow: ir.Value, w: ir.Value, axes: Sequence[Axis], group: int
) -> ir.Value:
    """Returns the gradient of a kernel `[channels of narrow, channels of wide / group, *k]`.

    It is the convolution of the tensor the kernel slides over, `wide`, with the other one for
    a kernel: batch and channels change places, and so do strides and dilations.
    """
    sizes = _sizes(w)
    before, after = zip(*(axis.padding for axis in axes), strict=True)
    lags = _conv(
        b,
        _channels_first(b, wide, group, sizes[1]),
        b.transpose(narrow, [1, 0, *range(2, rank_of(narrow))]),
        before,
        after,
        shape=[sizes[1], sizes[0], *[None] * len(axes)],
        strides=[axis.dilation for axis in axes],
        dilations=[axis.stride for axis in axes],
        group=group,
    )
    # Rows that no window reaches make it longer than the kernel.
    spatial = range(2, 2 + len(axes))
    kernel = b.op(
        "Slice",
        lags,
        b.ints(*[0] * len(axes)),
        b.ints(*sizes[2:]),
        b.ints(*spatial),
        shape=[sizes[1], sizes[0], *sizes[2:]],
    )
    return b.transpose(kernel, [1, 0, *spatial])


def _channels_first(b: Builder, x: ir.Value, group: int, channels: int) -> ir.Value:
    """Turns `[batch, group * channels, *in]` into `[channels, group * batch, *in]`."""
    spatial = list(range(2, rank_of(x)))
    if group == 1:
        return b.transpose(x, [1, 0, *spatial])
    sizes = [b.size(x, axis) for axis in spatial]
    known = (shape_of(x) or ())[2:]
    grouped = b.op(
        "Reshape",
        x,
        b.concat([b.ints(-1, group, channels), *sizes], 0),
        shape=[None, group, channels, *known],
    )
    turned = b.transpose(grouped, [2, 1, 0, *(axis + 1 for axis in spatial)])
    return b.op(
        "Reshape",
        turned,
        b.concat([b.ints(channels, -1), *sizes], 0),
        shape=[channels, None, *known],
    )


def _bias_gradient(walk: Walk, node: ir.Node, g: ir.Value) -> Gradients:
    """Yields the gradient at a bias, where there is one: the sum over all but the channels."""
    bias = optional(node, 2)
    if bias is not None and bias in walk.wanted:
        others = [axis for axis in range(rank_of(g)) if axis != 1]
        yield bias, walk.builder.reduce_sum(g, others, keepdims=False)


# -- kernels and geometry ------------------------------------------------------------------


def _conv(
    b: Builder,
    value: ir.Value,
    kernel: ir.Value,
    before: Sequence[int],
    after: Sequence[int],
    shape: ir.Value | Sequence[Dim],
    **attributes: Any,
) -> ir.Value:
    """Writes a Conv; where a padding is negative, `value` is cut instead."""
    spatial = range(2, 2 + len(before))
    cut = fit(
        b,
        value,
        {axis: width for axis, width in zip(spatial, before, strict=True) if width < 0},
        {axis: width for axis, width in zip(spatial, after, strict=True) if width < 0},
    )
    pads = [max(width, 0) for width in (*before, *after)]
    return b.op("Conv", cut, kernel, shape=shape, pads=pads, **attributes)


def _swapped(b: Builder, w: ir.Value, group: int) -> ir.Value:
    """Turns a kernel `[M, C/group, *k]` into `[C, M/group, *k]`, group by group."""
    out, channels, *k = _sizes(w)
    spatial = list(range(2, 2 + len(k)))
    if group == 1:
        return b.transpose(w, [1, 0, *spatial])
    if out == group and channels == 1:
        return w
    grouped = reshaped(b, w, [group, out // group, channels, *k])
    swapped = b.transpose(grouped, [0, 2, 1, *(axis + 1 for axis in spatial)])
    return reshaped(b, swapped, [group * channels, out // group, *k])


def _picked(b: Builder, kernel: ir.Value, positions: Sequence[range]) -> ir.Value:
    """Takes kernel positions, one range a spatial axis, in descending order."""
    shape = _sizes(kernel)
    turned = [i for i, size in enumerate(shape[2:]) if size > 1]
    if not turned:
        return kernel
    chosen = [positions[i] for i in turned]
    return b.op(
        "Slice",
        kernel,
        b.ints(*(p[-1] for p in chosen)),
        b.ints(*(p[0] - 1 if p[0] else -END for p in chosen)),
        b.ints(*(2 + i for i in turned)),
        b.ints(*(-p.step for p in chosen)),
        shape=[*shape[:2], *(len(p) for p in positions)],
    )


def _transposed_axes(
    node: ir.Node, kernel: Sequence[int], sizes: Sequence[int | None]
) -> list[Axis]:
    """Returns the geometry of the convolution over the output with one window an input element.

    Its own size stays open: nothing depends on it.
    """
    rank = len(kernel)
    mode = attribute(node, "auto_pad", "NOTSET")
    extra = attribute(node, "output_padding") or [0] * rank
    chosen = attribute(node, "output_shape") or ()
    axes = []
    # The node's own `pads` do not count where it chooses them itself.
    for i, axis in enumerate(axes_of(node, kernel, [None] * rank, sizes)):
        surplus = axis.extent + extra[i] - axis.stride
        if chosen:
            surplus += known(axis.count) * axis.stride - chosen[i - rank]
        elif mode not in ("SAME_UPPER", "SAME_LOWER"):
            before, after = (0, 0) if mode == "VALID" else axis.padding
            axes.append(dataclasses.replace(axis, before=before, after=after - extra[i]))
            continue
        else:
            surplus = max(surplus, 0)
        half = max(surplus, 0) // 2
        before = half if mode == "SAME_UPPER" else max(surplus, 0) - half
        axes.append(dataclasses.replace(axis, before=before, after=surplus - extra[i] - before))
    return axes


def _sizes(w: ir.Value) -> list[int]:
    """Returns the sizes of a kernel.

    Raises:
        Refused: they are known at run time only.
    """
    sizes = static_shape(w)
    if sizes is None:
        raise Refused("the sizes of its kernel are known at run time only")
    return list(sizes)
