"""Rules of max pooling.

The gradient of a window goes to its greatest element, and of several equal ones to the first in
row-major order, as in TensorFlow and in the indices that ONNX's MaxPool gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import Dim, attribute, dtype_of, rank_of, shape_of
from probegen.graph.vjp.activation import RULES as ACTIVATION
from probegen.graph.vjp.common import Dys, Gradients, given, inputs, widened
from probegen.graph.vjp.edges import product
from probegen.graph.vjp.masks import above
from probegen.graph.vjp.pooling import axes_of_pooling, unpadded, window_positions
from probegen.graph.vjp.spatial import Axis, fit, interleaved, known, sizes_of, spread

#: Up to this kernel size the maximum of a window is found again by comparing pairs.
_PAIRWISE = 3
#: Depthwise convolutions are fast where channels fill the blocks runtimes keep them in.
_BLOCK = 16
#: Operators that read infinities in no sound model, or make finite numbers of them: what they read
#: need not be looked at.
_FINITE = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Sigmoid", "Tanh", "Softmax", "BatchNormalization"}
)


def max_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """MaxPool: x `[batch, C, *in]`, y `[batch, C, *out]`; its indices have no gradient.

    A Relu that nothing else reads is passed in the same step: the slope at a maximum is that at
    y, of which there are fewer. It is 0 at any y of 0, whichever zero of the window counts.
    """
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    axes = axes_of_pooling(node, x)
    relu = _relu_before(walk, x)
    if relu is not None:
        y = node.outputs[0]
        yield relu, _at_maxima(walk, node, product(walk, g, above(b, y, 0.0)), x, axes)
    else:
        yield x, _at_maxima(walk, node, g, x, axes)


def _relu_before(walk: Walk, x: ir.Value) -> ir.Value | None:
    """Returns the input of the Relu that makes `x` for one reader only, where there is one."""
    made_by = x.producer()
    alone = sole_reader(x) is not None
    return made_by.inputs[0] if made_by is not None and alone and _is_rectified(walk, x) else None


def _at_maxima(
    walk: Walk, node: ir.Node, g: ir.Value, x: ir.Value, axes: Sequence[Axis]
) -> ir.Value:
    """Puts `g` where the maxima of `x` are, the first of each window, and zeros elsewhere."""
    b = walk.builder
    if all(axis.static and axis.kernel == 1 and unpadded(axis) for axis in axes):
        sizes = [known(axis.size) for axis in axes]
        return spread(b, g, [axis.stride for axis in axes], [0] * len(axes), sizes)
    if _pairwise(x, axes):
        return _by_pairs(walk, g, x, axes)
    return _by_indices(b, node, g, x, axes)


def global_max_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GlobalMaxPool: x `[batch, C, *in]`, y `[batch, C, 1...]`."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    lead = (shape_of(x) or ())[:2]
    flat = b.op("Reshape", x, b.ints(0, 0, -1), shape=[*lead, None])
    first = b.op("ArgMax", flat, shape=lead, dtype=ir.DataType.INT64, axis=2, keepdims=0)
    ends = b.const([0, 1], dtype_of(g))
    depth = b.squeeze(b.size(flat, 2), [0])
    chosen = b.op("OneHot", first, depth, ends, shape=[*lead, None], dtype=g.dtype)
    share = b.op("Reshape", g, b.ints(0, 0, 1), shape=[*lead, 1])
    yield x, b.reshape_like(b.mul(chosen, share), x)


def _by_indices(
    b: Builder, node: ir.Node, g: ir.Value, x: ir.Value, axes: Sequence[Axis]
) -> ir.Value:
    """Pools once more, for the indices, and adds the gradients up there.

    The forward node is not asked for them: with indices it would leave the runtime's blocked
    layout and take ten times as long, in predictions without explanation too.
    """
    if b.opset < 16 and any(axis.stride < axis.extent for axis in axes):
        raise Refused("windows overlap, and adding at indices needs opset 16")
    names = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode")
    again = {name: attribute(node, name) for name in names}
    _, indices = b.ops("MaxPool", x, outputs=2, shapes=[g, g], **again)
    indices.dtype = ir.DataType.INT64
    if any(_may_miss(node, axis) for axis in axes):  # the least number comes out, at no place
        y = node.outputs[0]
        lowest = float(np.finfo(dtype_of(y).numpy()).min)
        g = b.where(b.elementwise("Greater", y, lowest), g, 0)
        indices = b.op("Max", indices, b.ints(0), shape=indices, dtype=indices.dtype)
    flat = b.ints(-1)
    # No runtime adds 16-bit numbers at indices on a CPU.
    updates = b.op("Reshape", widened(b, g), flat, shape=[None])
    zeros = b.zeros([(x, i) for i in range(rank_of(x))], dtype_of(updates))
    scattered = b.op(
        "ScatterElements",
        b.op("Reshape", zeros, flat, shape=[None]),
        b.op("Reshape", indices, flat, shape=[None]),
        updates,
        shape=[None],
        axis=0,
        reduction="add" if b.opset >= 16 else None,
    )
    return b.cast(b.reshape_like(scattered, x), dtype_of(x))


def _may_miss(node: ir.Node, axis: Axis) -> bool:
    """Tells whether a window may cover padding alone: with the input in one of its holes."""
    if axis.static:
        at = window_positions(axis)
        return not ((at >= 0) & (at < known(axis.size))).any(axis=1).all()
    holes = axis.dilation > 1 and (axis.before, axis.after) != (0, 0)
    return holes or bool(attribute(node, "ceil_mode", 0))


def _pairwise(x: ir.Value, axes: Sequence[Axis]) -> bool:
    """Tells whether `_by_pairs` can do it, and is fast."""
    channels = _channels(x)
    return (
        dtype_of(x) == ir.DataType.FLOAT
        and len(axes) == 2
        and channels is not None
        and channels % _BLOCK == 0
        and all(a.static and a.dilation == 1 for a in axes)
        and all(1 < a.kernel <= _PAIRWISE and a.stride <= a.kernel for a in axes)
    )


def _by_pairs(walk: Walk, g: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """Finds the maxima again axis by axis, in operators that runtimes do in parallel.

    A window's first greatest element lies in the first row whose maximum is greatest; so rows
    are decided over the maxima of rows, then columns within rows. On 64x224x224 with 2x2
    windows this takes 4.7 ms where pooling with indices and ScatterElements takes 11.3.

    Padding is what loses every comparison. Of a rectified image that is 0 too, which a
    convolution pads with: a zero of the image may then lose to padding before it, and with it a
    gradient that the rectifier stops.
    """
    b, (rows, columns) = walk.builder, axes
    if _may_hold_infinities(x):  # padding or masks of -inf; a tap of 0 would make NaN of it
        largest = np.finfo(np.float32).max
        bounds = (b.const(bound, dtype_of(x)) for bound in (-largest, largest))
        x = b.op("Clip", x, *bounds, shape=x)
    if not _is_rectified(walk, x):
        before = [axis.padding[0] for axis in axes]
        ends = [a.stride * (known(a.count) - 1) + a.kernel - a.padding[0] for a in axes]
        after = [max(end - known(a.size), 0) for a, end in zip(axes, ends, strict=True)]
        padded = _padded_with_lowest(b, x, before, after)
        sizes = zip(axes, sizes_of(padded), strict=True)
        rows, columns = (dataclasses.replace(a, size=n, before=0, after=0) for a, n in sizes)
        found = _by_pairs_padded(b, g, padded, rows, columns)
        low = {2 + i: -width for i, width in enumerate(before)}
        return fit(b, found, low, {2 + i: -width for i, width in enumerate(after)}, like=x)
    return _by_pairs_padded(b, g, x, rows, columns)


def _may_hold_infinities(x: ir.Value) -> bool:
    """Tells whether a stored infinity, such as that of a padding, may reach `x`."""
    seen: set[ir.Value] = set()
    ahead = [x]
    while ahead:
        value = ahead.pop()
        if value in seen:
            continue
        seen.add(value)
        stored = ir.convenience.get_const_tensor(value)
        if stored is not None:
            array = stored.numpy()
            if array.dtype.kind == "f" and np.isinf(array).any():
                return True
        made_by = value.producer()
        if made_by is not None and (made_by.domain or made_by.op_type not in _FINITE):
            ahead += [v for v in made_by.inputs if v is not None]
    return False


def _is_rectified(walk: Walk, x: ir.Value) -> bool:
    """Tells whether a Relu makes `x`, and passes on all of its gradient that anybody sees.

    Where the walk has another rule for Relu than that of gradients, that rule is to be heard.
    """
    made_by = x.producer()
    return (
        made_by is not None
        and made_by.op_type == "Relu"
        and not made_by.domain
        and x not in walk.asked_for
        and walk.rules.get("Relu") is ACTIVATION["Relu"]
    )


def _by_pairs_padded(b: Builder, g: ir.Value, x: ir.Value, rows: Axis, columns: Axis) -> ir.Value:
    """Does what `_by_pairs` says for an image whose padding is 0."""
    row_maxima = b.op(
        "MaxPool",
        x,
        shape=[*(shape_of(x) or ())[:3], known(columns.count)],
        kernel_shape=[1, columns.kernel],
        strides=[1, columns.stride],
        pads=[0, columns.padding[0], 0, _reach(columns)],
    )
    g = _decided(b, g, row_maxima, rows, 0)
    return _decided(b, g, x, columns, 1)


def _reach(axis: Axis) -> int:
    """Returns how far the last window reaches beyond the input."""
    end = axis.stride * (known(axis.count) - 1) + axis.kernel - axis.padding[0]
    return max(end - known(axis.size), 0)


def _padded_with_lowest(
    b: Builder, x: ir.Value, before: Sequence[int], after: Sequence[int]
) -> ir.Value:
    """Pads the spatial axes of `x` with what loses every comparison."""
    if not any((*before, *after)):
        return x
    sizes = [
        known(size) + low + high for size, low, high in zip(sizes_of(x), before, after, strict=True)
    ]
    widths = b.ints(0, 0, *before, 0, 0, *after)
    lowest = b.const(np.finfo(np.float32).min, dtype_of(x))
    return b.op("Pad", x, widths, lowest, shape=[*(shape_of(x) or ())[:2], *sizes])


def _decided(b: Builder, g: ir.Value, z: ir.Value, axis: Axis, i: int) -> ir.Value:
    """Returns the gradient of `z`, given that of its maxima along spatial axis i.

    From the last element of a window to the second: one that is greater than all before it
    takes what is left of the gradient. So equal elements leave it to the first.
    """
    taps = np.eye(axis.kernel)
    around = axis.padding[0], _reach(axis)
    shares: dict[int, ir.Value] = {}
    rest = g
    for later in range(axis.kernel - 1, 0, -1):
        share = rest
        for earlier in range(later):
            apart = taps[later] - taps[earlier]
            difference = _depthwise(b, z, apart, i, g, axis.stride, around)
            share = b.mul(share, above(b, difference, 0))
        shares[later] = share
        # A convolution with -1, and not a Sub, to stay in the layout of convolutions.
        rest = b.add(rest, _depthwise(b, share, -taps[0][:1], i, share))
    shares[0] = rest

    # Element t of window o is z[stride * o + t - padding].
    size = known(sizes_of(z)[i])
    length = -(-size // axis.stride)
    parts: dict[tuple[int, ...], ir.Value] = {}
    for t, share in sorted(shares.items()):
        lag, phase = divmod(t - axis.padding[0], axis.stride)
        key = _on_axis(phase, i, 0)
        part = _moved(b, share, lag, i, length)
        parts[key] = b.add(parts[key], part) if key in parts else part
    merged = interleaved(b, parts, _on_axis(axis.stride, i, 1))
    return fit(b, merged, {}, {2 + i: size - axis.stride * length})


def _on_axis(value: int, i: int, other: int) -> tuple[int, int]:
    """Returns `value` for spatial axis i of two, and `other` for the other one."""
    return (value, other) if i == 0 else (other, value)


def _moved(b: Builder, value: ir.Value, by: int, i: int, length: int) -> ir.Value:
    """Moves spatial axis i by a number of positions, and fits it to a length."""
    count = known(sizes_of(value)[i])
    if by == 0 and length == count:
        return value
    # A single 1 among the taps: behind -by zeros where it looks ahead, before by others.
    taps = np.zeros(abs(by) + 1)
    taps[-1 if by < 0 else 0] = 1
    before, after = max(by, 0), length - count + max(-by, 0)
    shape = list(shape_of(value) or ())
    shape[2 + i] = length
    cut = fit(b, value, {}, {2 + i: min(after, 0)})
    return _depthwise(b, cut, taps, i, shape, padding=(before, max(after, 0)))


def _depthwise(
    b: Builder,
    value: ir.Value,
    taps: npt.NDArray[np.float64],
    i: int,
    shape: ir.Value | Sequence[Dim],
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> ir.Value:
    """Convolves every channel with the same taps along spatial axis i."""
    channels = known(_channels(value))
    kernel = np.broadcast_to(
        taps.reshape(_on_axis(-1, i, 1)), (channels, 1, *_on_axis(len(taps), i, 1))
    )
    before, after = padding
    return b.op(
        "Conv",
        value,
        b.const(kernel, dtype_of(value)),
        shape=shape,
        kernel_shape=list(kernel.shape[2:]),
        strides=list(_on_axis(stride, i, 1)),
        pads=[*_on_axis(before, i, 0), *_on_axis(after, i, 0)],
        group=channels,
    )


def max_unpool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """MaxUnpool: g from the places that the indices name, in an image without channels' axes."""
    b = walk.builder
    g, (x, indices) = given(dy), inputs(node)[:2]
    if x not in walk.wanted:
        return
    flat = [b.op("Reshape", v, b.ints(-1), shape=[None]) for v in (g, indices)]
    picked = b.op("Gather", *flat, shape=[None], axis=0)
    yield x, b.reshape_like(picked, x)


RULES: dict[str, Rule] = {
    "MaxPool": max_pool,
    "GlobalMaxPool": global_max_pool,
    "MaxUnpool": max_unpool,
}


def _channels(x: ir.Value) -> int | None:
    channels = (shape_of(x) or ())[1]
    return channels if isinstance(channels, int) else None
