"""Looks for faults by random models and graphs, and prints what it finds."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from fuzz.outcome import FINDINGS, REFUSED, Outcome
from fuzz.pool import outcomes, work
from fuzz.suites import SUITES, attempt

#: Reasons of refusals that the summary lists.
_LISTED = 25


@click.group()
def main() -> None:
    """Looks for faults by random models and graphs."""


@main.command()
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)))
@click.option("--minutes", type=click.FloatRange(0), default=10.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, help="The first case's number.")
@click.option("--whole", is_flag=True, help="Do not cut faults down.")
@click.option("--log", type=click.Path(path_type=Path), help="Append each outcome as JSON.")
def run(
    suites: Sequence[str], minutes: float, seed: int, first: int, whole: bool, log: Path | None
) -> None:
    """Runs SUITES (all if left out) in turn, for a share of the time; status 1 with faults."""
    chosen = suites or list(SUITES)
    found: dict[str, list[Outcome]] = defaultdict(list)
    console = Console(stderr=True)
    for suite in chosen:
        for outcome in outcomes(suite, seed, minutes / len(chosen), first, not whole):
            found[suite].append(outcome)
            if outcome.is_finding:
                show(suite, outcome)
            if log:
                with log.open("a") as lines:
                    lines.write(json.dumps({"suite": suite, **vars(outcome)}) + "\n")
            console.print(f"{suite} {outcome.key}: {outcome.verdict}", highlight=False)
        print(summary(suite, found[suite]))
    sys.exit(any(o.is_finding for every in found.values() for o in every))


@main.command()
@click.argument("suite", type=click.Choice(list(SUITES)))
@click.argument("key")
def case(suite: str, key: str) -> None:
    """Tries the case KEY, such as 3:17, of a SUITE again."""
    outcome = attempt(suite, key)
    show(suite, outcome)
    sys.exit(outcome.is_finding)


@main.command()
@click.option("--minutes", type=click.FloatRange(0), default=10.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def plant(minutes: float, seed: int) -> None:
    """Breaks the rule of each operator in turn, and tells whether random graphs find it."""
    from fuzz.planting import planted  # the whole compiler comes with it

    missed = []
    for fault in planted(seed, minutes):
        print(f"{fault.op}: {f'found by {fault.found}' if fault.found else 'NOT FOUND'}")
        missed += [] if fault.found else [fault.op]
    sys.exit(bool(missed))


@main.command(hidden=True)
@click.argument("suite")
@click.argument("seed", type=int)
@click.argument("first", type=int)
@click.argument("count", type=int)
@click.option("--whole", is_flag=True)
def worker(suite: str, seed: int, first: int, count: int, whole: bool) -> None:
    """Tries cases and writes the outcomes as JSON: what `run` starts."""
    work(suite, seed, first, count, whole)


def show(suite: str, outcome: Outcome) -> None:
    """Prints an outcome with all that is known of it."""
    print(f"\n{suite} {outcome.key}: {outcome.verdict}: {outcome.reason}")
    for part in (outcome.detail, outcome.code):
        if part:
            print(part)


def summary(suite: str, found: Sequence[Outcome]) -> str:
    """Returns how the cases of a suite went, and what was refused for which reasons."""
    verdicts = Counter(o.verdict for o in found)
    counted = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    witnessed = sum(o.witnessed for o in found)
    lines = [f"{suite}: {len(found)} cases: {counted}; {witnessed} attributions with a witness"]
    for title, chosen in (("faults", FINDINGS), ("refusals", {REFUSED})):
        kinds = Counter(o.kind for o in found if o.verdict in chosen)
        lines += [f"{title}:"] if kinds else []
        lines += [f"  {n} x {kind}" for kind, n in kinds.most_common(_LISTED)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
