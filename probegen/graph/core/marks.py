"""Marks in a forward graph: identities of our own domain that tell the reverse walk something.

`Mark` is a tensor that gradients are taken at, or a mask, which paths hold; `StopGradient` is one
that gradients do not pass. `StraightThrough(y, x, scale, zero)` is y, and passes gradients on to x:
y is x rounded to whole steps of that scale from that zero on, and cut off at the ends of a range,
which its attributes say. `Nudged(h, e)` is h, the state of a step, and passes gradients on to h and
to e, zeros that could be added to it. All are taken out before the graph is finished, and so are
the further inputs by which a fused recurrent operator has such zeros for all steps of a direction.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from probegen.graph.core.queries import RECURRENT
from probegen.graph.core.replacing import replace_value

MARK_DOMAIN = "probegen"
MARK = "Mark"
STOP_GRADIENT = "StopGradient"
STRAIGHT_THROUGH = "StraightThrough"
#: Attributes of it: the least and the largest whole number, where values are cut off.
LOWEST, HIGHEST = "lowest", "highest"
NUDGED = "Nudged"
#: In the names of marks that masks pass.
MASK_NAME = "probegen_mask"
#: Key in the metadata that nodes carry in memory: all gradients of the node's first output add up
#: to 0 along its last axis, by the way it is read.
CENTRED = "probegen.centred"
#: Key in the metadata of nodes that bound what a hard sigmoid bounds, which is no rectifier.
HARD_SIGMOID = "probegen.hard_sigmoid"
#: Key in the metadata of sums of float16 that have to be rounded as the model rounds them.
ROUNDED = "probegen.rounded"


#: Position of what could be added to the hidden states of a recurrent operator's first direction,
#: behind all inputs that ONNX knows; that of the second comes behind it.
_NUDGE = 8


def give_nudge(node: ir.Node, nudge: ir.Value, direction: int = 0) -> None:
    """Gives LSTM, GRU or RNN what could be added to the hidden states of one of its directions.

    Args:
        node: the operator.
        nudge: `[time, batch, hidden]`, wherever the operator has its batch.
        direction: which one.
    """
    place = _NUDGE + direction
    node.resize_inputs(max(len(node.inputs), place + 1))
    node.replace_input_with(place, nudge)


def nudge_of(node: ir.Node, direction: int = 0) -> ir.Value | None:
    """Returns what could be added to the hidden states of a direction, if anything."""
    place = _NUDGE + direction
    return node.inputs[place] if len(node.inputs) > place else None


def _take_nudges(node: ir.Node) -> None:
    known = [i for i, value in enumerate(node.inputs[:_NUDGE]) if value is not None]
    for place in range(_NUDGE, len(node.inputs)):
        node.replace_input_with(place, None)
    node.resize_inputs(known[-1] + 1)


def _take_sequences(scan: ir.Node, unread: Collection[ir.Value]) -> None:
    """Takes the last sequences from a Scan whose entries are among some that nothing reads."""
    body, count = scan.attributes["body"].as_graph(), scan.attributes["num_scan_inputs"].as_int()
    kept = count
    while kept and body.inputs[-1] in unread:
        body.inputs.pop()
        scan.replace_input_with(len(scan.inputs) - 1, None)
        scan.resize_inputs(len(scan.inputs) - 1)
        kept -= 1
    if kept == count:
        return
    scan.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", kept)
    for name in ("scan_input_axes", "scan_input_directions"):
        if name in scan.attributes:
            scan.attributes[name] = ir.AttrInt64s(name, scan.attributes[name].as_ints()[:kept])


def without_marks(value: ir.Value) -> ir.Value:
    """Returns what a value is once marks are removed: what the marks that made it mark."""
    node = value.producer()
    while node is not None and node.domain == MARK_DOMAIN and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def remove_marks(model: ir.Model) -> None:
    """Replaces every mark by what it marks, in all subgraphs too.

    `Relu(probegen.Mark(x))` -> `Relu(x)`
    """
    nodes, read = list(model.graph.all_nodes()), set[ir.Value]()
    for node in nodes:
        if node.domain == "" and node.op_type in RECURRENT and len(node.inputs) > _NUDGE:
            _take_nudges(node)
        if node.domain != MARK_DOMAIN:
            continue
        marked, result = node.inputs[0], node.outputs[0]
        if marked is None or node.graph is None:
            continue
        if node.op_type == NUDGED and node.inputs[1] is not None:
            read.add(node.inputs[1])
        replace_value(result, marked)
        node.graph.remove(node, safe=True)
    for node in nodes:
        if node.op_type == "Scan" and not node.domain:
            _take_sequences(node, {v for v in read if not v.uses()})
    model.graph.opset_imports.pop(MARK_DOMAIN, None)
