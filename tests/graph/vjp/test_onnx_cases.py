"""A case of each operator from the corpus that onnx publishes, and that the corpus can fail.

`make corpus` tries all of them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp import onnx_cases
from tests.graph.vjp.onnx_cases import (
    AGREES,
    DIFFERS,
    END,
    NOT_APPLICABLE,
    REFUSED,
    START,
    Outcome,
    floating_size,
    operators_of,
    outcome,
    published_cases,
    table,
    write_coverage,
)

#: Rules that no published case is for: it has none, or none with a floating input.
WITHOUT_CASE = {"GlobalLpPool", "If", "Trilu", *(op for op in RULES if "::" in op)}


@functools.cache
def cases() -> dict[str, Any]:
    """Returns the smallest published case of each operator with a rule."""
    every = published_cases()
    about = operators_of(every)
    found: dict[str, Any] = {}
    for case in every:
        op = about[case.name]
        nodes = case.model.graph.node
        if op in RULES and len(nodes) == 1:
            size = floating_size(case)
            if size > 0 and (op not in found or size < floating_size(found[op])):
                found[op] = case
    return found


@pytest.mark.parametrize("op", sorted(set(RULES) - WITHOUT_CASE))
def test_a_published_case(op: str) -> None:
    found = outcome(cases()[op], op)
    assert found.verdict == AGREES, found


def test_all_other_rules_have_none() -> None:
    assert set(RULES) - set(cases()) == WITHOUT_CASE


def test_a_wrong_rule_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_cases, "RULES", {**RULES, "Sin": RULES["Cos"]})
    assert outcome(cases()["Sin"], "Sin").verdict == DIFFERS


def test_a_gradient_that_is_left_out_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_alone(walk, node, dy):
        yield from (pair for pair in RULES["Mul"](walk, node, dy) if pair[0] is node.inputs[0])

    monkeypatch.setattr(onnx_cases, "RULES", {**RULES, "Mul": first_alone})
    assert outcome(cases()["Mul"], "Mul").verdict == DIFFERS


def test_a_missing_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {op: rule for op, rule in RULES.items() if op != "Tanh"}
    monkeypatch.setattr(onnx_cases, "RULES", rules)
    found = outcome(cases()["Tanh"], "Tanh")
    assert (found.verdict, found.detail) == (REFUSED, "Tanh: no gradient rule")


def test_what_passes_no_gradient_says_so() -> None:
    case = next(c for c in published_cases() if c.name == "test_floor")
    found = outcome(case, "Floor")
    assert (found.verdict, BLOCKING["Floor"] in found.detail) == (NOT_APPLICABLE, True)


def test_the_table_has_a_row_an_operator_and_leaves_nothing_out() -> None:
    outcomes = [
        Outcome("test_sin", "Sin", AGREES, "", 3e-11),
        Outcome("test_sin_2", "Sin", AGREES, "", 2e-9, True),
        Outcome("test_sin_3", "Sin", REFUSED, "Sin: a | b"),
        Outcome("test_not", "Not", NOT_APPLICABLE, "no input is a floating tensor"),
        Outcome("test_odd", "Odd", DIFFERS, "x: relative distance 1"),
    ]
    lines = table(outcomes).splitlines()
    assert lines[2:] == [
        "| `Not` | 1 | 0 |  |  |  | 1: no input is a floating tensor |  |",
        "| `Odd` | 1 | 0 |  |  |  |  | 1: x: relative distance 1 |",
        "| `Sin` | 3 | 2 | 2e-09 | 1 of 1 | 1: Sin: a / b |  |  |",
    ]


def test_the_table_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_coverage(page, [Outcome("test_sin", "Sin", AGREES, "", 3e-11)])
    text = page.read_text()
    assert text.startswith(f"before\n{START}\nMade by `make corpus` with onnx")
    assert ": of 1 cases 1 agree." in text
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_coverage(page, [])
