"""What is added to hidden states, carried through the conversion.

In TensorFlow's graph it is added behind a mark, which no optimiser takes apart. In the graph that
comes out nothing is added: a fused operator gets it as a further input, which only the gradient
sees; in the body of a loop a mark of its own takes the place of the sum
(`probegen.graph.core.marks`).
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import tensorflow as tf

from probegen.errors import ExportError
from probegen.graph.core.marks import MARK, MARK_DOMAIN, NUDGED, give_nudge
from probegen.graph.core.queries import RECURRENT
from probegen.graph.core.replacing import replace_value

_NAME = "probegen_nudge"
#: What may stand between a mark and the sum, and between a sum and the operator.
_TURNED = frozenset({"Identity", "Transpose"})
_SHAPED = frozenset({"Identity", "Squeeze"})


def add_nudge(state: Any, nudge: Any) -> Any:
    """Adds a nudge to the hidden states of a fused operator, or to that of a step."""
    return state + tf.raw_ops.PreventGradient(input=nudge, message=_NAME, name=_NAME)


def settle_nudges(graph: ir.Graph) -> None:
    """Lets each nudge be what it is for the gradient alone.

    `Add(Squeeze(LSTM(x, ...)), probegen.Mark(e))` -> `Squeeze(LSTM(x, ..., e))`;
    `Add(h, probegen.Mark(e))` of a step -> `probegen.Nudged(h, e)`

    Raises:
        ExportError: the conversion made something else of a sum.
    """
    for node in list(graph.all_nodes()):
        if node.domain == MARK_DOMAIN and node.op_type == MARK and _NAME in (node.name or ""):
            _settle(graph, node)


def _settle(graph: ir.Graph, mark: ir.Node) -> None:
    nudge, reader = mark.outputs[0], _reader(mark)
    while reader is not None and reader.op_type in _TURNED:
        nudge, reader = reader.outputs[0], _reader(reader)
    if reader is None or reader.op_type != "Add" or reader.graph is None:
        raise ExportError(
            "the conversion lost where a gradient at a hidden state is taken; export to SavedModel "
            "(format='savedmodel')."
        )
    state = next(v for v in reader.inputs if v is not nudge)
    assert state is not None
    operator = _operator(state)
    if operator is None:
        made = ir.node(NUDGED, [state, nudge], domain=MARK_DOMAIN, name=mark.name)
        total = reader.outputs[0]
        state = made.outputs[0]
        state.type, state.shape, state.name = total.type, total.shape, f"{total.name}/nudged"
        reader.graph.insert_before(reader, made)
    else:
        give_nudge(operator, nudge)
    replace_value(reader.outputs[0], state)
    reader.graph.remove(reader, safe=True)
    if operator is not None:
        graph.sort()  # what makes the nudge may stand behind the operator


def _reader(node: ir.Node) -> ir.Node | None:
    """Returns the one node that reads what a node gives; None where there are others."""
    readers = {use.node for use in node.outputs[0].uses()}
    return next(iter(readers)) if len(readers) == 1 else None


def _operator(state: ir.Value) -> ir.Node | None:
    """Returns the recurrent operator that gives hidden states; None where these are of a step."""
    node = state.producer()
    while node is not None and node.op_type in _SHAPED and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type in RECURRENT else None
