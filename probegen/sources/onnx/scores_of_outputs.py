"""The scores that an output is a softmax or sigmoid of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.core.marks import STRAIGHT_THROUGH
from probegen.graph.core.values import constant_of, shape_of
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of
from probegen.sources.onnx.softmaxes import scores_before, softmax_axes

#: Where an output notes the scores that were turned as it is.
SCORES = "probegen.scores"

_PASSING = frozenset({"Identity", "Cast"})
#: Operators that bring every value into another shape or order.
_RESHAPING = frozenset({"Reshape", "Flatten"})
_TURNING = _RESHAPING | {"Transpose", "Squeeze", "Unsqueeze"}


@dataclasses.dataclass(frozen=True)
class _Shares:
    """A softmax or sigmoid, and what is made of it.

    Attributes:
        scores: what it is of.
        node: the node that gives it; None of a sigmoid or of what notes its scores.
        turns: what turns its result, last first.
        opposed: whether one less the sigmoid is turned, that of the score with its sign turned.
    """

    scores: ir.Value
    node: ir.Node | None
    turns: tuple[ir.Node, ...]
    opposed: bool = False


@dataclasses.dataclass(frozen=True)
class _Joined:
    """Sigmoids side by side, as `1 - p` and `p` of two classes."""

    node: ir.Node
    parts: tuple[_Shares, ...]
    turns: tuple[ir.Node, ...]


def scores_of(output: ir.Value) -> ir.Value | None:
    """Returns what an output is the softmax or sigmoid of, in the output's shape.

    None where it is no such function.
    """
    noted: ir.Value | None = output.meta.get(SCORES)
    if noted is not None:
        return noted
    found = _before(output)
    return found.scores if isinstance(found, _Shares) and not _is_written(found) else None


def is_turn_of_scores(node: ir.Node) -> bool:
    """Tells whether a node was added, to bring scores into the shape and order of an output."""
    return SCORES in node.meta


def turn_scores(graph: ir.Graph, names: AllNames) -> None:
    """Turns the scores of outputs that are turned behind a softmax, as exporters write them.

    `y = Transpose(Softmax(x))` -> the same, and beside it `Transpose(x)`; likewise reshapes,
    such as `Squeeze(Sigmoid(x))` of a model that gives one probability a sample, and sigmoids side
    by side: `Concat(1 - Sigmoid(x), Sigmoid(x))` -> the same, and beside it `Concat(-x, x)`.

    Leaves: what the outputs are computed by.
    """
    for output in graph.outputs:
        found = _before(output)
        if isinstance(found, _Shares) and _is_written(found):
            output.meta[SCORES] = _of_shares(graph, names, found)
        elif isinstance(found, _Joined):
            parts = [_of_shares(graph, names, part) for part in found.parts]
            joined = _again(graph, names, found.node, parts)
            output.meta[SCORES] = _turned(graph, names, found.turns, joined)


def _is_written(shares: _Shares) -> bool:
    """Tells whether the scores themselves have not the shape and the sign of the output's."""
    return bool(shares.turns) or shares.opposed


def _of_shares(graph: ir.Graph, names: AllNames, shares: _Shares) -> ir.Value:
    value = shares.scores
    if shares.opposed:
        node = ir.node("Neg", [value], name=names.nodes.unique("scores/opposed"))
        node.meta[SCORES] = True
        made = node.outputs[0]
        made.name = names.values.unique("scores/opposed")
        made.shape, made.type = value.shape, value.type
        graph.append(node)
        value = made
    return _turned(graph, names, shares.turns, value)


def _turned(
    graph: ir.Graph, names: AllNames, turns: tuple[ir.Node, ...], value: ir.Value
) -> ir.Value:
    for node in reversed(turns):
        value = _again(graph, names, node, [value, *node.inputs[1:]])
    return value


def _again(
    graph: ir.Graph, names: AllNames, node: ir.Node, operands: Sequence[ir.Value | None]
) -> ir.Value:
    """Writes a node once more, with other operands."""
    name = names.nodes.unique(f"{node.name}/scores")
    turned = ir.node(node.op_type, operands, dict(node.attributes), name=name)
    turned.meta[ORIGIN], turned.meta[SCORES] = origin_of(node), True
    like, made = node.outputs[0], turned.outputs[0]
    first = operands[0]
    made.name = names.values.unique(f"{like.name}/scores")
    made.shape, made.type = like.shape, None if first is None else first.type
    graph.append(turned)
    return made


def _before(output: ir.Value) -> _Shares | _Joined | None:
    """Returns the last softmax or sigmoid before an output, and what turns its result."""
    turns: list[ir.Node] = []
    value: ir.Value | None = output
    while value is not None:
        shares = _shares(value, turns)
        if shares is not None:
            own = shares.node
            return shares if own is None or _keeps_classes(own, turns) else None
        node = value.producer()
        if node is not None and node.op_type == STRAIGHT_THROUGH:
            value = node.inputs[1]  # what is rounded to the steps of a quantised output
            continue
        if node is None or node.domain:
            return None
        if node.op_type == "Concat":
            parts = [_sigmoid(v) for v in node.inputs]
            known = tuple(part for part in parts if part is not None)
            return _Joined(node, known, tuple(turns)) if len(known) == len(parts) else None
        if node.op_type in _TURNING:
            turns.append(node)
        elif node.op_type not in _PASSING:
            return None
        value = node.inputs[0]
    return None


def _shares(value: ir.Value, turns: list[ir.Node]) -> _Shares | None:
    """Returns a value as a softmax or sigmoid, where it is one."""
    noted: ir.Value | None = value.meta.get(SCORES)  # a softmax in several nodes
    if noted is not None:
        return _Shares(noted, None, tuple(turns))
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Sigmoid" and node.inputs[0] is not None:
        return _Shares(node.inputs[0], None, tuple(turns))
    scores = scores_before(node)
    return None if scores is None else _Shares(scores, node, tuple(turns))


def _sigmoid(value: ir.Value | None) -> _Shares | None:
    """Returns a value as a sigmoid, or one less it, that is turned perhaps; None for others."""
    turns: list[ir.Node] = []
    opposed = False
    while value is not None:
        node = value.producer()
        if node is None or node.domain or SCORES in value.meta:
            return None
        if node.op_type == "Sigmoid" and node.inputs[0] is not None:
            return _Shares(node.inputs[0], None, tuple(turns), opposed)
        if node.op_type in _TURNING:
            turns.append(node)
        elif _is_one_less(node):
            opposed = not opposed
            value = node.inputs[1]
            continue
        elif node.op_type not in _PASSING:
            return None
        value = node.inputs[0]
    return None


def _is_one_less(node: ir.Node) -> bool:
    """Tells whether a node subtracts something from one, in the shape of that."""
    one = constant_of(node.inputs[0]) if node.op_type == "Sub" else None
    return one is not None and one.size == 1 and float(one.reshape(-1)[0]) == 1.0


def _keeps_classes(node: ir.Node, turns: list[ir.Node]) -> bool:
    """Tells whether the classes of a softmax still have an axis of their own behind reshapes.

    Where several rows of classes became one, the largest score is not the most probable class.
    """
    shapes = [shape_of(v) for v in (node.outputs[0], *(n.outputs[0] for n in turns))]
    if all(n.op_type not in _RESHAPING for n in turns):
        return True
    own = shapes[0]
    last = own is not None and softmax_axes(node) == (len(own) - 1,)
    return last and all(s and isinstance(s[-1], int) and s[-1] == (own or ())[-1] for s in shapes)
