"""Breaks one rule at a time in memory, and tells whether the random graphs find it.

What is broken is what the suite is to find: the vector-Jacobian product of one operator, by a
factor on one of the gradients that it gives. A graph that has the operator and whose gradient
passes it has to differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from fuzz.onnx_case import OnnxCase
from fuzz.onnx_models import drawn
from fuzz.onnx_trial import attempt
from fuzz.outcome import DIFFERS, EQUAL
from probegen.graph.vjp import RULES

#: What a gradient is multiplied with.
_FACTOR = 1.1
#: Graphs with an operator that are tried before its fault counts as not found.
_GRAPHS = 4


@dataclasses.dataclass(frozen=True)
class Planted:
    """A fault, and what became of it.

    Attributes:
        op: the operator whose rule was broken.
        found: by the case of which key; None where none found it.
        tried: cases that have the operator, and whose artefacts are right with the rule whole.
    """

    op: str
    found: str | None
    tried: tuple[str, ...]


@contextlib.contextmanager
def broken(op: str) -> Iterator[list[int]]:
    """Breaks the rule of an operator; gives a list that grows with each use of it."""
    rules = dict(RULES)
    whole = rules[op]
    used: list[int] = []

    def wrong(walk, node, gradients):  # type: ignore[no-untyped-def]
        for at, (value, gradient) in enumerate(whole(walk, node, gradients)):
            used.append(at)
            yield value, (walk.builder.mul(gradient, _FACTOR) if at == 0 else gradient)

    RULES[op] = wrong  # type: ignore[index]
    try:
        yield used
    finally:
        RULES[op] = whole  # type: ignore[index]


def operators(case: OnnxCase) -> set[str]:
    """Returns the operators of a graph that have a rule."""
    keys = {f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in case.model.graph.node}
    return keys & set(RULES)


def planted(seed: int, minutes: float) -> Iterator[Planted]:
    """Yields what became of the fault of each operator that the graphs of a seed have.

    Args:
        seed: of the graphs.
        minutes: how long graphs are drawn at most.
    """
    end = time.monotonic() + 60 * minutes
    tried: dict[str, list[str]] = {}
    done: set[str] = set()
    number = 0
    while time.monotonic() < end:
        key = f"{seed}:{number}"
        number += 1
        try:
            case = drawn(key)
        except Exception:  # no graph
            continue
        case = dataclasses.replace(case, probes=("pg.InputGradient(target=0)",), options={})
        new = sorted(operators(case) - done)
        if not new or not _is_witnessed(case):
            continue
        for op in new:
            with broken(op) as used:
                outcome = attempt(case)
            if not used:
                continue
            tried.setdefault(op, []).append(key)
            if outcome.verdict == DIFFERS:
                done.add(op)
                yield Planted(op, key, tuple(tried[op]))
            elif len(tried[op]) >= _GRAPHS:
                done.add(op)
                yield Planted(op, None, tuple(tried[op]))


def _is_witnessed(case: OnnxCase) -> bool:
    outcome = attempt(case)
    return outcome.verdict == EQUAL and outcome.witnessed > 0
