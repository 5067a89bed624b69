"""Rules of reductions: sums, means, extrema, norms, running sums and the k largest.

`x` is a node's input, `y` its output, `g` the gradient of `y`. What can be written at the size
of `y` is, and is broadcast to the size of `x` last.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, dims_of, dtype_of, rank_of
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
from probegen.graph.vjp.decomposition import decomposed
from probegen.graph.vjp.edges import may_not_be_finite, product, zero_where


@dataclasses.dataclass(frozen=True)
class Reduction:
    """What the gradient of a reduction is written from.

    Attributes:
        walk: the walk in progress.
        node: the forward node.
        x: what is reduced.
        g: the gradient of the result, with the reduced axes as 1.
        axes: the reduced axes, sorted, not negative.
        unbounded: whether `g` may be infinite.
    """

    walk: Walk
    node: ir.Node
    x: ir.Value
    g: ir.Value
    axes: list[int]
    unbounded: bool

    @property
    def b(self) -> Builder:
        """The builder."""
        return self.walk.builder

    def y(self) -> ir.Value:
        """Returns the result with the reduced axes as 1."""
        return with_reduced_axes(self.b, self.node, self.node.outputs[0], self.axes)

    def times(self, factor: ir.Value, g: ir.Value | None = None) -> ir.Value:
        """Returns g times a slope, 0 where one of the two is 0 and the other not finite."""
        g = self.g if g is None else g
        return product(self.walk, g, factor, unbounded=self.unbounded)

    def sum(self, value: ir.Value) -> ir.Value:
        """Returns the sum of `value` over the reduced axes, which stay as 1."""
        return self.b.reduce_sum(value, self.axes, keepdims=True)

    def over_count(self) -> ir.Value:
        """Returns g over the number of elements that were reduced into one."""
        b, shape = self.b, dims_of(self.x)
        sizes = [shape[axis] for axis in self.axes]
        known = [size for size in sizes if isinstance(size, int)]
        if len(known) == len(sizes):
            return b.mul(self.g, 1.0 / max(math.prod(known), 1))
        sizes_at_run_time = b.concat([b.size(self.x, axis) for axis in self.axes], axis=0)
        count = b.reduce("ReduceProd", sizes_at_run_time, [0], keepdims=False)
        return b.div(self.g, b.cast(count, dtype_of(self.g)))


def reduction(gradient: Callable[[Reduction], ir.Value]) -> Rule:
    """Returns the rule of a reduction; what `gradient` gives is broadcast to x at the end."""

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        b = walk.builder
        x = inputs(node)[0]
        if x in walk.wanted:
            axes = reduced_axes(node, x)
            unbounded = walk.is_unbounded(given(dy))
            g = with_reduced_axes(b, node, given(dy), axes)
            yield x, b.expand(gradient(Reduction(walk, node, x, g, axes, unbounded)), x)

    return rule


def reduced_axes(node: ir.Node, x: ir.Value) -> list[int]:
    """Returns the axes a node reduces, sorted and not negative.

    They are an attribute or an input, depending on operator and opset.

    Raises:
        Refused: they are computed at run time.
    """
    axes = attribute(node, "axes", [])
    as_input = optional(node, 1)
    if as_input is not None:
        constant = constant_of(as_input)
        if constant is None:
            raise Refused("its axes are computed at run time; a gradient needs them as constants")
        axes = constant.reshape(-1).tolist()
    if len(axes) == 0:
        return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank_of(x)))
    return sorted({int(axis) % rank_of(x) for axis in axes})


def with_reduced_axes(b: Builder, node: ir.Node, value: ir.Value, axes: list[int]) -> ir.Value:
    """Returns what a reduction gives, or its gradient, with the reduced axes as 1."""
    return value if attribute(node, "keepdims", 1) else b.unsqueeze(value, axes)


def _extremum(r: Reduction) -> ir.Value:
    """ReduceMax and ReduceMin: ties share alike, as in TensorFlow.

    In 16 bits the extremum is found again, in 32: onnxruntime computes most 16-bit operators in
    32 and leaves out the rounding between two of them, so that no element need equal the
    rounded one.
    """
    b, x = r.b, widened(r.b, r.x)
    best = r.y() if x is r.x else b.reduce(r.node.op_type, x, r.axes, keepdims=True)
    chosen = b.cast(b.elementwise("Equal", x, best), dtype_of(r.g))
    share = b.div(r.g, r.sum(chosen))
    if may_not_be_finite(r.x):  # of NaN no element equals the extremum
        share = zero_where(b, r.g, share)
    return r.times(chosen, share)


def _product(r: Reduction) -> ir.Value:
    """ReduceProd: g times the product of all others, right where some are 0.

    With zeros filled in as 1, product / x is the product of the others, which counts where
    none of the others is 0.
    """
    b, dtype = r.b, dtype_of(r.x)
    zero = b.cast(b.elementwise("Equal", r.x, 0.0), dtype)
    filled = b.add(r.x, zero)
    others = b.reduce("ReduceProd", filled, r.axes, keepdims=True)
    zero_others = b.sub(r.sum(zero), zero)
    counts = b.cast(b.elementwise("Equal", zero_others, 0.0), dtype)
    return r.times(counts, b.div(b.mul(r.g, others), filled))


def _log_sum_exp(r: Reduction) -> ir.Value:
    """ReduceLogSumExp: g * softmax(x), as exp(x - y); 0 where nothing arrives.

    Of a row of -inf that is no number.
    """
    slope = r.b.elementwise("Exp", r.b.sub(r.x, r.y()))
    return zero_where(r.b, r.g, r.times(slope))


def _norm(r: Reduction) -> ir.Value:
    """ReduceL2: g * x / y, and 0 where all of x is 0, the middle of the norm's slopes there."""
    b, y = r.b, r.y()
    share = zero_where(b, y, b.div(r.g, y))
    if may_not_be_finite(r.x):
        share = zero_where(b, r.g, share)
    return r.times(r.x, share)


def _log_sum(r: Reduction) -> ir.Value:
    """ReduceLogSum: g / sum(x); 0 where nothing arrives."""
    found = zero_where(r.b, r.g, r.b.div(r.g, r.b.elementwise("Exp", r.y())))
    r.walk.mark_unbounded(found)
    return found


def cumulative_sum(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """CumSum: the running sum of g from the other end."""
    b = walk.builder
    x, axis = inputs(node)
    if x in walk.wanted:
        yield (
            x,
            b.op(
                "CumSum",
                given(dy),
                axis,
                shape=x,
                exclusive=attribute(node, "exclusive"),
                reverse=1 - int(attribute(node, "reverse", 0)),
            ),
        )


def _cumulative_product(b: Builder, node: ir.Node) -> list[ir.Value]:
    """CumProd, in as many products as the axis' length has binary digits: right at zeros too."""
    x, place = inputs(node)
    constant = constant_of(place)
    if constant is None:
        raise Refused("its axis is computed at run time; a gradient needs it as a constant")
    axis = int(constant.reshape(())) % rank_of(x)
    size = dims_of(x)[axis]
    if not isinstance(size, int):
        raise Refused("the size of its axis is known at run time only")
    reverse = bool(attribute(node, "reverse", 0))
    y = _moved(b, x, axis, 1, size, reverse) if attribute(node, "exclusive", 0) else x
    reach = 1
    while reach < size:
        y = b.mul(y, _moved(b, y, axis, reach, size, reverse))
        reach *= 2
    return [y]


def _moved(b: Builder, x: ir.Value, axis: int, by: int, size: int, reverse: bool) -> ir.Value:
    """Returns x moved along an axis, with ones where nothing has moved to."""
    by = min(by, size)
    if by == size:
        kept = None
    elif reverse:
        kept = b.slice(x, axis, by, size)
    else:
        kept = b.slice(x, axis, 0, size - by)
    row = [(1 if i != axis else by) for i in range(rank_of(x))]
    ones = b.const(np.ones(row), dtype_of(x))
    shape = list(dims_of(x))
    shape[axis] = by
    sizes = b.concat([b.ints(by) if i == axis else b.size(x, i) for i in range(rank_of(x))], axis=0)
    filled = b.op("Expand", ones, sizes, shape=shape)
    if kept is None:
        return filled
    return b.concat([kept, filled] if reverse else [filled, kept], axis)


def _top_k(v: Local) -> ir.Value:
    """TopK: g back to where the values came from."""
    b, axis = v.b, axis_of(v.node, v.x, -1)
    return b.op("ScatterElements", b.zeros_like(v.x), v.node.outputs[1], v.g, shape=v.x, axis=axis)


RULES: Mapping[str, Rule] = {
    "ReduceSum": reduction(lambda r: r.g),
    "ReduceMean": reduction(Reduction.over_count),
    "ReduceMax": reduction(_extremum),
    "ReduceMin": reduction(_extremum),
    "ReduceProd": reduction(_product),
    "ReduceL1": reduction(lambda r: r.times(r.b.elementwise("Sign", r.x))),
    "ReduceL2": reduction(_norm),
    "ReduceSumSquare": reduction(lambda r: r.times(r.x, r.b.mul(r.g, 2.0))),
    "ReduceLogSum": reduction(_log_sum),
    "ReduceLogSumExp": reduction(_log_sum_exp),
    "CumSum": cumulative_sum,
    "CumProd": decomposed(_cumulative_product),
    "TopK": unary(_top_k),
}
