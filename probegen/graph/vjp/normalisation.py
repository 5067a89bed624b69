"""Rules of normalisations.

`x` is what is normalised, `n` the result before scale and shift, `g` a gradient. Where mean and
deviation are statistics of x itself, the gradient is

    dx = (g - mean(g) - n * mean(g * n)) / deviation

with `g` the gradient of n and means over the axes of the statistics (Ioffe and Szegedy, 2015,
arXiv:1502.03167; Ba, Kiros and Hinton, 2016, arXiv:1607.06450). Where the mean is not
subtracted, `mean(g)` falls out (Zhang and Sennrich, 2019, arXiv:1910.07467).

Of 16-bit values the statistics are taken in 32 bits, as the forward operators do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.marks import CENTRED
from probegen.graph.core.values import Dim, attribute, constant_of, dims_of, dtype_of, rank_of
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    axis_of,
    given,
    inputs,
    optional,
    unary,
    widened,
)
from probegen.graph.vjp.decomposition import through
from probegen.graph.vjp.edges import zero_where

# -- statistics kept from training -----------------------------------------------------------


def batch_normalisation(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """BatchNormalization in inference: g * scale / deviation.

    Constant statistics are folded into one factor a channel.
    """
    b = walk.builder
    if attribute(node, "training_mode", 0):
        raise Refused("it is in training mode, where the samples of a batch depend on each other")
    g, (x, scale, shift, mean, variance) = given(dy), inputs(node)
    dtype, channels, epsilon = dtype_of(x), _of_channels(x), _epsilon(node)
    slope = _folded_slope(b, node, x)
    if slope is None:
        slope = b.reshape(b.div(b.cast(scale, dtype), _root(b, variance, epsilon, dtype)), channels)
    if x in walk.wanted:
        yield x, b.mul(g, slope)
    if shift in walk.wanted:
        yield shift, _per_channel(b, g, shift)
    if mean in walk.wanted:
        yield mean, b.neg(_per_channel(b, b.mul(g, slope), mean))
    if scale in walk.wanted or variance in walk.wanted:
        root = b.reshape(_root(b, variance, epsilon, dtype), channels)
        n = b.div(b.sub(x, b.reshape(b.cast(mean, dtype), channels)), root)
        if scale in walk.wanted:
            yield scale, _per_channel(b, b.mul(g, n), scale)
        if variance in walk.wanted:
            along = b.mul(b.mul(g, n), b.div(b.mul(slope, -0.5), root))
            yield variance, _per_channel(b, along, variance)


def _root(b: Builder, variance: ir.Value, epsilon: float, dtype: ir.DataType) -> ir.Value:
    return b.elementwise("Sqrt", b.add(b.cast(variance, dtype), epsilon))


def _folded_slope(b: Builder, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """Returns scale / deviation, broadcast against x, where both are known, else None."""
    scale, variance = constant_of(node.inputs[1]), constant_of(node.inputs[4])
    if scale is None or variance is None:
        return None
    slope = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + _epsilon(node))
    return b.const(slope.reshape(_of_channels(x)), dtype_of(x))


# -- statistics of the input -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Normalised:
    """A value normalised by statistics of its own.

    Attributes:
        b: the builder.
        n: the value less its mean, over its deviation.
        inverse: one over the deviation, with the axes of the statistics as 1.
        axes: the axes of the statistics.
        centred: whether the gradient of the mean counts: it was subtracted, and the gradient
            of `n` has not the sum 0 by itself.
    """

    b: Builder
    n: ir.Value
    inverse: ir.Value
    axes: Sequence[int]
    centred: bool = True

    def mean(self, value: ir.Value) -> ir.Value:
        return self.b.reduce("ReduceMean", value, self.axes, keepdims=True)

    def through(self, g: ir.Value) -> ir.Value:
        """Returns the gradient of the value from that of `n`."""
        b = self.b
        along = b.mul(self.n, self.mean(b.mul(g, self.n)))
        across = b.sub(g, self.mean(g)) if self.centred else g
        return b.mul(b.sub(across, along), self.inverse)


def _normalise(
    b: Builder, x: ir.Value, axes: Sequence[int], epsilon: float, *, centre: bool = True
) -> _Normalised:
    """Writes the normalisation again, for operators that do not give their statistics."""
    centred = x
    if centre:
        centred = b.sub(x, b.reduce("ReduceMean", x, axes, keepdims=True))
    variance = b.reduce("ReduceMean", b.mul(centred, centred), axes, keepdims=True)
    inverse = b.elementwise("Reciprocal", _root(b, variance, epsilon, dtype_of(x)))
    return _Normalised(b, b.mul(centred, inverse), inverse, axes, centre)


def layer_normalisation(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """LayerNormalization and RMSNormalization.

    The first gives its own statistics, in 32 bits, so that they need not be taken again.
    """
    b = walk.builder
    if any(gradient is not None for gradient in dy[1:]):
        yield from through(walk, node, dy, _layer_normalisation_again)
        return
    x, scale = inputs(node)[:2]
    shift = optional(node, 2)
    g = widened(b, given(dy))
    axes = list(range(axis_of(node, x, -1), rank_of(x)))
    epsilon = _epsilon(node)
    if node.op_type == "RMSNormalization":
        normal = _normalise(b, widened(b, x), axes, epsilon, centre=False)
    elif dtype_of(x) == ir.DataType.DOUBLE:
        normal = _normalise(b, x, axes, epsilon)
    else:
        normal = _with_its_statistics(b, node, x, axes)
    if x in walk.wanted:
        weighted = g if _is_all(scale, 1.0) else b.mul(g, widened(b, scale))
        yield x, b.cast(normal.through(weighted), dtype_of(x))
    if scale in walk.wanted:
        yield scale, b.cast(b.unbroadcast(b.mul(g, normal.n), scale), dtype_of(scale))
    if shift is not None and shift in walk.wanted:
        yield shift, b.cast(b.unbroadcast(g, shift), dtype_of(shift))


def _layer_normalisation_again(b: Builder, node: ir.Node) -> list[ir.Value]:
    """Writes LayerNormalization with its mean and one over its deviation."""
    x, scale = inputs(node)[:2]
    shift = optional(node, 2)
    axes = list(range(axis_of(node, x, -1), rank_of(x)))
    wide = widened(b, x)
    mean = b.reduce("ReduceMean", wide, axes, keepdims=True)
    centred = b.sub(wide, mean)
    variance = b.reduce("ReduceMean", b.mul(centred, centred), axes, keepdims=True)
    inverse = b.elementwise("Reciprocal", _root(b, variance, _epsilon(node), dtype_of(wide)))
    y = b.mul(b.cast(b.mul(centred, inverse), dtype_of(x)), scale)
    y = y if shift is None else b.add(y, shift)
    own = [v.dtype for v in node.outputs[1:]]
    extra = [b.cast(v, t or dtype_of(v)) for v, t in zip((mean, inverse), own, strict=False)]
    return [y, *extra]


def _with_its_statistics(
    b: Builder, node: ir.Node, x: ir.Value, axes: Sequence[int]
) -> _Normalised:
    """Takes the statistics from the node, and n itself where that is its result."""
    shape: list[Dim] = [1 if i in axes else d for i, d in enumerate(dims_of(x))]
    mean, inverse = (b.output(node, i, shape, ir.DataType.FLOAT) for i in (1, 2))
    scale, shift, y = node.inputs[1], optional(node, 2), node.outputs[0]
    bare = _is_all(scale, 1.0) and (shift is None or _is_all(shift, 0.0))
    if bare and y.dtype == ir.DataType.FLOAT:
        return _Normalised(b, y, inverse, axes, centred=not node.meta.get(CENTRED, False))
    return _Normalised(b, b.mul(b.sub(widened(b, x), mean), inverse), inverse, axes)


def _is_all(value: ir.Value | None, number: float) -> bool:
    """Tells whether a value is a constant of one number throughout."""
    array = constant_of(value)
    return array is not None and bool((array == number).all())


def instance_normalisation(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """InstanceNormalization: statistics of each sample and channel."""
    b = walk.builder
    g, (x, scale, shift) = widened(b, given(dy)), inputs(node)
    normal = _normalise(b, widened(b, x), list(range(2, rank_of(x))), _epsilon(node))
    if x in walk.wanted:
        weighted = b.mul(g, b.reshape(widened(b, scale), _of_channels(x)))
        yield x, b.cast(normal.through(weighted), dtype_of(x))
    if scale in walk.wanted:
        yield scale, _per_channel(b, b.mul(g, normal.n), scale)
    if shift in walk.wanted:
        yield shift, _per_channel(b, g, shift)


def group_normalisation(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """GroupNormalization: statistics of each sample and group of channels.

    This is the operator of opset 21; onnx withdrew that of 18, whose scale is one a group.
    """
    b = walk.builder
    if b.opset < 21:
        raise Refused("up to opset 20 it is withdrawn; opset 21 or later has its successor")
    g, (x, scale, shift) = widened(b, given(dy)), inputs(node)
    grouped: list[Size] = [(x, 0), int(attribute(node, "num_groups")), -1]
    normal = _normalise(b, b.reshape(widened(b, x), grouped), [2], _epsilon(node))
    if x in walk.wanted:
        weighted = b.mul(g, b.reshape(widened(b, scale), _of_channels(x)))
        through = normal.through(b.reshape(weighted, grouped))
        yield x, b.cast(b.reshape_like(through, x), dtype_of(x))
    if scale in walk.wanted:
        yield scale, _per_channel(b, b.mul(g, b.reshape_like(normal.n, x)), scale)
    if shift in walk.wanted:
        yield shift, _per_channel(b, g, shift)


def _of_channels(x: ir.Value) -> list[int]:
    """Returns the shape in which one entry a channel broadcasts against `[batch, channel, ...]`."""
    return [-1, *[1] * (rank_of(x) - 2)]


def _per_channel(b: Builder, value: ir.Value, like: ir.Value) -> ir.Value:
    """Sums `[batch, channel, ...]` over all but the channels, in the element type of `like`."""
    others = [axis for axis in range(rank_of(value)) if axis != 1]
    total = b.reduce_sum(value, others, keepdims=False)
    return b.cast(total, dtype_of(like))


def _mean_variance_normalisation(v: Local) -> ir.Value:
    """MeanVarianceNormalization: the output is n itself.

    The 1e-9 that the operator adds to the deviation counts where that is 0 alone.
    """
    b = v.b
    axes = sorted(axis % rank_of(v.x) for axis in attribute(v.node, "axes", [0, 2, 3]))
    return _normalise(b, v.x, axes, 1e-18).through(v.g)


# -- other measures ------------------------------------------------------------------------


def _lp_normalisation(v: Local) -> ir.Value:
    """LpNormalization: (g - d * sum(g * y)) / norm, d the slope of the norm.

    It is 0 where the norm is, as the operator's output is there.
    """
    b, axis = v.b, axis_of(v.node, v.x, -1)
    euclidean = int(attribute(v.node, "p", 2)) == 2
    norm = b.reduce("ReduceL2" if euclidean else "ReduceL1", v.x, [axis], keepdims=True)
    slope = v.y if euclidean else b.elementwise("Sign", v.x)
    along = b.reduce_sum(b.mul(v.g, v.y), [axis], keepdims=True)
    return zero_where(b, norm, b.div(b.sub(v.g, b.mul(slope, along)), norm))


def _local_response(v: Local) -> ir.Value:
    """LRN: y = x / s**beta, s = bias + alpha / size * sum of x**2 over near channels.

    dx = g / s**beta - 2 * alpha * beta / size * x * sum(g * y / s), with the sum over the
    channels that have this one near (Krizhevsky, Sutskever and Hinton, 2012).
    """
    b, x, size = v.b, v.x, int(attribute(v.node, "size"))
    alpha, beta = v.number("alpha", 1e-4), v.number("beta", 0.75)
    before, after = (size - 1) // 2, size // 2
    mean_square = _over_channels(b, b.mul(x, x), size, before, after)
    s = b.add(b.mul(mean_square, alpha), v.number("bias", 1.0))
    direct = b.mul(v.g, b.elementwise("Pow", s, -beta))
    pulled = _over_channels(b, b.div(b.mul(v.g, v.y), s), size, after, before)
    return b.sub(direct, b.mul(b.mul(x, 2 * alpha * beta), pulled))


def _over_channels(b: Builder, value: ir.Value, size: int, before: int, after: int) -> ir.Value:
    """Returns the sum over `size` channels around each, over `size`; outside counts as 0."""
    planes = b.reshape(value, [(value, 0), 1, (value, 1), -1])
    pooled = b.op(
        "AveragePool",
        planes,
        shape=planes,
        kernel_shape=[size, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    return b.reshape_like(pooled, value)


def _epsilon(node: ir.Node) -> float:
    return float(attribute(node, "epsilon", 1e-5))


RULES: Mapping[str, Rule] = {
    "BatchNormalization": batch_normalisation,
    "LayerNormalization": layer_normalisation,
    "RMSNormalization": layer_normalisation,
    "InstanceNormalization": instance_normalisation,
    "GroupNormalization": group_normalisation,
    "MeanVarianceNormalization": unary(_mean_variance_normalisation),
    "LpNormalization": unary(_lp_normalisation),
    "LRN": unary(_local_response),
}
