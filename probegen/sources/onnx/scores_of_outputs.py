"""The scores that an output is a softmax or sigmoid of."""

from __future__ import annotations

import onnx_ir as ir

from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of

#: Where an output notes the scores that were turned as it is.
SCORES = "probegen.scores"

_INTO_SCORES = frozenset({"Softmax", "Sigmoid"})
_PASSING = frozenset({"Identity", "Cast"})


def scores_of(output: ir.Value) -> ir.Value | None:
    """Returns what an output is the softmax or sigmoid of, in the output's shape.

    None where it is no such function.
    """
    turned: ir.Value | None = output.meta.get(SCORES)
    if turned is not None:
        return turned
    found, turns = _before(output)
    return None if turns else found


def is_turn_of_scores(node: ir.Node) -> bool:
    """Tells whether a node is none of the file's, but turns scores as an output is turned."""
    return SCORES in node.meta


def turn_scores(graph: ir.Graph, names: AllNames) -> None:
    """Turns the scores of outputs that are turned behind their softmax, as exporters write them.

    `y = Transpose(Softmax(x))` -> the same, and beside it `Transpose(x)`

    Leaves: what the outputs are computed by.
    """
    for output in graph.outputs:
        value, turns = _before(output)
        if value is None or not turns:
            continue
        for node in reversed(turns):
            name = names.nodes.unique(f"{node.name}/scores")
            turned = ir.node("Transpose", [value], dict(node.attributes), name=name)
            turned.meta[ORIGIN], turned.meta[SCORES] = origin_of(node), True
            like, made = node.outputs[0], turned.outputs[0]
            made.name = names.values.unique(f"{like.name}/scores")
            made.shape, made.type = like.shape, value.type
            graph.append(turned)
            value = made
        output.meta[SCORES] = value


def _before(output: ir.Value) -> tuple[ir.Value | None, list[ir.Node]]:
    """Returns the operand of the last softmax or sigmoid, and what turns its result, last first."""
    turns: list[ir.Node] = []
    node = output.producer()
    while node is not None and not node.domain and node.inputs[0] is not None:
        if SCORES in node.outputs[0].meta:  # a softmax in several nodes
            return node.outputs[0].meta[SCORES], turns
        if node.op_type in _INTO_SCORES:
            return node.inputs[0], turns
        if node.op_type == "Transpose":
            turns.append(node)
        elif node.op_type not in _PASSING:
            break
        node = node.inputs[0].producer()
    return None, []
