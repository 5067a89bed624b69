"""The way back, node by node, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import inputs_of, key_of
from probegen.parity.witness.adjoints import adjoint
from probegen.parity.witness.forward import ForwardValues, floating
from probegen.parity.witness.step import Step, Unknown

Array = npt.NDArray[Any]

#: A rule: (node, what arrived at its outputs, positions of inputs that depend on what is explained)
#: -> pairs of a value and what arrives there.
Rule = Callable[[Step, Sequence[Array | None], Sequence[int]], Iterable[tuple[ir.Value, Array]]]

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
) -> dict[ir.Value, Array]:
    """Returns what arrives at each place; zeros where nothing does.

    Raises:
        UnknownNode: a node on the way has no rule.
    """
    reached = depending(forward.graph, places, stops)
    total: dict[ir.Value, Array] = dict(seeds)
    for node in reversed(list(forward.graph)):
        arrived = [total.get(v) for v in node.outputs]
        if (
            any(a is not None for a in arrived)
            and (set(inputs_of(node)) - set(node.inputs)) & reached
        ):
            raise UnknownNode(node, key_of(node))  # what its subgraph reads by itself
        wanted = [i for i, v in enumerate(node.inputs) if v in reached and floating(v)]
        if not wanted or all(a is None for a in arrived) or key_of(node) in stops:
            continue
        step = Step(
            node,
            [None if v is None else values.get(v) for v in node.inputs],
            [values.get(v) for v in node.outputs],
            forward.evaluate,
        )
        try:
            for value, found in rule(step, arrived, wanted):
                total[value] = total[value] + found if value in total else found
        except Unknown as error:
            raise UnknownNode(node, str(error)) from error
    return {p: np.asarray(total.get(p, np.zeros_like(values[p]))) for p in places}
