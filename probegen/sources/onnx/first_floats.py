"""Where the whole numbers or texts of an input become floating: look-ups, one-hot rows, casts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping

import onnx_ir as ir

from probegen.graph.core.queries import is_float
from probegen.graph.core.values import constant_of, shape_of
from probegen.plan.model_view import Start, Tie, counts_up
from probegen.plan.plan import TensorRef
from probegen.sources.onnx.comparisons import is_read_as_number

#: Operators that bring all values of their first input into another shape, or copy them.
_SHAPING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Pad"}
)
_SELECTING = frozenset({"Slice", "Split", "Gather", "GatherElements", "GatherND", "Concat"})
_ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Clip", "Neg", "Abs", "Sum"}
)
#: Operators that make numbers of others, or of texts, one by one.
_ENCODERS = frozenset({"Cast", "OneHot", "OneHotEncoder", "LabelEncoder"})
#: What these give does not hang on the numbers of their operand.
SIZES = frozenset({"Shape", "Size"})
_IDS = frozenset({ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.STRING})
#: Operators that give numbers near to each other the same one.
_BINNING = frozenset({"Div", "BitShift"})
_ORDERING = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_COMPARING = _ORDERING | {"Equal"}
#: Operators that bring a picture to another size.
_RESIZING = frozenset({"Resize", "Upsample"})
_LOOK_UPS = frozenset({"Gather", "GatherND", "GatherElements"})


def starts(
    graph: ir.Graph,
    inputs: list[ir.Value],
    refs: Mapping[ir.Value, TensorRef],
    labels: Mapping[ir.Value, str],
    has_samples: Callable[[ir.Value, list[ir.Value]], bool],
) -> list[Start]:
    """Returns the first floating tensors that are made from whole numbers of the inputs.

    Args:
        graph: with shapes inferred.
        inputs: what is fed, in order.
        refs: value -> how a plan calls it, for what nodes of the graph itself make.
        labels: value -> what an explanation of it is called.
        has_samples: tells whether samples lie along an axis of a value, in front or where they lie
            in some inputs.
    """
    ties: dict[ir.Value, dict[int, Tie]] = {
        value: {i: Tie.SAME} for i, value in enumerate(inputs) if not is_float(value)
    }
    found = []
    varying = set(inputs)
    resized: set[ir.Value] = set()
    cut = cut_to_whole(graph, inputs)
    for node in graph:
        if node.op_type not in SIZES and any(value in varying for value in node.inputs):
            varying.update(node.outputs)
        if node.op_type in _RESIZING or any(value in resized for value in node.inputs):
            resized.update(node.outputs)
        of_floats = [cut[value] for value in node.outputs if value in cut]
        before = dict.fromkeys(of_floats, Tie.WHOLE) or _before(node, ties, varying)
        if not before:
            continue
        for value in node.outputs:
            if not is_float(value):
                ties[value] = before
            elif value in refs:
                read = [inputs[i] for i in before]
                named = all("mask" in str(v.name).lower() for v in read)
                usable = has_samples(value, read)
                looks_up = _looks_up(node, varying)
                start = _start(
                    node, value, before, refs[value], labels[value], named, usable, looks_up
                )
                found.append(dataclasses.replace(start, resized=value in resized))
    return found


def cut_to_whole(graph: ir.Graph, inputs: list[ir.Value]) -> dict[ir.Value, int]:
    """Returns whole numbers that floating inputs are cast to as they are -> which of the inputs."""
    moved = {value: i for i, value in enumerate(inputs) if is_float(value)}
    found: dict[ir.Value, int] = {}
    for node in graph:
        first = node.inputs[0] if node.inputs else None
        if first not in moved:
            continue
        if node.op_type == "Cast" and not is_float(node.outputs[0]):
            if node.outputs[0].dtype in _IDS:
                found[node.outputs[0]] = moved[first]
        elif node.op_type in _SHAPING | {"Cast", "Split", "Slice"}:
            moved.update((value, moved[first]) for value in node.outputs)
    return found


def sorts_into_bins(graph: ir.Graph, given: ir.Value) -> bool:
    """Tells whether whole numbers of an input become others that are fewer: by a division."""
    return any(
        node.op_type in _BINNING and node.inputs[0] in moved
        for node, moved in _readers(graph, given)
    )


def compares(graph: ir.Graph, inputs: list[ir.Value], position: int) -> bool:
    """Tells whether whole numbers of an input are compared with stored ones.

    With the count of positions lengths are compared, which say where something is, as masks do.
    """
    varying = set(inputs)
    for node in graph:
        if node.op_type not in SIZES and any(value in varying for value in node.inputs):
            varying.update(node.outputs)
    for node, moved in _readers(graph, inputs[position]):
        if node.op_type not in _COMPARING:
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            counted = node.op_type in _ORDERING and other is not None and _counts_up(other)
            stored = value in moved and other not in varying and not counted
            if stored and is_read_as_number(node.outputs[0], varying):
                return True
    return False


def _counts_up(value: ir.Value) -> bool:
    """Tells whether a value counts positions: 0, 1, 2, ..."""
    array = constant_of(value)
    if array is not None:
        return counts_up(array)
    node = value.producer()
    while node is not None and node.op_type in (*_SHAPING, "Cast") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Range"


def _readers(graph: ir.Graph, given: ir.Value) -> Iterator[tuple[ir.Node, set[ir.Value]]]:
    """Yields nodes that read whole numbers of an input, moved or computed with, and these."""
    moved = {given}
    for node in graph:
        if not any(value in moved for value in node.inputs):
            continue
        yield node, moved
        casts = node.op_type == "Cast" and not is_float(node.outputs[0])
        if casts or node.op_type in _SHAPING | _SELECTING | _ARITHMETIC:
            first = node.inputs[:1] if node.op_type in _SHAPING | _LOOK_UPS else node.inputs
            if any(value in moved for value in first):
                moved.update(node.outputs)


def _looks_up(node: ir.Node, varying: Container[ir.Value | None]) -> bool:
    """Tells whether a node looks up rows of a table of weights.

    What picks from a tensor that hangs on inputs (the ends of a graph's edges from its nodes,
    masked positions from hidden states) says where to look, and has no vector of its own.
    """
    return node.op_type in _LOOK_UPS and node.inputs[0] not in varying


def _picks(node: ir.Node, varying: Container[ir.Value | None]) -> bool:
    """Tells whether the numbers of a node's second input pick from what hangs on inputs."""
    table = node.inputs[0] if node.op_type in _LOOK_UPS else None
    return table is not None and is_float(table) and table in varying


def _before(
    node: ir.Node,
    ties: Mapping[ir.Value, Mapping[int, Tie]],
    varying: Container[ir.Value | None],
) -> dict[int, Tie]:
    """Returns how the result of a node hangs on inputs of whole numbers."""
    if node.op_type in SIZES:
        return {}
    loosest = Tie.INDIRECT
    looks_up = node.op_type in _LOOK_UPS and len(node.inputs) > 1 and node.inputs[1] in ties
    if _picks(node, varying):
        loosest = Tie.INDIRECT
    elif node.op_type in _SHAPING or _keeps_whole(node) or looks_up:
        loosest = Tie.WHOLE
    elif node.op_type in _SELECTING:
        loosest = Tie.PART
    elif node.op_type in _ARITHMETIC or node.op_type in _ENCODERS:
        loosest = Tie.COMPUTED
    found: dict[int, Tie] = {}
    for value in node.inputs:
        for position, tie in ties.get(value, {}).items() if value is not None else ():
            found[position] = max(found.get(position, Tie.INDIRECT), min(tie, loosest))
    return found


def _keeps_whole(node: ir.Node) -> bool:
    if node.op_type == "Cast" and is_float(node.outputs[0]):
        return True
    first = node.inputs[0]
    of_words = first is not None and first.dtype is ir.DataType.STRING
    words = node.op_type == "LabelEncoder" and of_words
    return (words or node.op_type == "Cast") and node.outputs[0].dtype in _IDS


def _start(
    node: ir.Node,
    value: ir.Value,
    ties: Mapping[int, Tie],
    ref: TensorRef,
    label: str,
    named_mask: bool,
    usable: bool,
    looks_up: bool,
) -> Start:
    table = node.inputs[0] if looks_up else None
    is_lookup = (table is not None and is_float(table)) or _is_one_hot(node)
    shape = None if table is None else shape_of(table)
    rows = shape[0] if is_lookup and node.op_type == "Gather" and shape else None
    return Start(
        ref=ref,
        label=label,
        ties=dict(ties),
        is_lookup=is_lookup,
        rows=rows if isinstance(rows, int) and constant_of(table) is not None else None,
        masks=not is_lookup and (named_mask or _becomes_penalty(value)),
        usable=usable,
        moved=False,
    )


def _is_one_hot(node: ir.Node) -> bool:
    """Tells whether a node gives each id a vector of zeros and a one, cast or not."""
    made = node.inputs[0].producer() if node.op_type == "Cast" and node.inputs[0] else node
    return made is not None and made.op_type == "OneHot"


def _becomes_penalty(value: ir.Value) -> bool:
    """Tells whether numbers become a large negative one, as `(1 - mask) * -1e9` does."""
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if node.op_type not in ("Cast", "Sub", "Mul", "Identity", "Unsqueeze", "Expand"):
                continue
            factors = [constant_of(v) for v in node.inputs] if node.op_type == "Mul" else []
            if any(f is not None and f.size and f.min() <= -1e4 for f in factors):
                return True
            pending.extend(v for v in node.outputs if v not in seen)
            seen.update(node.outputs)
    return False
