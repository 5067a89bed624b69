"""Changes modules at random and prints the changes that no test beside them noticed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mutants.beside import PACKAGE, find_tests
from mutants.changes import Change, draw_changes
from mutants.trials import TOO_LATE, import_what_is_heavy, run_tests

ROOT = Path(__file__).resolve().parent.parent


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--minutes", type=float, default=10, show_default=True, help="When to stop.")
@click.option("--draw", type=int, default=4, show_default=True, help="Modules, where none is named")
@click.option("--seed", type=int, help="The same draw again; printed by each run.")
@click.option("--most", type=int, help="Changes a module at most.")
def main(
    files: tuple[Path, ...], minutes: float, draw: int, seed: int | None, most: int | None
) -> None:
    """Changes FILES (modules or folders of the package) one place at a time."""
    end = time.monotonic() + 60 * minutes
    seed = random.randrange(10**6) if seed is None else seed
    rng = random.Random(seed)
    modules = _modules(files) or sorted(rng.sample(_modules([Path(PACKAGE)]), draw))
    click.echo(f"seed {seed}, {len(modules)} modules, {minutes:g} minutes")
    import_what_is_heavy()
    limits: dict[tuple[Path, ...], float | None] = {}
    counts: Counter[str] = Counter()
    for change in _in_turn([module for module in modules if _has_tests(module)], rng, most):
        tests = tuple(find_tests(change.module, ROOT))
        if tests not in limits:
            limits[tests] = _limit(change.module, tests, end)
        limit = limits[tests]
        if time.monotonic() > end:
            click.echo("\ntime is up")
            break
        if limit is None:
            continue
        result, _ = run_tests(change.module, change.code, tests, ROOT, limit)
        verdict = {0: "survived", TOO_LATE: "too late"}.get(result, "caught")
        counts[verdict] += 1
        if verdict == "survived":
            click.echo(f"\n{change.module}:{change.line} survived\n{change.diff}")
    click.echo(f"\n{counts['caught'] + counts['too late']} of {counts.total()} changes caught")


def _modules(paths: Sequence[Path]) -> list[Path]:
    """Returns modules by files and folders, relative to the root."""
    found: list[Path] = []
    for path in paths:
        whole = ROOT / path
        if not whole.exists():
            raise click.BadParameter(f"there is no {path} below {ROOT.name}")
        found += [whole] if whole.is_file() else sorted(whole.rglob("*.py"))
    return [path.relative_to(ROOT) for path in found]


def _has_tests(module: Path) -> bool:
    if find_tests(module, ROOT):
        return True
    click.echo(f"{module}: no tests beside it")
    return False


def _limit(module: Path, tests: Sequence[Path], end: float) -> float | None:
    """Returns how long tests may take with a change, None where they fail without one."""
    result, seconds = run_tests(module, None, tests, ROOT, max(1, end - time.monotonic()))
    names = ", ".join(map(str, tests))
    if result != 0:
        click.echo(f"{names}: failed, or took too long, without any change")
        return None
    click.echo(f"{names}: {seconds:.0f} s without any change")
    return 3 * seconds + 10


def _in_turn(modules: Sequence[Path], rng: random.Random, most: int | None) -> Iterator[Change]:
    """Yields a change of each module in turn, until none has more."""
    left = [draw_changes(module, ROOT, rng) for module in modules]
    drawn = 0
    while left and (most is None or drawn < most):
        for changes in list(left):
            change = next(changes, None)
            if change is None:
                left.remove(changes)
            else:
                yield change
        drawn += 1


if __name__ == "__main__":
    main()
