"""Rule of Pad: the gradient of what was added flows back to the elements it was taken from.

Along an axis of x with n elements, y has `low` more before and `high` more after. Sizes may
be open; widths below 0 cut x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, dims_of, rank_of
from probegen.graph.vjp.common import Dys, Gradients, given, inputs, optional, required_ints
from probegen.graph.vjp.spatial import END, fit, flipped, window

#: Axis -> widths before and after.
_Widths = Mapping[int, tuple[int, int]]


def pad(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Pad: x and y of any rank; the value to fill with, where it is computed, gets the rest."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    mode, fill = attribute(node, "mode", "constant"), optional(node, 2)
    if mode == "constant" and constant_of(node.inputs[1]) is None:
        dx = _cut_at_run_time(b, node, g, x)
    else:
        widths = _widths(node, rank_of(x))
        dx = _cut(b, g, widths, x) if mode == "constant" else _fold(b, g, mode, widths, x)
    if x in walk.wanted:
        yield x, dx
    if fill is not None and fill in walk.wanted:
        total, kept = (b.reduce_sum(v, range(rank_of(x)), keepdims=False) for v in (g, dx))
        yield fill, b.reshape_like(b.sub(total, kept), fill)


RULES: dict[str, Rule] = {"Pad": pad}


def _widths(node: ir.Node, rank: int) -> _Widths:
    """Returns the widths of the axes that a node pads."""
    flat = required_ints(optional(node, 1), "its widths")
    chosen = optional(node, 3)
    axes = range(rank) if chosen is None else required_ints(chosen, "its axes")
    pairs = zip(flat[: len(axes)], flat[len(axes) :], strict=True)
    return {axis % rank: pair for axis, pair in zip(axes, pairs, strict=True) if any(pair)}


def _cut(b: Builder, g: ir.Value, widths: _Widths, x: ir.Value) -> ir.Value:
    low = {axis: -before for axis, (before, _) in widths.items()}
    high = {axis: -after for axis, (_, after) in widths.items()}
    return fit(b, g, low, high, like=x)


def _cut_at_run_time(b: Builder, node: ir.Node, g: ir.Value, x: ir.Value) -> ir.Value:
    widths, axes = optional(node, 1), optional(node, 3)
    if widths is None:
        raise Refused("it has no widths")
    return b.op("Pad", g, b.neg(widths), None, axes, shape=x)


def _fold(b: Builder, g: ir.Value, mode: str, widths: _Widths, x: ir.Value) -> ir.Value:
    """Undoes the axes one by one, in an order that does not matter: each copies whole slices."""
    if mode not in _FOLDS:
        raise Refused(f"its mode {mode!r} is none of {', '.join(_FOLDS)}")
    for axis, (low, high) in widths.items():
        if min(low, high) < 0:
            raise Refused(f"it both cuts and fills in mode {mode!r}")
        size = dims_of(x)[axis]
        if mode == "wrap" and isinstance(size, int) and max(low, high) > size:
            raise Refused(
                f"it wraps an axis of {size} entries around more than once, by {max(low, high)}"
            )
        g = _FOLDS[mode](b, g, axis, low, high)
    return g


def _reflect(b: Builder, g: ir.Value, axis: int, low: int, high: int) -> ir.Value:
    """y[low - i] = x[i] and y[low + n - 1 + i] = x[n - 1 - i], i from 1."""
    if low:
        head, g = window(b, g, axis, 0, low), window(b, g, axis, low, END)
        g = _added(b, g, axis, 1, 1 + low, flipped(b, head, [axis]))
    if high:
        tail, g = window(b, g, axis, -high, END), window(b, g, axis, 0, -high)
        g = _added(b, g, axis, -1 - high, -1, flipped(b, tail, [axis]))
    return g


def _edge(b: Builder, g: ir.Value, axis: int, low: int, high: int) -> ir.Value:
    """y repeats the first and the last element of x."""
    if low:
        head, g = window(b, g, axis, 0, low), window(b, g, axis, low, END)
        g = _added(b, g, axis, 0, 1, b.reduce_sum(head, [axis], keepdims=True))
    if high:
        tail, g = window(b, g, axis, -high, END), window(b, g, axis, 0, -high)
        g = _added(b, g, axis, -1, END, b.reduce_sum(tail, [axis], keepdims=True))
    return g


def _wrap(b: Builder, g: ir.Value, axis: int, low: int, high: int) -> ir.Value:
    """y continues x with its other end."""
    head = window(b, g, axis, 0, low) if low else None
    tail = window(b, g, axis, -high, END) if high else None
    g = window(b, g, axis, low, -high if high else END)
    if tail is not None:
        g = _added(b, g, axis, 0, high, tail)
    if head is not None:
        g = _added(b, g, axis, -low, END, head)
    return g


_FOLDS: dict[str, Callable[[Builder, ir.Value, int, int, int], ir.Value]] = {
    "reflect": _reflect,
    "edge": _edge,
    "wrap": _wrap,
}


def _added(
    b: Builder, value: ir.Value, axis: int, start: int, stop: int, part: ir.Value
) -> ir.Value:
    """Returns `value` with `part` added to `value[start:stop]`, as Python counts.

    Written as a Concat of the three parts: an open axis has no constant width to pad `part`.
    """
    parts = [b.add(window(b, value, axis, start, stop), part)]
    if start != 0:
        parts.insert(0, window(b, value, axis, 0, start))
    if stop != END:
        parts.append(window(b, value, axis, stop, END))
    return b.concat(parts, axis)
