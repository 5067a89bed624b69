"""Cuts a case that fails down to one that fails in the same way."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, TypeVar

from fuzz.case import Case, pruned
from fuzz.outcome import Outcome

C = TypeVar("C")


class Shown(Protocol):
    """A case that can be written as a program."""

    def code(self) -> str:
        """Returns the program."""


S = TypeVar("S", bound=Shown)

#: Arguments of a call: `name=value`, as far as the value holds no comma of its own.
_ARGUMENT = re.compile(r", (\w+)=([^,()\[\]]+|'[^']*')(?=[,)])")


def shrunk(
    case: C,
    attempt: Callable[[C], Outcome],
    smaller_ones: Callable[[C], Iterator[C]],
    seconds: float = 60.0,
) -> C:
    """Returns the smallest case that was found to have the same kind of outcome.

    Args:
        case: one that fails.
        attempt: tries a case.
        smaller_ones: yields cases with less in them.
        seconds: when to stop looking.
    """
    wanted = attempt(case).kind
    end = time.monotonic() + seconds
    smaller = True
    while smaller and time.monotonic() < end:
        smaller = False
        for candidate in smaller_ones(case):
            if time.monotonic() > end:
                break
            if candidate != case and attempt(candidate).kind == wanted:
                case, smaller = candidate, True
                break
    return case


def with_program(
    outcome: Outcome,
    case: S,
    known: Collection[str] | None,
    attempt: Callable[[S], Outcome],
    smaller_ones: Callable[[S], Iterator[S]],
) -> Outcome:
    """Returns an outcome; a finding comes with a program that shows it.

    Args:
        outcome: of the case.
        case: what was tried.
        known: kinds of findings that are not cut down; None for all.
        attempt: tries a case.
        smaller_ones: yields cases with less in them.
    """
    if not outcome.is_finding:
        return outcome
    new = known is not None and outcome.kind not in known
    small = shrunk(case, attempt, smaller_ones) if new else case
    return dataclasses.replace(outcome, code=small.code())


def smaller(case: Case) -> Iterator[Case]:
    """Yields cases with less in them, the boldest cuts first."""
    if len(case.probes) > 1:
        for probe in case.probes:
            yield dataclasses.replace(case, probes=(probe,))
    if len(case.outputs) > 1:
        for name in case.outputs:
            yield _kept(case, (name,))
    for name in case.options:
        yield dataclasses.replace(
            case, options={k: v for k, v in case.options.items() if k != name}
        )
    by_name = {line.name: line for line in case.lines}
    for line in reversed(case.lines):
        if line.role == "input" or line.name in case.outputs:
            continue
        for other in line.uses:
            if by_name[other].role != "layer":
                yield _without(case, line.name, other)
    if case.by_name:
        yield dataclasses.replace(case, by_name=False)
    if case.policy != "float32":
        yield dataclasses.replace(case, policy="float32")
    for i, line in enumerate(case.lines):
        for match in _ARGUMENT.finditer(line.code):
            code = line.code[: match.start()] + line.code[match.end() :]
            lines = (*case.lines[:i], dataclasses.replace(line, code=code), *case.lines[i + 1 :])
            yield dataclasses.replace(case, lines=lines)
    for i, probe in enumerate(case.probes):
        for code in without_arguments(probe):
            yield dataclasses.replace(case, probes=(*case.probes[:i], code, *case.probes[i + 1 :]))


def without_arguments(call: str) -> Iterator[str]:
    """Yields the code of a call without one or another of its keyword arguments."""
    for match in re.finditer(r"(?<=[(,]) ?(\w+)=([^,()\[\]]+)(, |(?=\)))", call):
        code = call[: match.start()] + call[match.end() :]
        yield code.replace(", )", ")").replace(",)", ")")


def _kept(case: Case, outputs: tuple[str, ...]) -> Case:
    logits = {name: case.logits[name] for name in outputs}
    wanted = [*outputs, *(n for code in logits.values() for n in re.findall(r"\bv\d+\b", code))]
    return dataclasses.replace(
        case, lines=pruned(case.lines, wanted), outputs=outputs, logits=logits
    )


def _without(case: Case, name: str, other: str) -> Case:
    """Returns the case with another variable in the place of one that is no output."""
    lines = tuple(line.renamed(name, other) for line in case.lines if line.name != name)
    logits = {k: re.sub(rf"\b{name}\b", other, code) for k, code in case.logits.items()}
    changed = dataclasses.replace(case, lines=lines, logits=logits)
    return _kept(changed, case.outputs)
