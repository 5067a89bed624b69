"""Takes out of a loop's body what need not be done step by step.

What carried values take no part in is computed for all steps at once before the loop, what
only collected values need is computed for all steps at once after it, and what is the same in
all steps is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import Dim, broadcast, constant_of, shape_of, subgraphs_of
from probegen.graph.loops.batch_over_steps import Writer, batch_over_steps, copy_once
from probegen.graph.loops.merge_products import merge_products


@dataclasses.dataclass(frozen=True)
class EntryOf:
    """A sequence of which the body sees one entry at a time.

    Attributes:
        sequence: outer value, time axis first.
        backwards: True where the first step sees the last entry.
    """

    sequence: ir.Value
    backwards: bool


@dataclasses.dataclass(frozen=True)
class Collected:
    """A value of the body that is collected over the steps.

    Attributes:
        value: the value of the body.
        backwards: True where the first step writes the last entry.
    """

    value: ir.Value
    backwards: bool


@dataclasses.dataclass(frozen=True)
class _Operand:
    """What stands outside for an input of a node of the body.

    Attributes:
        value: the outer value; a sequence where the input differs from step to step.
        backwards: None where it is the same in all steps, else the direction of the sequence.
    """

    value: ir.Value | None
    backwards: bool | None = None


class Hoisting:
    """Moves nodes of one body out of it.

    Attributes:
        constant: value of the body that is the same in all steps -> outer value.
        moved: values of the body that are no longer made in it.
    """

    def __init__(
        self,
        outer: Builder,
        graph: ir.Graph,
        carried: Iterable[ir.Value],
        entries: dict[ir.Value, EntryOf],
    ) -> None:
        """Prepares to move nodes.

        Args:
            outer: writes into the graph around.
            graph: the body; its initializers are looked up here.
            carried: what a step finds of the carried values.
            entries: value of the body -> the sequence it is an entry of; moved values are added.
        """
        self.constant: dict[ir.Value, ir.Value] = {}
        self.moved: list[ir.Value] = []
        self._outer = outer
        self._graph = graph
        self._carried = set(carried)
        self._dependent = set(carried)
        self._made: set[ir.Value] = set()
        self._entries = entries
        self._steps = first_size([s.sequence for s in entries.values()])

    def hoist_before(self, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Hoists what does not depend on carried values; returns the nodes that stay."""
        self._made = {v for node in nodes for v in node.outputs}
        staying = []
        for node in nodes:
            if any(v in self._dependent for v in inputs_of(node)):
                self._dependent.update(node.outputs)
                staying.append(node)
            elif self.hoist(node):
                self.moved.extend(node.outputs)
            else:
                staying.append(node)
        return staying

    def merge_products(self, nodes: Sequence[ir.Node], results: Container[ir.Value]) -> None:
        """Merges products among the nodes that stayed; see `merge_products`."""

        def write_outside(
            op_type: str, operands: Sequence[ir.Value], axis: int | None
        ) -> ir.Value | None:
            node = ir.node(op_type, operands, {} if axis is None else {"axis": axis})
            result = node.outputs[0]
            result.type = operands[0].type
            shapes = [shape_of(v) for v in operands]
            shape = broadcast(*shapes) if axis is None else _joined(shapes, axis)
            result.shape = None if shape is None else ir.Shape(list(shape))
            if not self.hoist(node):
                disconnect(node)
                return None
            self.moved.append(result)
            return result

        merge_products(nodes, results, self._dependent, write_outside)

    def plan_after(
        self, nodes: Sequence[ir.Node], carried: Sequence[ir.Value], stacked: Sequence[Collected]
    ) -> tuple[list[ir.Node], list[Collected]]:
        """Finds what only collected values need, where that can wait until after the loop.

        Args:
            nodes: the body's nodes, `hoist_before` done.
            carried: what a step leaves of the carried values.
            stacked: what the loop is to collect.

        Returns:
            The nodes to take out and to `hoist` when the loop is written, and what the loop has
            to collect for them and beside their results.
        """
        directions = {s.backwards for s in stacked}
        essential = ancestors(nodes, carried)
        collectable = self._carried | {v for node in essential for v in node.outputs}
        if len(directions) != 1:
            return [], list(stacked)
        (direction,) = directions
        after = {v: _Operand(v, direction) for v in collectable}
        movable: list[ir.Node] = []
        for node in nodes:
            operands = [
                after.get(v) or self._operand(v) if v else _Operand(None) for v in node.inputs
            ]
            if node not in essential and _writer(node, operands) is not None:
                movable.append(node)
                after |= {v: _Operand(v, direction) for v in node.outputs}
        made_later = {v for node in movable for v in node.outputs}
        later = ancestors(movable, [s.value for s in stacked if s.value in made_later])
        ordered = [node for node in movable if node in later]
        crossing = dict.fromkeys(v for node in ordered for v in node.inputs if v in collectable)
        collected = [Collected(v, direction) for v in crossing if v is not None]
        collected += [s for s in stacked if s.value not in made_later and s.value not in crossing]
        stays = ancestors(nodes, [*carried, *(s.value for s in collected)])
        # A collected value costs a copy a step, a node a call.
        if later & stays or len(collected) - len(stacked) > len(nodes) - len(stays):
            return [], list(stacked)
        return ordered, collected

    def hoist(self, node: ir.Node) -> bool:
        """Writes a node outside, where that is possible; tells whether it was."""
        operands = [self._operand(v) for v in node.inputs]
        writer = _writer(node, operands)
        if writer is None:
            return False
        written = writer(self._outer, [o.value if o else None for o in operands], self._steps)
        directions = [o.backwards for o in operands if o and o.backwards is not None]
        for value, whole in zip(node.outputs, written, strict=True):
            if directions:
                self._entries[value] = EntryOf(whole, directions[0])
            else:
                self.constant[value] = whole
        disconnect(node)
        return True

    def _operand(self, value: ir.Value | None) -> _Operand | None:
        """Returns what stands outside for a value of the body; None where nothing does."""
        if value is None:
            return _Operand(None)
        if value in self._entries:
            return _Operand(self._entries[value].sequence, self._entries[value].backwards)
        if value in self.constant:
            return _Operand(self.constant[value])
        if value in self._made or value in self._carried:
            return None
        if self._graph.initializers.get(value.name or "") is not value:
            return _Operand(value)
        array = constant_of(value)
        return None if array is None else _Operand(self._outer.const(array))


def _joined(shapes: Sequence[Sequence[Dim] | None], axis: int) -> list[Dim] | None:
    """Returns the shape of values joined along an axis."""
    ranked = [list(s) for s in shapes if s is not None]
    if len(ranked) < len(shapes):
        return None
    sizes = [s[axis] for s in ranked]
    static = [d for d in sizes if isinstance(d, int)]
    ranked[0][axis] = sum(static) if len(static) == len(sizes) else None
    return ranked[0]


def _writer(node: ir.Node, operands: Sequence[_Operand | None]) -> Writer | None:
    directions = {o.backwards for o in operands if o is not None} - {None}
    if None in operands or len(directions) > 1:
        return None
    if not directions:
        return copy_once(node)
    return batch_over_steps(node, [o is not None and o.backwards is not None for o in operands])


def first_size(sequences: Sequence[ir.Value]) -> Dim:
    """Returns the number of steps as far as the sequences tell it."""
    shapes = [shape_of(v) for v in sequences]
    sizes = [shape[0] for shape in shapes if shape]
    static: list[Dim] = [d for d in sizes if isinstance(d, int)]
    best = static or [d for d in sizes if d is not None]
    return best[0] if best else None


def leading_to(
    nodes: Sequence[ir.Node], results: Iterable[ir.Value]
) -> tuple[list[ir.Node], set[ir.Value]]:
    """Returns those of `nodes` that `results` depend on, in order, and all values they read."""
    read = set(results)
    leading: list[ir.Node] = []
    for node in reversed(nodes):
        if any(v in read for v in node.outputs):
            leading.append(node)
            read.update(inputs_of(node))
    return leading[::-1], read


def ancestors(nodes: Sequence[ir.Node], results: Iterable[ir.Value]) -> set[ir.Node]:
    """Returns those of `nodes` that `results` depend on."""
    return set(leading_to(nodes, results)[0])


def needed(
    nodes: Sequence[ir.Node], results: Iterable[ir.Value]
) -> tuple[list[ir.Node], set[ir.Value]]:
    """Does as `leading_to`, and takes the inputs of the other nodes away.

    So no value counts a node that is dropped among its uses.
    """
    leading, read = leading_to(nodes, results)
    chosen = set(leading)
    for node in nodes:
        if node not in chosen:
            disconnect(node)
    return leading, read


def disconnect(node: ir.Node) -> None:
    """Takes a node's inputs away, so that no value counts it among its uses."""
    for graph in subgraphs_of(node):
        for inner in graph:
            disconnect(inner)
    node.resize_inputs(0)
