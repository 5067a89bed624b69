"""How long the sequences of an ONNX graph may be: see `probegen.plan.lengths`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import attribute, constant_of, known_sizes
from probegen.plan.lengths import Entry, Length, LengthFinder, holds_as_much

_SAME = frozenset({"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze"})
#: Operators that hand numbers that count up on, how often they stand there aside.
_REPEATING = _SAME | {"Expand", "Tile", "Transpose"}
#: Operators that slide a window along axes.
WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool"})
#: Operators behind which an open axis may have any length.
OTHER_SIZES = frozenset(
    {"Pad", "Tile", "Resize", "Upsample", "ConvTranspose", "SpaceToDepth", "DepthToSpace", "Split"}
    | {"GatherND", "GatherElements", "Compress", "NonZero", "Unique", "If", "Loop", "Scan"}
)
_MOST_ENTRIES = 16


def longest(graph: ir.Graph, inputs: Sequence[ir.Value]) -> Mapping[int, int]:
    """Returns the positions of inputs -> the most steps that they may have, where known.

    Args:
        graph: with shapes inferred.
        inputs: what is fed, in order.
    """
    finder = LengthFinder([(v, known_sizes(v) or ()) for v in inputs])
    for node in graph:
        if node.domain:
            finder.follow([*inputs_of(node)], node.outputs, keeps_sizes=True)
        elif node.op_type == "Shape":
            sizes = known_sizes(node.inputs[0])
            if sizes is not None:
                finder.shape(node.outputs[0], node.inputs[0], sizes)
                first, last = attribute(node, "start", 0), attribute(node, "end", None)
                finder.entries[node.outputs[0]] = finder.entries[node.outputs[0]][first:last]
        elif node.op_type != "Size":
            keeps = _keeps_sizes(finder, node)
            finder.follow([*inputs_of(node)], node.outputs, keeps_sizes=keeps)
            _follow(finder, node)
    return finder.found()


def _keeps_sizes(finder: LengthFinder, node: ir.Node) -> bool:
    """Tells whether open axes behind the one of the batch are as long as before."""
    if node.op_type in WINDOWS:
        return _windows_keep_sizes(node)
    if node.op_type == "Gather":
        return node.inputs[0] is None or not finder.depends(node.inputs[0])
    if node.op_type not in ("Concat", "Slice", "Reshape"):
        return node.op_type not in OTHER_SIZES
    before, after = known_sizes(node.inputs[0]), known_sizes(node.outputs[0])
    if before is None or after is None:
        return False
    if node.op_type == "Reshape":
        return holds_as_much(before, after)
    changed: Sequence[Entry] = [attribute(node, "axis", 0)]
    if node.op_type == "Slice":
        changed = _entries(finder, node.inputs[3] if len(node.inputs) > 3 else None)
    return all(isinstance(a, int) and after[a] is not None for a in changed)


def _windows_keep_sizes(node: ir.Node) -> bool:
    """Tells whether there are as many windows as there were places."""
    if any(s != 1 for s in attribute(node, "strides", None) or ()):
        return False
    if str(attribute(node, "auto_pad", "NOTSET")).startswith("SAME"):
        return True
    kernel = attribute(node, "kernel_shape", None) or (known_sizes(node.inputs[1]) or ())[2:]
    dilations = attribute(node, "dilations", None) or [1] * len(kernel)
    pads = attribute(node, "pads", None) or [0] * (2 * len(kernel))
    added = [a + b for a, b in zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)]
    return bool(kernel) and all(
        k is not None and d * (k - 1) == more
        for k, d, more in zip(kernel, dilations, added, strict=True)
    )


def _follow(finder: LengthFinder, node: ir.Node) -> None:
    if not node.inputs or node.inputs[0] is None:
        return
    result, first = node.outputs[0], node.inputs[0]
    known = first in finder.entries
    if node.op_type in _SAME and known:
        finder.entries[result] = finder.entries[first]
    elif node.op_type in _REPEATING and first in finder.counted:
        finder.counted[result] = finder.counted[first]
    elif node.op_type == "Concat" and any(v in finder.entries for v in node.inputs):
        finder.entries[result] = [e for v in node.inputs for e in _entries(finder, v)]
    elif node.op_type in ("Add", "Sub"):
        _added(finder, node)
    elif node.op_type == "Range":
        start, end, step = (_entries(finder, v) for v in node.inputs)
        if start == [0] and step == [1] and isinstance(end[0], Length):
            finder.counted[result] = end[0]
    elif node.op_type == "Where" and node.inputs[2] in finder.counted:
        finder.counted[result] = finder.counted[node.inputs[2]]  # negative ones from the end
    elif node.op_type == "Slice":
        _sliced(finder, node)
    elif node.op_type == "Gather":
        _gathered(finder, node)


def _entries(finder: LengthFinder, value: ir.Value | None) -> list[Entry]:
    """Returns the numbers that a value holds, as far as they are known."""
    if value in finder.entries:
        return finder.entries[value]
    array = constant_of(value)
    if array is not None and array.dtype.kind in "iu" and array.size <= _MOST_ENTRIES:
        return [int(v) for v in array.reshape(-1)]
    return [None]


def _added(finder: LengthFinder, node: ir.Node) -> None:
    """Follows sizes, or numbers that count up, plus or minus constants."""
    a, b = node.inputs
    result, subtracts = node.outputs[0], node.op_type == "Sub"
    if a in finder.entries or (b in finder.entries and not subtracts):
        more = _entries(finder, b)
        if subtracts:
            more = [-e if isinstance(e, int) else None for e in more]
        finder.add(result, _entries(finder, a), more)
    for counted, constant in ((a, b), (b, a))[: 1 if subtracts else 2]:
        number = _entries(finder, constant)
        if counted in finder.counted and len(number) == 1 and isinstance(number[0], int):
            shift = -number[0] if subtracts else number[0]
            finder.counted[result] = finder.counted[counted] + shift


def _sliced(finder: LengthFinder, node: ir.Node) -> None:
    """Follows a slice of sizes, or of a stored table."""
    data, *bounds = node.inputs
    starts, ends = (_entries(finder, v) for v in bounds[:2])
    sizes = known_sizes(data) or ()
    axes = _entries(finder, bounds[2]) if len(bounds) > 2 and bounds[2] else [*range(len(sizes))]
    steps = _entries(finder, bounds[3]) if len(bounds) > 3 and bounds[3] else [1] * len(axes)
    if data in finder.entries:
        first, last, step = starts[0], ends[0], steps[0]
        if isinstance(first, int) and isinstance(last, int) and isinstance(step, int):
            finder.entries[node.outputs[0]] = finder.entries[data][first:last:step]
    elif not finder.depends(data):
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=False):
            if isinstance(axis, int) and sizes and step == 1:
                finder.cut(sizes[axis], start, end)


def _gathered(finder: LengthFinder, node: ir.Node) -> None:
    """Follows an entry of sizes, or a look-up of numbers that count up."""
    data, index = node.inputs
    if data in finder.entries:
        chosen = _entries(finder, index)
        whole = finder.entries[data]
        fits = all(isinstance(i, int) and -len(whole) <= i < len(whole) for i in chosen)
        if fits:
            finder.entries[node.outputs[0]] = [whole[i] for i in chosen if isinstance(i, int)]
    elif data is not None and not finder.depends(data) and attribute(node, "axis", 0) == 0:
        sizes = known_sizes(data)
        if sizes and index is not None:
            finder.looked_up(sizes[0], index)
