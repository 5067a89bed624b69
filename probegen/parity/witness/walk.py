"""The way back, node by node, in numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import captured_values, inputs_of, key_of
from probegen.graph.core.values import subgraphs_of
from probegen.graph.loops.iteration import Iteration, State, is_loop, iteration_of
from probegen.parity.witness.adjoints import adjoint
from probegen.parity.witness.bodies import Run, Values, entry, runs_of
from probegen.parity.witness.evaluation import NodeEvaluator
from probegen.parity.witness.forward import ForwardValues, floating
from probegen.parity.witness.step import Step, Unknown

Array = npt.NDArray[Any]

#: A rule: (node, what arrived at its outputs, positions of inputs that depend on what is explained)
#: -> pairs of a value and what arrives there.
Rule = Callable[[Step, Sequence[Array | None], Sequence[int]], Iterable[tuple[ir.Value, Array]]]


@runtime_checkable
class OfRuns(Protocol):
    """A rule that is another one in each step of a loop."""

    def of_runs(
        self,
        iteration: Iteration,
        values: Values,
        runs: Sequence[Run],
        evaluate: NodeEvaluator,
    ) -> Sequence[Rule]:
        """Returns the rules of all steps, in the order of the steps.

        Raises:
            Unknown: there are none.
        """


#: Operators whose slope is 0 wherever they have one, or that stop what is on its way.
STOPS = frozenset({"Sign", "Floor", "Ceil", "Round", "Hardmax", f"{MARK_DOMAIN}::{STOP_GRADIENT}"})


class UnknownNode(Exception):  # noqa: N818 - an answer, not a failure of the program
    """Raised where a node has no rule in the witness.

    Attributes:
        node: its name.
    """

    def __init__(self, node: ir.Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node.name or ""


def plain(
    step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
) -> Iterable[tuple[ir.Value, Array]]:
    """The rule of gradients."""
    for position in wanted:
        value = step.node.inputs[position]
        if value is not None:
            yield value, adjoint(step, arrived, position)


def depending(
    graph: ir.Graph, places: Iterable[ir.Value], stops: Container[str] = STOPS
) -> set[ir.Value]:
    """Returns the floating tensors that depend on some, along ways that are not stopped."""
    found = set(places)
    for node in graph:
        if key_of(node) not in stops and any(v in found for v in inputs_of(node)):
            found.update(v for v in node.outputs if floating(v))
    return found


def backwards(
    forward: ForwardValues,
    values: Mapping[ir.Value, Array],
    seeds: Mapping[ir.Value, Array],
    places: Sequence[ir.Value],
    rule: Rule,
    stops: Container[str] = STOPS,
    *,
    into_bodies: bool = False,
) -> dict[ir.Value, Array]:
    """Returns what arrives at each place; zeros where nothing does.

    Args:
        forward: the forward pass.
        values: all its tensors.
        seeds: value -> what arrives there to begin with.
        places: the tensors that are explained.
        rule: says what arrives before a node.
        stops: operators that nothing passes.
        into_bodies: whether the rule goes into what loops and branches run.

    Raises:
        UnknownNode: a node on the way has no rule.
    """
    way = _Way(forward.evaluate, rule, stops, into_bodies)
    reached = depending(forward.graph, places, stops)
    total = way.back(forward.graph, values, seeds, reached)
    return {p: np.asarray(total.get(p, np.zeros_like(values[p]))) for p in places}


@dataclasses.dataclass(frozen=True)
class _Way:
    """How a walk goes back; see `backwards`."""

    evaluate: NodeEvaluator
    rule: Rule
    stops: Container[str]
    into_bodies: bool

    def back(
        self,
        graph: ir.Graph,
        values: Values,
        seeds: Mapping[ir.Value, Array],
        reached: Container[ir.Value],
    ) -> dict[ir.Value, Array]:
        """Returns what arrives at each value of a graph and of those around it.

        Raises:
            UnknownNode: a node on the way has no rule.
        """
        total: dict[ir.Value, Array] = dict(seeds)
        for node in reversed(list(graph)):
            arrived = [total.get(v) for v in node.outputs]
            if all(a is None for a in arrived) or key_of(node) in self.stops:
                continue
            try:
                for value, found in self._before(node, values, arrived, reached):
                    total[value] = total[value] + found if value in total else found
            except (Unknown, UnknownNode) as error:
                raise UnknownNode(node, str(error)) from error
        return total

    def _before(
        self,
        node: ir.Node,
        values: Values,
        arrived: Sequence[Array | None],
        reached: Container[ir.Value],
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields what arrives at what a node reads."""
        if any(True for _ in subgraphs_of(node)):
            read = [v for v in inputs_of(node) if v in reached]
            if read and not self.into_bodies:
                raise Unknown(key_of(node))
            if read:
                yield from self._through_bodies(node, values, arrived, reached)
            return
        wanted = [i for i, v in enumerate(node.inputs) if v in reached and floating(v)]
        if wanted:
            inputs = [None if v is None else values.get(v) for v in node.inputs]
            outputs = [values.get(v) for v in node.outputs]
            step = Step(node, inputs, outputs, self.evaluate, values)
            yield from self.rule(step, arrived, wanted)

    def _through_bodies(
        self,
        node: ir.Node,
        values: Values,
        arrived: Sequence[Array | None],
        reached: Container[ir.Value],
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields what arrives at what a node and its bodies read, all runs together."""
        runs = runs_of(node, values, self.evaluate)
        if is_loop(node):
            yield from self._through_steps(iteration_of(node), values, arrived, reached, runs)
            return
        seeds: dict[ir.Value, Array] = {}
        for value, g in zip(runs[0].body.outputs, arrived, strict=True):
            _add(seeds, value, g)
        captured = [v for v in captured_values(runs[0].body) if v in reached]
        inside = depending(runs[0].body, captured, self.stops)
        total = self.back(runs[0].body, runs[0].values, seeds, inside)
        yield from ((v, total[v]) for v in captured if v in total)

    def _through_steps(
        self,
        iteration: Iteration,
        values: Values,
        arrived: Sequence[Array | None],
        reached: Container[ir.Value],
        runs: Sequence[Run],
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields what arrives at what a loop starts from, reads entry by entry and captures."""
        body, states = iteration.body, [s for s in iteration.states if floating(s.initial)]
        behind = dict(zip(iteration.node.outputs, arrived, strict=True))
        carried: dict[State, Array | None] = {s: behind[s.final] for s in states}
        captured = [v for v in captured_values(body) if v in reached]
        read = [s for s in iteration.scan_inputs if s.sequence in reached and floating(s.sequence)]
        inside = self._reached_in_steps(
            iteration, [*captured, *(s.entering for s in read)], reached
        )
        rules = self._rules_of(iteration, values, runs)
        of_sequences = {s: np.zeros_like(values[s.sequence]) for s in read}
        outside: dict[ir.Value, Array] = {}
        for k, run in reversed(list(enumerate(runs))):
            seeds: dict[ir.Value, Array] = {}
            for state, g in carried.items():
                _add(seeds, state.leaving, g)
            for stack in iteration.scan_outputs:
                g = behind[stack.stacked]
                if g is not None:
                    _add(seeds, stack.leaving, g[entry(stack.axis, k, backwards=stack.backwards)])
            way = dataclasses.replace(self, rule=rules[k])
            total = way.back(body, run.values, seeds, inside)
            carried = {s: total.get(s.entering) for s in states}
            for s, whole in of_sequences.items():
                whole[entry(s.axis, k, backwards=s.backwards)] += total.get(s.entering, 0.0)
            for value in captured:
                _add(outside, value, total.get(value))
        yield from ((s.initial, g) for s, g in carried.items() if g is not None)
        yield from ((s.sequence, whole) for s, whole in of_sequences.items())
        yield from outside.items()

    def _rules_of(
        self,
        iteration: Iteration,
        values: Values,
        runs: Sequence[Run],
    ) -> Sequence[Rule]:
        """Returns the rule of each step."""
        if not isinstance(self.rule, OfRuns):
            return [self.rule] * len(runs)
        return self.rule.of_runs(iteration, values, runs, self.evaluate)

    def _reached_in_steps(
        self, iteration: Iteration, sources: Iterable[ir.Value], outside: Container[ir.Value]
    ) -> set[ir.Value]:
        """Returns the tensors of a step that depend on what is explained, at whatever step."""
        entering = {s.entering for s in iteration.states if s.initial in outside}
        return iteration.in_any_step(
            {*sources, *entering}, lambda some: depending(iteration.body, some, self.stops)
        )


def _add(total: dict[ir.Value, Array], value: ir.Value, g: Array | None) -> None:
    """Adds what arrives at a value to what did already."""
    if g is not None:
        total[value] = total[value] + g if value in total else g
