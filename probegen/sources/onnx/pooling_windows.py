"""Poolings whose windows reach behind the padding, as ones that have padding there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute, shape_of
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of
from probegen.sources.onnx.rewriting import builder_at, graph_of

_POOLINGS = ("MaxPool", "AveragePool", "LpPool")

#: From this opset on onnxruntime does not count what a window has behind the padding; before, it
#: does where the number of windows is rounded down.
_COUNTS_PADDING_ALONE = 19


def write_windows_as_padding(model: ir.Model, names: AllNames) -> bool:
    """Gives poolings the padding that their last windows reach into, in the place of `ceil_mode`.

    `MaxPool<ceil_mode=1, kernel_shape=[3], strides=[2]>(x of 6)` ->
    `MaxPool<kernel_shape=[3], strides=[2], pads=[0, 1]>(x of 6)`

    So are averages written over a window that is larger than all of the input and its padding: it
    reaches behind that too, and onnxruntime takes it for a window where the step is as large.

    A window that would begin behind the input and its padding in front is none: so say the ONNX
    specification, torch and onnxruntime. onnx's shape inference counts it, and with it all sizes
    behind are wrong; onnxruntime, which plans its memory by them, then fails. So shapes have to be
    inferred anew where one is found that onnx counts.

    Where a pooling pads by itself, onnxruntime does not round up: there `ceil_mode` is taken away,
    with which onnx counts windows that are none.

    Leaves: poolings of open sizes; those whose last window reaches as far behind the input as its
    kernel is wide, as windows with holes may: no runtime pads by that much; and averages that
    pad by themselves, count what they pad with and have steps wider than their windows, some of
    which onnxruntime runs with `ceil_mode` alone.

    Returns:
        Whether shapes have to be inferred anew.
    """
    for node in list(model.graph.all_nodes()):
        if key_of(node) in _POOLINGS:
            if attribute(node, "ceil_mode", 0) and _pads_by_itself(node) and not _steps_over(node):
                node.attributes.pop("ceil_mode")
                return True
            told = shape_of(node.outputs[0])
            counts = _written_out(node, model.graph.opset_imports.get("", 0), names)
            if counts is not None and (told is None or [*told[2:]] != counts):
                return True
    return False


def _pads_by_itself(node: ir.Node) -> bool:
    return attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _steps_over(node: ir.Node) -> bool:
    """Tells whether an average counts padding and steps over elements: this may be below 0."""
    kernel = attribute(node, "kernel_shape")
    strides = attribute(node, "strides") or [1] * len(kernel)
    return bool(attribute(node, "count_include_pad", 0)) and any(
        stride > size for stride, size in zip(strides, kernel, strict=True)
    )


def _written_out(node: ir.Node, opset: int, names: AllNames) -> list[int] | None:
    """Writes the windows of one pooling as padding; returns how many there are along each axis.

    None where it is left as it is.
    """
    x = node.inputs[0]
    shape = None if x is None else shape_of(x)
    sizes = [size for size in (shape or ())[2:] if isinstance(size, int)]
    kernel = attribute(node, "kernel_shape")
    if x is None or len(sizes) != len(kernel) or _pads_by_itself(node):
        return None
    rank = len(sizes)
    strides = attribute(node, "strides") or [1] * rank
    dilations = attribute(node, "dilations") or [1] * rank
    pads = attribute(node, "pads") or [0] * (2 * rank)
    counts_padding = key_of(node) == "AveragePool" and attribute(node, "count_include_pad", 0)
    is_rounded_up = bool(attribute(node, "ceil_mode", 0))
    may_be_larger = counts_padding and opset >= _COUNTS_PADDING_ALONE
    if not is_rounded_up and not may_be_larger:
        return None
    counts, after = [], []
    for i, size in enumerate(sizes):
        extent = dilations[i] * (kernel[i] - 1) + 1
        padded = pads[i] + size + pads[rank + i]
        steps = (padded - extent) / strides[i]
        count = (math.ceil(steps) if is_rounded_up or steps < 0 else math.floor(steps)) + 1
        if (count - 1) * strides[i] >= pads[i] + size:
            count -= 1
        reached = (count - 1) * strides[i] + extent
        counts.append(count)
        after.append(pads[rank + i] + max(reached - padded, 0))
    more = after != pads[rank:]
    if not is_rounded_up and (not more or min(counts) < 1):
        return None
    written = [
        new - old if counts_padding else new for new, old in zip(after, pads[rank:], strict=True)
    ]
    if any(width >= size for width, size in zip(written, kernel, strict=True)):
        return None
    if more and counts_padding:
        # What the file pads with counts; what the last windows reach into besides does not.
        _pad_before(node, x, pads, opset, names)
        after = written
        pads = [0] * (2 * rank)
        node.attributes.pop("count_include_pad")
    node.attributes.pop("ceil_mode", None)
    node.attributes.pop("auto_pad", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[:rank], *after])
    return counts


def _pad_before(
    node: ir.Node, x: ir.Value, pads: Sequence[int], opset: int, names: AllNames
) -> None:
    """Lets a node read its input with zeros around."""
    if not any(pads):
        return
    rank = len(pads) // 2
    builder = builder_at(node, opset, names)
    shape = shape_of(x) or ()
    sizes = [n + pads[i] + pads[rank + i] for i, n in enumerate(shape[2:]) if isinstance(n, int)]
    widths = builder.ints(0, 0, *pads[:rank], 0, 0, *pads[rank:])
    padded = builder.op("Pad", x, widths, shape=[*shape[:2], *sizes])
    for one in builder.nodes:
        one.meta[ORIGIN] = origin_of(node)
    graph_of(node).insert_before(node, builder.nodes)
    node.replace_input_with(0, padded)
