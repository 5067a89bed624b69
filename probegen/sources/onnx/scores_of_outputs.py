"""The scores that an output is a softmax or sigmoid of."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.values import attribute, shape_of
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of

#: Where an output notes the scores that were turned as it is.
SCORES = "probegen.scores"

_INTO_SCORES = frozenset({"Softmax", "Sigmoid"})
_PASSING = frozenset({"Identity", "Cast"})
#: Operators that bring every value into another shape or order.
_RESHAPING = frozenset({"Reshape", "Flatten"})
_TURNING = _RESHAPING | {"Transpose", "Squeeze", "Unsqueeze"}


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
    """Tells whether a node was added, to transpose scores as an output is transposed."""
    return SCORES in node.meta


def turn_scores(graph: ir.Graph, names: AllNames) -> None:
    """Turns the scores of outputs that are turned behind a softmax, as exporters write them.

    `y = Transpose(Softmax(x))` -> the same, and beside it `Transpose(x)`; likewise reshapes,
    such as `Squeeze(Sigmoid(x))` of a model that gives one probability a sample.

    Leaves: what the outputs are computed by.
    """
    for output in graph.outputs:
        value, turns = _before(output)
        if value is None or not turns:
            continue
        for node in reversed(turns):
            name = names.nodes.unique(f"{node.name}/scores")
            operands = [value, *node.inputs[1:]]
            turned = ir.node(node.op_type, operands, dict(node.attributes), name=name)
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
            return (node.inputs[0], turns) if _keeps_classes(node, turns) else (None, [])
        if node.op_type in _TURNING:
            turns.append(node)
        elif node.op_type not in _PASSING:
            break
        node = node.inputs[0].producer()
    return None, []


def _keeps_classes(node: ir.Node, turns: list[ir.Node]) -> bool:
    """Tells whether the classes of a softmax still have an axis of their own behind reshapes.

    Where several rows of classes became one, the largest score is not the most probable class.
    """
    shapes = [shape_of(v) for v in (node.outputs[0], *(n.outputs[0] for n in turns))]
    if node.op_type == "Sigmoid" or all(n.op_type not in _RESHAPING for n in turns):
        return True
    own = shapes[0]
    last = own is not None and attribute(node, "axis", -1) in (-1, len(own) - 1)
    return last and all(s and isinstance(s[-1], int) and s[-1] == (own or ())[-1] for s in shapes)
