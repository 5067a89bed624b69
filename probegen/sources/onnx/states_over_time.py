"""States that recurrent operators and loops of a graph keep from step to step."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import onnx_ir as ir

from probegen.graph.core.values import attribute, known_sizes
from probegen.graph.loops.iteration import is_loop
from probegen.graph.vjp.recurrent_operands import GATE_NAMES, STATES, directions_of
from probegen.plan.axes import BATCH, CHANNEL, TIME
from probegen.plan.model_view import StateFacts, TensorFacts
from probegen.plan.plan import STATE, TensorRef
from probegen.plan.points import ProbePoint
from probegen.sources.onnx.layouts import Layouts
from probegen.sources.onnx.loop_bodies import Inside, OverSteps, carried_states
from probegen.sources.onnx.loop_bodies import over_steps as steps_of
from probegen.sources.onnx.nudges import why_no_gradient
from probegen.sources.onnx.tensor_facts import element_type, facts_told_apart

#: What states and gates are called.
_TITLES = {
    "": "Hidden state",
    ":1": "Cell state",
    **{
        name: name[1:].replace("_", " ").capitalize()
        for names in GATE_NAMES.values()
        for name in names
    },
}


class StatesOverTime:
    """Finds the states over time of a graph's nodes, and what is known of them."""

    def __init__(
        self,
        nodes: Mapping[str, ir.Node],
        inside: Mapping[ir.Node, Inside],
        layouts: Layouts,
        usable: Collection[ir.Value],
    ) -> None:
        """Makes a finder.

        Args:
            nodes: path -> node, those in the bodies of loops too.
            inside: nodes in the bodies of loops -> where they stand.
            layouts: the axes of all values.
            usable: values that a loop can give out at each step: they depend on the inputs, are not
                drawn at random, and are of one size at all steps.
        """
        self._nodes = nodes
        self._inside = inside
        self._layouts = layouts
        self._usable = usable

    def has(self, node: ir.Node) -> bool:
        """Tells whether a node keeps states from step to step that can be given out."""
        return self._batch_and_time(node) is not None or bool(self.of_loop(node))

    def _batch_and_time(self, node: ir.Node) -> tuple[int | None, int | None] | None:
        """Returns batch and time of a recurrent operator that runs over samples, else None."""
        x = node.inputs[0] if node.inputs else None
        sizes = known_sizes(x)
        if node.domain or node.op_type not in GATE_NAMES or x is None or sizes is None:
            return None
        if node in self._inside:
            return None
        at = 0 if attribute(node, "layout", 0) else 1
        axes = self._layouts.axes(x)
        if self._layouts.told_apart(x) is not None or axes[at : at + 1] != (BATCH,):
            return None
        return sizes[at], sizes[1 - at]

    def of_loop(self, node: ir.Node) -> dict[int, ir.Value]:
        """Returns what each step of a loop leaves of its states, by their numbers."""
        where = self._inside.get(node)
        if not is_loop(node) or (where is not None and where.branch is not None):
            return {}
        return {
            number: state.leaving
            for number, state in enumerate(carried_states(node))
            if state.leaving in self._usable
            and (not self._layouts.batched or BATCH in self._layouts.axes(state.leaving))
        }

    def at(self, point: ProbePoint) -> list[StateFacts]:
        """Returns the states over time, and the gates, of the node of a point."""
        node = self._nodes[point.path]
        if is_loop(node):
            return self._at_loop(point, node)
        x, weights = node.inputs[0], node.inputs[2]
        sizes = self._batch_and_time(node)
        if sizes is None or x is None or weights is None:
            return []
        shape = (*sizes, (known_sizes(weights) or ())[-1])
        count = len(directions_of(node))
        kept = STATES[: 2 if node.op_type == "LSTM" else 1]
        found = []
        for position in range(count):
            way = ("/forward", "/backward")[position] if count > 1 else ""
            for suffix in (*kept, *GATE_NAMES[node.op_type]):
                ref = TensorRef(point.path, 0, position, STATE, suffix)
                dtype = element_type(x)
                facts = TensorFacts(shape, dtype, (BATCH, TIME, "unit"), is_float=True)
                is_gate = suffix not in STATES
                name = f"{point.name}{way}{suffix}"
                found.append(StateFacts(name, _TITLES[suffix], ref, facts, is_gate))
        return found

    def _at_loop(self, point: ProbePoint, loop: ir.Node) -> list[StateFacts]:
        """Returns the states of a loop over time: the first as its own, others numbered."""
        found = []
        for place, (number, value) in enumerate(self.of_loop(loop).items()):
            suffix = f":{place}" if place else ""
            ref = TensorRef(point.path, 0, number, STATE, suffix)
            over = self._over_steps(loop, value)
            axes = tuple("unit" if n == CHANNEL else n for n in over.facts.axes)
            facts = dataclasses.replace(over.facts, axes=axes)
            title = f"Carried state {value.name}"
            found.append(StateFacts(f"{point.name}{suffix}", title, ref, facts))
        return found

    def known_of(self, ref: TensorRef, point: ProbePoint) -> StateFacts:
        """Returns what is known of a state over time at a point, or of what is added to one."""
        place = (ref.position, ref.operation)
        return next(s for s in self.at(point) if (s.ref.position, s.ref.operation) == place)

    def why_no_gradient_at(self, state: StateFacts) -> str:
        """Says why no gradient can be taken at a state over time; `""` where one can."""
        node, over = self._nodes[str(state.ref.path)], self.over_steps(state.ref)
        if over is not None and len(over.loops) > 1:
            return "its loop runs inside another loop"
        if over is not None and over.apart is not None:
            return "along an axis of it samples are joined with others"
        return why_no_gradient(node, state.ref.operation, state.ref.position)

    def over_steps(self, ref: TensorRef) -> OverSteps | None:
        """Says how a state of a loop comes out; None for one of a recurrent operator."""
        node = self._nodes[str(ref.path)]
        if not is_loop(node):
            return None
        return self._over_steps(node, self.of_loop(node)[ref.position])

    def order_over_time(self, ref: TensorRef) -> tuple[int, ...]:
        """Returns which axes of `[time, ...]` the axes of a state over time are."""
        over = self.over_steps(ref)
        return (1, 0, 2) if over is None else over.order

    def _over_steps(self, loop: ir.Node, value: ir.Value) -> OverSteps:
        where = self._inside.get(loop)
        loops = (*(() if where is None else where.loops), loop)
        facts, apart = facts_told_apart(value, self._layouts), self._layouts.told_apart(value)
        return steps_of(value, loops, facts, apart)
