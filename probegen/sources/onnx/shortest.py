"""How short the inputs of an ONNX graph may be: see `probegen.plan.shortest`.

Pooling is followed and asks for nothing: onnxruntime answers where a window reaches over the end,
and what the file answers is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import attribute, known_sizes, whole_numbers
from probegen.plan.shortest import ShortestFinder, cut, windows
from probegen.sources.onnx.lengths import OTHER_SIZES, WINDOWS

_SIZES = frozenset({"Shape", "Size"})
#: What a slice says where it goes to the end.
_ENDLESS = 2**31 - 1


def shortest(graph: ir.Graph, inputs: Sequence[ir.Value]) -> Mapping[int, tuple[int | None, ...]]:
    """Returns the positions of inputs -> the fewest entries of each axis, where known.

    Args:
        graph: with shapes inferred.
        inputs: what is fed, in order.
    """
    finder = ShortestFinder([(v, known_sizes(v) or ()) for v in inputs])
    for node in graph:
        first = node.inputs[0] if node.inputs else None
        if node.domain or node.op_type in _SIZES:
            continue
        if first is not None and finder.follows(first) and node.op_type in _CHANGES:
            _CHANGES[node.op_type](finder, node, first)
        elif node.op_type not in OTHER_SIZES | WINDOWS | _CHANGES.keys():
            for value in node.outputs:
                finder.follow(value, known_sizes(value) or (), [*inputs_of(node)])
    return finder.found()


def _rank(value: ir.Value) -> int:
    return len(known_sizes(value) or ())


def _windows(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    kernel = attribute(node, "kernel_shape", None) or (
        (known_sizes(node.inputs[1]) or ())[2:] if node.op_type == "Conv" else []
    )
    count = _rank(x) - 2
    if len(kernel) != count or None in kernel or attribute(node, "ceil_mode", 0):
        return
    strides = attribute(node, "strides", None) or [1] * count
    dilations = attribute(node, "dilations", None) or [1] * count
    pads = attribute(node, "pads", None) or [0] * (2 * count)
    added = [a + b for a, b in zip(pads[:count], pads[count:], strict=True)]
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if str(attribute(node, "auto_pad", "NOTSET")).startswith("SAME"):
        extents, added = [1] * count, [0] * count
    changes = windows(extents, strides, added, 2)
    needs = node.op_type == "Conv"
    finder.move(node.outputs[0], x, range(_rank(x)), changes, needs=needs)


def _transpose(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    finder.move(node.outputs[0], x, attribute(node, "perm", None) or range(_rank(x))[::-1])


def _unsqueeze(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    axes, rank = whole_numbers(node, "axes", 1), _rank(node.outputs[0])
    if axes is not None:
        rest, new = iter(range(_rank(x))), {a % rank for a in axes}
        finder.move(node.outputs[0], x, [None if i in new else next(rest) for i in range(rank)])


def _squeeze(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    axes, rank = whole_numbers(node, "axes", 1), _rank(x)
    if axes is not None:
        gone = {a % rank for a in axes}
        finder.move(node.outputs[0], x, [i for i in range(rank) if i not in gone])


def _pad(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    pads, rank = whole_numbers(node, "pads", 1), _rank(x)
    if pads is None or len(pads) != 2 * rank:
        return
    both = list(zip(pads[:rank], pads[rank:], strict=True))
    if attribute(node, "mode", "constant") == "reflect":
        for axis, (before, behind) in enumerate(both):
            finder.need(x, axis, max(before, behind) + 1)
    changes = {axis: cut(-a, -b, 1) for axis, (a, b) in enumerate(both)}
    finder.move(node.outputs[0], x, range(rank), changes, needs=False)


def _slice(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    rank = _rank(x)
    starts, ends = whole_numbers(node, "starts", 1), whole_numbers(node, "ends", 2)
    if starts is None or ends is None:
        return
    axes = whole_numbers(node, "axes", 3) or range(len(starts))
    steps = whole_numbers(node, "steps", 4) or [1] * len(starts)
    changes = {
        axis % rank: cut(start, 0 if end >= _ENDLESS else -end, step)
        if step > 0 and start >= 0 and (end < 0 or end >= _ENDLESS)
        else None
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    finder.move(node.outputs[0], x, range(rank), changes, needs=False)


def _concat(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    rank = _rank(x)
    finder.move(node.outputs[0], x, range(rank), {attribute(node, "axis", 0) % rank: None})


def _reshape(finder: ShortestFinder, node: ir.Node, x: ir.Value) -> None:
    result = node.outputs[0]
    finder.reshape(result, known_sizes(x) or (), x, known_sizes(result) or ())


_CHANGES = {
    **dict.fromkeys(WINDOWS, _windows),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _concat,
    "Reshape": _reshape,
}
