"""The rules of our own marks (see `probegen.graph.core.marks`).

A `Mark` is an identity. `StraightThrough(y, x, scale, zero)` is y, which is x rounded to whole
steps of that scale and cut off at the ends of a range: it passes the gradient on to x where x was
not cut off. Where that is, x alone says: kernels of whole numbers may give a y one step away from x
rounded. `Nudged(h, e)` passes it on to both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import (
    HIGHEST,
    LOWEST,
    MARK,
    MARK_DOMAIN,
    NUDGED,
    STRAIGHT_THROUGH,
)
from probegen.graph.core.values import attribute, constant_of, dtype_of, rank_of
from probegen.graph.vjp.common import (
    Dys,
    Gradients,
    Local,
    given,
    inputs,
    optional,
    required,
    unary,
)

#: Half a step, and what the rounding of floats adds to it.
_HALF_STEP = 0.5 * (1 + 2**-10)


def _mark(v: Local) -> ir.Value:
    return v.g


def _nudged(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    yield from ((value, given(dy)) for value in inputs(node) if value in walk.wanted)


def _straight_through(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    y, x = inputs(node)[:2]
    g, b = given(dy), walk.builder
    if y in walk.wanted:
        yield y, g
    if x in walk.wanted:
        truth = ir.DataType.BOOL
        above = b.op(
            "GreaterOrEqual", x, _end(b, node, x, LOWEST, -_HALF_STEP), shape=x, dtype=truth
        )
        below = b.op("LessOrEqual", x, _end(b, node, x, HIGHEST, _HALF_STEP), shape=x, dtype=truth)
        kept = b.op("And", above, below, shape=x, dtype=truth)
        yield x, b.where(kept, b.cast(g, dtype_of(x)), 0.0)


def _end(b: Builder, node: ir.Node, x: ir.Value, which: str, beyond: float) -> ir.Value:
    """Returns where values are cut off at one end, in a shape that is broadcast to that of x."""
    if attribute(node, "block_size", 0):
        raise Refused("its steps differ from block to block of an axis")
    end, rank, dtype = float(attribute(node, which)) + beyond, rank_of(x), dtype_of(x)
    axis = attribute(node, "axis", 1) % max(rank, 1)
    along = [-1 if i == axis else 1 for i in range(rank)]
    scale, zero = required(node, 2), optional(node, 3)
    steps, first = constant_of(scale), None if zero is None else constant_of(zero)
    if steps is not None and (zero is None or first is not None):
        wide = steps.astype(np.float64)
        at = np.asarray(wide * (end - (0.0 if first is None else first.astype(np.float64))))
        return b.const(at.reshape(() if at.size == 1 else along), dtype)
    from_zero = b.scalar(end, x)
    if zero is not None:
        from_zero = b.sub(end, b.cast(zero, dtype))
    at_end = b.mul(b.cast(scale, dtype), from_zero)
    return b.reshape(at_end, along) if rank_of(scale) else at_end


RULES: Mapping[str, Rule] = {
    f"{MARK_DOMAIN}::{MARK}": unary(_mark),
    f"{MARK_DOMAIN}::{STRAIGHT_THROUGH}": _straight_through,
    f"{MARK_DOMAIN}::{NUDGED}": _nudged,
}
