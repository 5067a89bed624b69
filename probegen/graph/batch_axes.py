"""Which axis of every tensor the samples lie along, followed from the inputs through a graph.

And where the graph works on several samples together: a maximum, a sum, a softmax over them, or
every one of them beside every other. What is not certain joins nothing here, so that nothing is
said without ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.batch_axis_rules import Step, by_rule, has_samples
from probegen.graph.core.axis_factors import (
    SAMPLES,
    Axis,
    Factors,
)
from probegen.graph.core.queries import inputs_of, needed_for
from probegen.graph.core.values import (
    Dim,
    constant_of,
    dims_of,
    shape_of,
    subgraphs_of,
)
from probegen.graph.loops.iteration import is_loop, iteration_of, trip_count


def node_that_joins(
    graph: ir.Graph, samples: Mapping[ir.Value, int], ends: Sequence[ir.Value]
) -> ir.Node | None:
    """Returns the first node that makes one number of several samples, on the way to some values.

    None where there is none, as far as can be told. Whole numbers do not count: the longest of the
    texts of a batch is what masks are as long as. Where they are counted one after the other they
    do: which of all tokens an expert has room for depends on those before.

    Args:
        graph: its nodes are in order, its shapes inferred.
        samples: inputs that hold samples -> the axis of the samples.
        ends: what is asked for.
    """
    if not samples or not ends:
        return None
    size = next(dims_of(value)[at] for value, at in samples.items())
    found = BatchAxes(graph, {v: samples.get(v) for v in graph.inputs}, size)
    needed = needed_for(graph, ends)
    return next((node for outer, node in found.joining if outer in needed), None)


class BatchAxes:
    """Follows the batch from the inputs of a graph to all of its tensors.

    Attributes:
        joining: the nodes that make numbers of several samples, in order, each behind the node of
            the graph itself in whose branch or body it stands, if not that node.
    """

    def __init__(self, graph: ir.Graph, axes: Mapping[ir.Value, int | None], size: Dim) -> None:
        """Follows.

        Args:
            graph: with shapes inferred.
            axes: input -> its axis of the batch, None where it has none.
            size: of the batch: a number, a name, or None where nothing is known.
        """
        self._size = size
        self._found: dict[ir.Value, Factors | None] = {}
        self._lost: set[ir.Value] = set()
        self.joining: list[tuple[ir.Node, ir.Node]] = []
        for value, axis in axes.items():
            shape = shape_of(value)
            if shape is not None:
                self._found[value] = tuple(
                    (SAMPLES,) if i == axis else (d,) for i, d in enumerate(shape)
                )
        for node in graph:
            self._outer = node
            self._follow(node)

    def factors(self, value: ir.Value) -> Factors | None:
        """Returns the factors of each axis, None where they are not known."""
        if value in self._found:
            return self._found[value]
        return self._by_sizes(value)

    def axis(self, value: ir.Value) -> int | None:
        """Returns the axis that counts samples and nothing else, None where there is none."""
        found = self.factors(value)
        return (
            None
            if found is None
            else next((i for i, f in enumerate(found) if f == (SAMPLES,)), None)
        )

    def joined(self, value: ir.Value) -> int | None:
        """Returns the axis along which samples are joined with something else, if there is one."""
        found = self.factors(value) or ()
        return next((i for i, f in enumerate(found) if SAMPLES in f and f != (SAMPLES,)), None)

    # -- one node --------------------------------------------------------------------------

    def _by_sizes(self, value: ir.Value) -> Factors | None:
        """Returns what names of sizes tell of a tensor that nothing else is known of."""
        shape = shape_of(value)
        if shape is None:
            return None
        named = isinstance(self._size, str)
        if named and shape.count(self._size) == 1:
            return tuple((SAMPLES,) if d == self._size else (d,) for d in shape)
        settled = value.is_initializer() or constant_of(value) is not None
        if settled or (named and all(isinstance(d, int) for d in shape)):
            return tuple((d,) for d in shape)
        return None

    def _follow_loop(self, node: ir.Node) -> None:
        """Follows through the body of a loop, and to what comes out of it.

        What a state has before the first step it has at each; where that does not tell, as of
        zeros of a computed size, what a step makes of it does.
        """
        iteration = iteration_of(node)
        steps: Axis = (trip_count(iteration),)
        for state in iteration.states:
            self._enter(state.entering, self.factors(state.initial))
        for sequence in iteration.scan_inputs:
            whole = self.factors(sequence.sequence)
            if whole is not None:
                entry = (*whole[: sequence.axis], *whole[sequence.axis + 1 :])
                self._enter(sequence.entering, entry)
                if SAMPLES in whole[sequence.axis]:
                    steps = whole[sequence.axis]
        self._follow_body(iteration.body)
        unknown = [s for s in iteration.states if not self._has_samples(s.entering)]
        told = [s for s in unknown if self._has_samples(s.leaving)]
        for state in told:
            self._enter(state.entering, self.factors(state.leaving))
        if told:
            self._follow_body(iteration.body)
        for state in iteration.states:
            self._enter(state.final, self.factors(state.leaving))
        for stack in iteration.scan_outputs:
            each = self.factors(stack.leaving)
            if each is not None:
                self._enter(stack.stacked, (*each[: stack.axis], steps, *each[stack.axis :]))

    def _follow_body(self, body: ir.Graph) -> None:
        for inner in body:
            self._follow(inner)

    def _enter(self, value: ir.Value, factors: Factors | None) -> None:
        """Notes the factors of a value, where it has as many axes, and one of samples."""
        shape = shape_of(value)
        if factors is None or sum(SAMPLES in f for f in factors) > 1:
            return
        if shape is None or len(shape) == len(factors):
            self._found[value] = factors

    def _has_samples(self, value: ir.Value) -> bool:
        return has_samples(self.factors(value))

    def _follow_branches(self, node: ir.Node) -> None:
        """Follows through the branches of a choice, and to what comes out of either."""
        for branch in subgraphs_of(node):
            self._follow_body(branch)
            for result, own in zip(node.outputs, branch.outputs, strict=True):
                if self._found.get(result) is None:
                    self._enter(result, self.factors(own))

    def _follow(self, node: ir.Node) -> None:
        if is_loop(node):
            self._follow_loop(node)
            return
        if node.op_type == "If":
            self._follow_branches(node)
            return
        if not any(v in self._found for v in inputs_of(node)):
            return
        given = [None if v is None else self.factors(v) for v in node.inputs]
        for place, result in enumerate(node.outputs):
            shape = shape_of(result)
            if shape is None or not result.name:
                continue
            step = Step(node, place, given, shape, self._size, self._outer)
            found = by_rule(step)
            if found is not None and sum(SAMPLES in f for f in found) > 1:
                step.joins, found = True, None  # samples against samples: no axis is the batch's
            if step.joins and step.counts() and (self._outer, node) not in self.joining:
                self.joining.append((self._outer, node))
            found = found if found is not None else self._by_sizes(result)
            self._found[result] = found
            self._lost.discard(result)  # of a body that is followed once more
            if found is None and self._loses(node):
                self._lost.add(result)

    def is_lost(self, value: ir.Value) -> bool:
        """Tells whether samples lie along an axis of a value, and it is not known along which."""
        return value in self._lost

    def _loses(self, node: ir.Node) -> bool:
        if any(v in self._lost for v in inputs_of(node)):
            return True
        first = self._found.get(node.inputs[0]) if node.inputs and node.inputs[0] else None
        return node.op_type == "Reshape" and has_samples(first)
