"""Marks in a forward graph: identities of our own domain that say something to the walk.

`Mark` is a tensor that gradients are taken at, or a mask, which paths hold; `StopGradient` is one
that gradients do not pass. `StraightThrough(y, x, scale, zero)` is y, and passes gradients on to x:
y is x rounded to whole steps of that scale from that zero on, and cut off at the ends of a range,
which its attributes say. `Nudged(h, e)` is h, the state of a step, and passes gradients on to h and
to e, zeros that could be added to it. All are taken out before the graph is finished, and so is the
further input by which a fused recurrent operator has such zeros for all its steps.
"""

from __future__ import annotations

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


#: Position of what could be added to the hidden states of a recurrent operator, behind all inputs
#: that ONNX knows.
_NUDGE = 8


def give_nudge(node: ir.Node, nudge: ir.Value) -> None:
    """Gives LSTM, GRU or RNN what could be added to its hidden states, `[time, batch, hidden]`."""
    node.resize_inputs(_NUDGE + 1)
    node.replace_input_with(_NUDGE, nudge)


def nudge_of(node: ir.Node) -> ir.Value | None:
    """Returns what could be added to the hidden states of a recurrent operator, if anything."""
    return node.inputs[_NUDGE] if len(node.inputs) > _NUDGE else None


def _take_nudge(node: ir.Node) -> None:
    known = [i for i, value in enumerate(node.inputs[:_NUDGE]) if value is not None]
    node.replace_input_with(_NUDGE, None)
    node.resize_inputs(known[-1] + 1)


def remove_marks(model: ir.Model) -> None:
    """Replaces every mark by what it marks, in all subgraphs too.

    `Relu(probegen.Mark(x))` -> `Relu(x)`
    """
    for node in list(model.graph.all_nodes()):
        if node.domain == "" and nudge_of(node) is not None and node.op_type in RECURRENT:
            _take_nudge(node)
        if node.domain != MARK_DOMAIN:
            continue
        marked, result = node.inputs[0], node.outputs[0]
        if marked is None or node.graph is None:
            continue
        replace_value(result, marked)
        node.graph.remove(node, safe=True)
    model.graph.opset_imports.pop(MARK_DOMAIN, None)
