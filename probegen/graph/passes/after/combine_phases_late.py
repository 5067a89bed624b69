"""Computes on the phases of an image, and puts them together as late as that pays.

The gradient of a convolution with stride s is made in s*s phases: phase (p, q) holds the elements
(s*i + p, s*j + q). Where the kernel is smaller than the stride, as in the 1x1 convolutions that
open the stages of a ResNet, all phases but one are zero. What follows works element by element
(masks) or on single elements (1x1 convolutions), and so on each phase alone: on a quarter of the
elements where three phases are zero, and with fewer channels to put together behind a convolution
that has fewer. A wider convolution, of one phase and zeros, makes each phase of its result with
the part of its kernel that meets the elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import attribute, dtype_of, shape_of, static_shape
from probegen.graph.vjp.spatial import (
    Offsets,
    Phases,
    all_offsets,
    fit,
    known,
    phases_of,
    put_together,
    sizes_of,
)


def combine_phases_late(model: ir.Model) -> None:
    """Exchanges putting phases together with the products and convolutions behind it.

    `Conv(Mul(together(p), mask), w)` -> `together(Conv(Mul(p, phase of mask), w))`

    Needs: topological order; shapes; what the rules of convolutions noted on the values that they
    put together. Works on 32-bit floats.
    Leaves: nodes that nothing needs any more.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports[""], prefix="phases")
    exchanged: dict[ir.Node, Phases] = {}
    phases: dict[ir.Value, Phases] = {}
    for node in list(graph):
        for value in node.outputs:
            noted = phases_of(value)
            if noted is not None and value.dtype == ir.DataType.FLOAT:
                phases[value] = noted
        result = _on_phases(b, node, phases)
        if result is not None:
            exchanged[node] = phases[node.outputs[0]] = result
            b.insert_before(node)
    for node, result in exchanged.items():
        _put_together_for_others(b, node, result, exchanged)
    for node in reversed(exchanged):
        graph.remove(node, safe=True)


def _on_phases(
    b: Builder,
    node: ir.Node,
    phases: Mapping[ir.Value, Phases],
) -> Phases | None:
    """Writes what a node does on the phases it reads; None where it reads none or better not."""
    if node.domain or not any(v in phases for v in node.inputs if v is not None):
        return None
    if node.op_type == "Mul":
        return _product(b, node, phases)
    if node.op_type == "Add":
        return _sum(b, node, phases)
    operand = phases.get(node.inputs[0]) if node.inputs[0] is not None else None
    if node.op_type != "Conv" or operand is None or not _is_plain(node):
        return None
    if _on_single_elements(node):
        return _over_each(b, node, operand) if not operand.full or _fewer_channels(node) else None
    return _phases_of_wider(b, node, operand) if len(operand.parts) == 1 else None


def _product(
    b: Builder,
    node: ir.Node,
    phases: Mapping[ir.Value, Phases],
) -> Phases | None:
    """Multiplies each phase with the same phase of the other operand."""
    first, second = node.inputs
    for value, other in ((first, second), (second, first)):
        operand = None if value is None else phases.get(value)
        if operand is None or other is None or value is None or other is value:
            continue
        if shape_of(value) != shape_of(other) or (operand.full and not _leads_to_fewer(node)):
            continue
        parts = {}
        for offsets, part in operand.parts.items():
            picked = _picked(b, other, operand.strides, offsets, part)
            parts[offsets] = b.op("Mul", part, picked, shape=part)
        return dataclasses.replace(operand, parts=parts)
    return None


def _sum(b: Builder, node: ir.Node, phases: Mapping[ir.Value, Phases]) -> Phases | None:
    """Adds phases of one kind, where at least one is zero for both."""
    first, second = (None if v is None else phases.get(v) for v in node.inputs)
    if first is None or second is None or first.full or second.full:
        return None
    if (first.strides, first.sizes) != (second.strides, second.sizes):
        return None
    parts = dict(first.parts)
    for offsets, part in second.parts.items():
        mine = parts.get(offsets)
        parts[offsets] = part if mine is None else b.op("Add", mine, part, shape=part)
    return dataclasses.replace(first, parts=parts)


# -- convolutions --------------------------------------------------------------------------


def _is_plain(conv: ir.Node) -> bool:
    """Tells whether a convolution has one group, steps of one element, and adds no bias."""
    kernel = None if conv.inputs[1] is None else static_shape(conv.inputs[1])
    ones = [1] * len(kernel[2:]) if kernel is not None else []
    return (
        kernel is not None
        and len([v for v in conv.inputs if v is not None]) == 2
        and attribute(conv, "group", 1) == 1
        and (attribute(conv, "strides") or ones) == ones
        and (attribute(conv, "dilations") or ones) == ones
        and attribute(conv, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )


def _kernel(conv: ir.Node) -> tuple[int, ...]:
    """Returns the sizes of a kernel: channels out, channels in, and each axis."""
    return (static_shape(conv.inputs[1]) or ()) if conv.inputs[1] is not None else ()


def _on_single_elements(conv: ir.Node) -> bool:
    return all(k == 1 for k in _kernel(conv)[2:]) and not any(attribute(conv, "pads") or ())


def _fewer_channels(conv: ir.Node) -> bool:
    """Tells whether half the channels or fewer come out."""
    out, channels, *_ = _kernel(conv)
    return 2 * out <= channels


def _leads_to_fewer(node: ir.Node) -> bool:
    """Tells whether products alone lead to a convolution of single elements to fewer channels."""
    value = node.outputs[0]
    while (reader := sole_reader(value)) is not None and not reader.domain:
        if reader.op_type == "Conv":
            plain = reader.inputs[0] is value and _is_plain(reader)
            return plain and _on_single_elements(reader) and _fewer_channels(reader)
        if reader.op_type != "Mul":
            return False
        value = reader.outputs[0]
    return False


def _over_each(b: Builder, conv: ir.Node, operand: Phases) -> Phases:
    """Convolves each phase with single elements."""
    parts = {}
    for offsets, part in operand.parts.items():
        batch, _, *low = shape_of(part) or ()
        shape = [batch, _kernel(conv)[0], *low]
        parts[offsets] = b.op("Conv", part, conv.inputs[1], shape=shape)
    return dataclasses.replace(operand, parts=parts)


def _phases_of_wider(b: Builder, conv: ir.Node, operand: Phases) -> Phases | None:
    """Makes all phases of a convolution of one phase and zeros.

    Output j = s*q + r reads input j + t - p at kernel position t, and finds an element there
    where that is s*i + o: at every s-th position from (p + o - r) mod s on.
    """
    ((offsets, part),) = operand.parts.items()
    out, channels, *kernel = _kernel(conv)
    high = sizes_of(conv.outputs[0])
    places = zip(offsets, operand.sizes, operand.strides, strict=True)
    held = [len(range(offset, size, stride)) for offset, size, stride in places]
    if conv.inputs[1] is None or None in high or 0 in held:
        return None
    pads = attribute(conv, "pads") or [0] * (2 * len(kernel))
    spatial = range(2, 2 + len(kernel))
    part = _within(b, part, held)
    count = sizes_of(part)
    low = [-(-known(n) // s) for n, s in zip(high, operand.strides, strict=True)]
    parts = {}
    for target in all_offsets(operand.strides):
        lags = [p + o - r for p, o, r in zip(pads, offsets, target, strict=False)]
        first = [lag % s for lag, s in zip(lags, operand.strides, strict=True)]
        taken = [
            len(range(t, k, s)) for t, k, s in zip(first, kernel, operand.strides, strict=True)
        ]
        if not all(taken):
            continue
        bounds = (b.ints(*first), b.ints(*kernel), b.ints(*spatial), b.ints(*operand.strides))
        own = b.op("Slice", conv.inputs[1], *bounds, shape=[out, channels, *taken])
        before = [lag // s for lag, s in zip(lags, operand.strides, strict=True)]
        after = [
            n - known(m) - w + k - 1 for n, m, w, k in zip(low, count, before, taken, strict=True)
        ]
        cut = fit(
            b,
            part,
            {i: min(width, 0) for i, width in zip(spatial, before, strict=True)},
            {i: min(width, 0) for i, width in zip(spatial, after, strict=True)},
        )
        pad = [max(width, 0) for width in (*before, *after)]
        shape = [*(shape_of(part) or ())[:1], out, *low]
        parts[target] = b.op("Conv", cut, own, shape=shape, pads=pad)
    return Phases(parts, operand.strides, tuple(map(known, high))) if parts else None


def _within(b: Builder, part: ir.Value, held: Sequence[int]) -> ir.Value:
    """Cuts off what a phase has behind the `held` positions of each axis that the image has.

    There it is not zero where a strided convolution reads padding behind the image. Putting phases
    together cuts it off as well.
    """
    more = {2 + i: n - known(m) for i, (n, m) in enumerate(zip(held, sizes_of(part), strict=True))}
    return fit(b, part, {}, {i: width for i, width in more.items() if width < 0})


# -- taking apart and putting together -----------------------------------------------------


def _picked(
    b: Builder,
    value: ir.Value,
    strides: Sequence[int],
    offsets: Offsets,
    like: ir.Value,
) -> ir.Value:
    """Returns one phase of a value, in a form that stays in the layout of convolutions.

    `like` has its shape. Of a mask, the value it was made of is picked. What is picked twice is
    found to be the same by the pass for common subexpressions.
    """
    mask = value.producer()
    if mask is not None and mask.op_type == "HardSigmoid" and mask.inputs[0] is not None:
        inner = _picked(b, mask.inputs[0], strides, offsets, like)
        slopes = {name: attribute(mask, name, default) for name, default in _STEP.items()}
        return b.op("HardSigmoid", inner, shape=like, **slopes)
    if not any(offsets):
        ones = [1] * len(strides)
        return b.op("MaxPool", value, shape=like, kernel_shape=ones, strides=list(strides))
    return _picked_by_convolution(b, value, strides, offsets, like)


#: Attributes of HardSigmoid and their defaults.
_STEP: Mapping[str, float] = {"alpha": 0.2, "beta": 0.5}


def _picked_by_convolution(
    b: Builder, value: ir.Value, strides: Sequence[int], offsets: Offsets, like: ir.Value
) -> ir.Value:
    """Convolves every channel with a 1 that lies where the phase begins."""
    channels = (shape_of(value) or ())[1]
    group = known(channels if isinstance(channels, int) else None)
    one = np.zeros([1, 1, *(o + 1 for o in offsets)])
    one[(0, 0, *offsets)] = 1
    shape = [group, *one.shape[1:]]
    sizes = b.ints(group, *[1] * (one.ndim - 1))
    kernel = b.op("Expand", b.const(one, dtype_of(value)), sizes, shape=shape)
    short = [
        max((known(n) - 1) * s + o + 1 - known(size), 0)
        for n, s, o, size in zip(sizes_of(like), strides, offsets, sizes_of(value), strict=True)
    ]
    pads = [*[0] * len(short), *short]
    return b.op("Conv", value, kernel, shape=like, group=group, strides=list(strides), pads=pads)


def _put_together_for_others(
    b: Builder, node: ir.Node, result: Phases, exchanged: Iterable[ir.Node]
) -> None:
    """Puts phases together in front of what did not take them, or of nothing."""
    value = node.outputs[0]
    others = [use for use in value.uses() if use.node not in exchanged]
    if not others and not value.is_graph_output():
        return
    whole = put_together(b, result)
    b.insert_before(node)
    value.replace_all_uses_with(whole, replace_graph_outputs=True)
