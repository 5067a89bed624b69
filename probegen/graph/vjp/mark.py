"""The rules of our own marks (see `probegen.graph.core.marks`).

A `Mark` is an identity. `StraightThrough(y, x, scale)` is y, which is x rounded to whole steps of
that scale and cut off at the ends of a range: it passes the gradient on to x where x was not cut
off. Rounding moves a value by half a step at most, and cutting off by more. `Nudged(h, e)` passes
it on to both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import MARK, MARK_DOMAIN, NUDGED, STRAIGHT_THROUGH
from probegen.graph.core.values import attribute, constant_of, dtype_of, rank_of
from probegen.graph.vjp.common import Dys, Gradients, Local, given, inputs, unary

#: Half a step, and what the rounding of floats adds to it.
_HALF_STEP = 0.5 * (1 + 2**-10)


def _mark(v: Local) -> ir.Value:
    return v.g


def _nudged(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    yield from ((value, given(dy)) for value in inputs(node) if value in walk.wanted)


def _straight_through(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    y, x, scale = inputs(node)
    g, b = given(dy), walk.builder
    if y in walk.wanted:
        yield y, g
    if x in walk.wanted:
        dtype = dtype_of(x)
        apart = b.op("Abs", b.sub(x, b.cast(y, dtype)), shape=x)
        reach = _reach(b, node, b.cast(scale, dtype), x)
        kept = b.op("LessOrEqual", apart, reach, shape=x, dtype=ir.DataType.BOOL)
        yield x, b.where(kept, b.cast(g, dtype), 0.0)


def _reach(b: Builder, node: ir.Node, scale: ir.Value, x: ir.Value) -> ir.Value:
    """Returns how far rounding may move each element, in a shape that is broadcast to that of x."""
    if attribute(node, "block_size", 0):
        raise Refused("its steps differ from block to block of an axis")
    rank = rank_of(x)
    axis = attribute(node, "axis", 1) % max(rank, 1)
    known = constant_of(scale)
    if known is not None:
        half = np.asarray(known.astype(np.float32) * _HALF_STEP)
        shape = () if half.size == 1 else [-1 if i == axis else 1 for i in range(rank)]
        return b.const(half.reshape(shape), scale.dtype)
    if rank_of(scale):
        scale = b.reshape(scale, [-1 if i == axis else 1 for i in range(rank)])
    return b.mul(scale, _HALF_STEP)


RULES: Mapping[str, Rule] = {
    f"{MARK_DOMAIN}::{MARK}": unary(_mark),
    f"{MARK_DOMAIN}::{STRAIGHT_THROUGH}": _straight_through,
    f"{MARK_DOMAIN}::{NUDGED}": _nudged,
}
