"""What loops and branches run, node by node in float64: every run of a body with its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.values import constant_of, subgraphs_of
from probegen.graph.loops.iteration import Iteration, is_loop, iteration_of
from probegen.parity.witness.evaluation import NodeEvaluator, wide
from probegen.parity.witness.step import Unknown

Array = npt.NDArray[Any]
#: Value of a graph -> what it is; values of the graphs around it too.
Values = Mapping[ir.Value, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a body: the graph, and all tensors, those of the graphs around it too."""

    body: ir.Graph
    values: Values


def runs_of(node: ir.Node, values: Values, evaluate: NodeEvaluator) -> list[Run]:
    """Runs what an If, a Loop or a Scan runs.

    Args:
        node: the node.
        values: what it can read.
        evaluate: evaluates single nodes.

    Returns:
        The branch of an If that is taken; the steps of a loop in the order of its steps.

    Raises:
        Unknown: a node inside cannot be evaluated.
    """
    if not is_loop(node):
        branch = "then_branch" if np.all(values[_first(node)]) else "else_branch"
        return [_run(node.attributes[branch].as_graph(), {}, values, evaluate)]
    iteration = iteration_of(node)
    states = {s: values[s.initial] for s in iteration.states}
    runs: list[Run] = []
    for read in _reads(iteration, values):
        entering = {s.entering: a for s, a in states.items()}
        runs.append(_run(iteration.body, {**entering, **read}, values, evaluate))
        found = runs[-1].values
        states = {s: found[s.leaving] for s in states}
        if iteration.next_condition is not None and not np.all(found[iteration.next_condition]):
            break
    return runs


def entry(axis: int, step: int, *, backwards: bool) -> tuple[Any, ...]:
    """Returns the index of what a step reads of a sequence, or adds to it."""
    return (*[slice(None)] * axis, -1 - step if backwards else step)


def _first(node: ir.Node) -> ir.Value:
    first = node.inputs[0]
    assert first is not None
    return first


def _reads(iteration: Iteration, values: Values) -> Iterator[dict[ir.Value, Any]]:
    """Yields what each step reads beside states; of a Loop without a bound, for ever."""
    node = iteration.node
    if node.op_type == "Scan":
        length = min(np.shape(values[s.sequence])[s.axis] for s in iteration.scan_inputs)
        for step in range(length):
            yield {
                s.entering: np.asarray(
                    values[s.sequence][entry(s.axis, step, backwards=s.backwards)]
                )
                for s in iteration.scan_inputs
            }
        return
    trips, going_on = (None if v is None else values[v] for v in node.inputs[:2])
    if going_on is not None and not np.all(going_on):
        return
    step = 0
    while trips is None or step < int(np.reshape(trips, ())):
        assert iteration.step_number is not None
        assert iteration.condition is not None
        yield {iteration.step_number: np.asarray(step), iteration.condition: np.asarray(True)}
        step += 1


def _run(
    body: ir.Graph, given: Mapping[ir.Value, Any], around: Values, evaluate: NodeEvaluator
) -> Run:
    """Evaluates the nodes of a body one after the other."""
    known = {v: wide(a) for v in body.initializers.values() if (a := constant_of(v)) is not None}
    values = {**around, **known, **given}
    for node in body:
        for value, array in zip(node.outputs, _outputs(node, values, evaluate), strict=False):
            values[value] = array
    return Run(body, values)


def _outputs(node: ir.Node, values: Values, evaluate: NodeEvaluator) -> Iterable[Any]:
    if any(True for _ in subgraphs_of(node)):
        return _results(node, runs_of(node, values, evaluate))
    inputs = [None if v is None else values[v] for v in node.inputs]
    if node.domain == MARK_DOMAIN:  # each is its first input
        return inputs[:1]
    try:
        return [wide(np.asarray(a)) for a in evaluate(node, inputs)]
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise Unknown(f"{node.op_type} inside a loop or a branch") from error


def _results(node: ir.Node, runs: Sequence[Run]) -> list[Any]:
    """Returns the outputs of a node from its runs."""
    if not is_loop(node):
        return [runs[0].values[v] for v in runs[0].body.outputs]
    iteration = iteration_of(node)
    if not runs:
        raise Unknown(f"a {node.op_type} inside another that runs no step")
    last = runs[-1].values
    found: list[Any] = [last[s.leaving] for s in iteration.states]
    for stack in iteration.scan_outputs:
        each = [run.values[stack.leaving] for run in runs]
        found.append(np.stack(each[::-1] if stack.backwards else each, axis=stack.axis))
    return found
