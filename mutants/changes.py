"""The changes of a module: cosmic-ray's, less those that cannot matter."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parso  # noqa: F401  # before cosmic_ray, whose own import of it is circular
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of one module.

    Attributes:
        module: the file, relative to the root.
        line: where, from 1.
        code: the changed text of the whole file.
        diff: the change as a unified diff without context.
    """

    module: Path
    line: int
    code: str
    diff: str


def draw_changes(module: Path, root: Path, rng: random.Random) -> Iterator[Change]:
    """Yields one change a place, places in random order.

    Left out are changes of annotations, of docstrings, and those after which the file is no
    Python any more.
    """
    source = (root / module).read_text()
    meaning = _meaning(source)
    places: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    tree = get_ast(source)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        starts = [
            start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)
        ]
        for occurrence, start in enumerate(starts):
            places.setdefault(start, []).append((operator, occurrence))
    order = sorted(places)
    rng.shuffle(order)
    for place in order:
        code = mutate_code(source, *rng.choice(places[place]))
        if code is not None and _meaning(code) not in (meaning, None):
            yield Change(module, place[0], code, _difference(source, code))


def _meaning(source: str) -> str | None:
    """Returns what the code does, without annotations, or None where it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def _difference(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
