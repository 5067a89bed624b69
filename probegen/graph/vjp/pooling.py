"""Rules of average and norm pooling.

Averaging is linear and falls apart into its axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, dtype_of, rank_of, shape_of
from probegen.graph.vjp.common import Dys, Gradients, given, inputs
from probegen.graph.vjp.convolution import by_transposed_convolution
from probegen.graph.vjp.spatial import (
    Axis,
    along,
    axes_of,
    fit,
    known,
    repeated,
    resize_to,
    sizes_of,
)

#: Axes whose matrix would have more elements are handled without one.
_MATRIX = 2**18


#: From this opset on onnxruntime does not count what an average has behind the padding; before, it
#: does where padding counts and the number of windows is rounded down.
_COUNTS_PADDING_ALONE = 19


# -- averages ------------------------------------------------------------------------------


def average_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """AveragePool: x `[batch, C, *in]`, y `[batch, C, *out]`."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x in walk.wanted:
        yield x, _average_gradient(b, node, g, x)


def global_average_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GlobalAveragePool: x `[batch, C, *in]`, y `[batch, C, 1...]`."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    sizes = sizes_of(x)
    if None in sizes:
        spatial = b.concat([b.size(x, 2 + i) for i in range(len(sizes))], 0)
        number = b.op("ReduceProd", spatial, shape=[1], keepdims=1)
        share = b.div(g, b.cast(number, dtype_of(g)))
    else:
        share = b.mul(g, 1 / math.prod(known(size) for size in sizes))
    yield x, b.expand(share, x)


def _average_gradient(b: Builder, node: ir.Node, g: ir.Value, x: ir.Value) -> ir.Value:
    """Returns the gradient of an AveragePool in the form that is fastest."""
    axes = axes_of_pooling(node, x)
    with_padding = bool(attribute(node, "count_include_pad", 0))
    if not all(axis.static for axis in axes):
        return _average_at_run_time(b, node, g, x, axes, with_padding)
    if all(axis.extent == axis.kernel == axis.stride and unpadded(axis) for axis in axes):
        blocks = repeated(b, b.mul(g, 1 / _volume(axes)), [axis.stride for axis in axes])
        return resize_to(b, blocks, [known(axis.size) for axis in axes])
    ends = bool(attribute(node, "ceil_mode", 0)) or _counts_what_is_there(b, with_padding)
    divisors = [_divisors(axis, with_padding, ends) for axis in axes]
    if all(axis.stride == 1 and axis.dilation == 1 for axis in axes):
        return _averaged_again(b, _even(b, g, axes, divisors), x, axes)
    if any(known(axis.size) * known(axis.count) > _MATRIX for axis in axes):
        share = b.mul(_even(b, g, axes, divisors), 1 / _volume(axes))
        return _over_windows(b, share, x, axes)
    matrices = [_windows(a) / d[:, None] for a, d in zip(axes, divisors, strict=True)]
    return along(b, g, {2 + i: matrix for i, matrix in enumerate(matrices)})


def _even(
    b: Builder, g: ir.Value, axes: Sequence[Axis], divisors: Sequence[npt.NDArray[np.float64]]
) -> ir.Value:
    """Weighs `g` so that dividing it by the full size of a window is right for all windows."""
    weights = np.ones(())
    for axis, divisor in zip(axes, divisors, strict=True):
        weights = weights[..., None] * (axis.kernel / divisor)
    return g if np.all(weights == 1) else b.mul(g, b.const(weights, dtype_of(g)))


def unpadded(axis: Axis) -> bool:
    """Tells whether every window lies within the input."""
    end = axis.stride * (known(axis.count) - 1) + axis.extent
    return axis.before == 0 and end <= known(axis.size)


def _volume(axes: Sequence[Axis]) -> int:
    return math.prod(axis.kernel for axis in axes)


def window_positions(axis: Axis) -> npt.NDArray[np.int64]:
    """Returns the input positions `[count, kernel]` of all windows; outside is padding."""
    starts = axis.stride * np.arange(known(axis.count)) - axis.padding[0]
    return starts[:, None] + axis.dilation * np.arange(axis.kernel)


def _windows(axis: Axis) -> npt.NDArray[np.float64]:
    """Returns the matrix `[count, size]` that is 1 where a window covers a position."""
    matrix = np.zeros((known(axis.count), known(axis.size)))
    for window, covered in enumerate(window_positions(axis)):
        matrix[window, covered[(covered >= 0) & (covered < known(axis.size))]] = 1
    return matrix


def _divisors(axis: Axis, with_padding: bool, ends: bool) -> npt.NDArray[np.float64]:
    """Returns what one axis adds to the number each window's sum is divided by, `[count]`.

    Where padding counts, all of a window does, but for what lies behind the padding where windows
    end there: where their number is rounded up, and of all windows in later opsets. So onnxruntime
    has it.
    """
    at = window_positions(axis)
    if with_padding and not ends:
        return np.full(len(at), float(axis.kernel))
    before, after = axis.padding if with_padding else (0, 0)
    counted = (at >= -before) & (at < known(axis.size) + after)
    found: npt.NDArray[np.float64] = counted.sum(axis=1).astype(np.float64)
    return found


def _averaged_again(b: Builder, g: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """Handles windows one position apart: averaging them is its own gradient, turned round."""
    pads = [(a.extent - 1 - a.padding[0], a.extent - 1 - a.padding[1]) for a in axes]
    low = {2 + i: before for i, (before, _) in enumerate(pads) if before < 0}
    high = {2 + i: after for i, (_, after) in enumerate(pads) if after < 0}
    return b.op(
        "AveragePool",
        fit(b, g, low, high),
        shape=x,
        kernel_shape=[axis.kernel for axis in axes],
        pads=[max(width, 0) for side in zip(*pads, strict=True) for width in side],
        count_include_pad=1,
    )


def _average_at_run_time(
    b: Builder, node: ir.Node, g: ir.Value, x: ir.Value, axes: Sequence[Axis], with_padding: bool
) -> ir.Value:
    """Handles open sizes."""
    beyond = _counts_what_is_there(b, with_padding) and any(_may_be_larger(a) for a in axes)
    if beyond or attribute(node, "ceil_mode", 0):
        counted = _counted_at_run_time(b, g, x, axes, with_padding)
        return _over_windows(b, b.div(g, b.cast(counted, dtype_of(g))), x, axes)
    if any(axis.before != 0 or axis.after != 0 for axis in axes) and not with_padding:
        # Pooled ones give the share of each window that lies within the input.
        one = b.const(np.ones([1] * rank_of(x)), dtype_of(x))
        sizes = b.concat([b.size(x, 2 + i) for i in range(len(axes))], 0)
        ones = b.op("Expand", one, b.concat([b.ints(1, 1), sizes], 0), shape=[1, 1, *sizes_of(x)])
        names = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")
        again = {name: attribute(node, name) for name in names}
        shape = [1, 1, *sizes_of(g)]
        g = b.div(g, b.op("AveragePool", ones, shape=shape, count_include_pad=1, **again))
    return b.mul(_over_windows(b, g, x, axes), 1 / _volume(axes))


def _counts_what_is_there(b: Builder, with_padding: bool) -> bool:
    """Tells whether what windows have behind the input and its padding does not count."""
    return not with_padding or b.opset >= _COUNTS_PADDING_ALONE


def _may_be_larger(axis: Axis) -> bool:
    """Tells whether a window may be larger than the input and its padding.

    onnxruntime takes it for one where the stride is as large; own padding (`auto_pad`) fills it.
    """
    if axis.before is None or axis.after is None or axis.stride == 1:
        return False
    least = 1 if axis.size is None else axis.size
    return axis.extent > axis.before + least + axis.after


def _counted_at_run_time(
    b: Builder, g: ir.Value, x: ir.Value, axes: Sequence[Axis], with_padding: bool
) -> ir.Value:
    """Returns the number that each window's sum is divided by, int64 `[*out]`.

    As `_divisors` does for known sizes, where what lies behind the padding does not count.
    """
    counts = []
    for i, axis in enumerate(axes):
        before, after = axis.padding if with_padding else (0, 0)
        starts = b.mul(b.count_up(b.size(g, 2 + i), axis.count), axis.stride)
        covered = axis.dilation * np.arange(axis.kernel) - axis.padding[0]
        at = b.add(b.unsqueeze(starts, [1]), b.const(covered[None].astype(np.int64)))
        end = b.add(b.size(x, 2 + i), after)
        behind = b.elementwise("Greater", at, -before - 1)
        inside = b.op("And", behind, b.elementwise("Less", at, end), shape=at, dtype=behind.dtype)
        count = b.reduce_sum(b.cast(inside, ir.DataType.INT64), [1], keepdims=False)
        counts.append(b.unsqueeze(count, range(1, len(axes) - i)))
    return functools.reduce(b.mul, counts)


# -- norms ---------------------------------------------------------------------------------


def lp_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """LpPool: y = (sum |x|^p)^(1/p) over windows; 0 where y is 0."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    axes = axes_of_pooling(node, x)
    if attribute(node, "ceil_mode", 0) and not all(axis.static for axis in axes):
        raise Refused(
            "it has ceil_mode and an open size: runtimes do not agree what a window gives that "
            "reaches behind the input"
        )
    p = float(attribute(node, "p", 2))
    share = _norm_share(b, g, node.outputs[0], p)
    small = all(axis.static and known(axis.size) * known(axis.count) <= _MATRIX for axis in axes)
    if small:
        share = along(b, share, {2 + i: _windows(axis) for i, axis in enumerate(axes)})
    else:
        share = _over_windows(b, share, x, axes)
    yield x, b.mul(share, _power_slope(b, x, p))


def global_lp_pool(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GlobalLpPool: x `[batch, C, *in]`, y `[batch, C, 1...]`; 0 where y is 0."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x in walk.wanted:
        p = float(attribute(node, "p", 2))
        yield x, b.mul(_power_slope(b, x, p), _norm_share(b, g, node.outputs[0], p))


def _norm_share(b: Builder, g: ir.Value, y: ir.Value, p: float) -> ir.Value:
    """Returns g * y^(1 - p), and 0 where y is 0."""
    if p == 1:
        return g
    powers = b.elementwise("Pow", y, 1 - p)
    return b.where(b.elementwise("Greater", y, 0), b.mul(g, powers), 0)


def _power_slope(b: Builder, x: ir.Value, p: float) -> ir.Value:
    """Returns sign(x) |x|^(p - 1), the slope of |x|^p / p."""
    if p == 2:
        return x
    sign = b.elementwise("Sign", x)
    return b.mul(sign, b.elementwise("Pow", b.elementwise("Abs", x), p - 1)) if p != 1 else sign


def _over_windows(b: Builder, g: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """Adds each window's value to all positions it covers; sizes may be open.

    Channels count as images, so that one kernel of ones does for all.
    """
    counts = b.concat([b.size(g, 2 + i) for i in range(len(axes))], 0)
    flat = b.concat([b.ints(-1, 1), counts], 0)
    images = b.op("Reshape", g, flat, shape=[None, 1, *(shape_of(g) or ())[2:]])
    kernel = b.const(np.ones([1, 1, *(axis.kernel for axis in axes)]), dtype_of(g))
    return b.reshape_like(by_transposed_convolution(b, images, x, kernel, axes, 1), x)


RULES: dict[str, Rule] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "LpPool": lp_pool,
    "GlobalLpPool": global_lp_pool,
}


def axes_of_pooling(node: ir.Node, x: ir.Value) -> list[Axis]:
    """Returns the geometry of a pooling."""
    kernel = attribute(node, "kernel_shape")
    return axes_of(node, kernel, sizes_of(x), sizes_of(node.outputs[0]))
