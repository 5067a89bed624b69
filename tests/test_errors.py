"""How refusals are folded together and printed, and how errors carry them."""

from __future__ import annotations

import pytest

from probegen.errors import (
    NotDifferentiableError,
    ProbegenError,
    Refusal,
    UnsupportedOpsError,
    did_you_mean,
    merged,
    nearest,
)

SINE = Refusal("Sin", "no gradient rule", ("a", "b"))


def test_a_refusal_says_operation_reason_place_and_advice():
    refusal = Refusal("Sin", "no gradient rule.", ("a",), ("wave",), "Move wrt=.")
    assert str(refusal) == "Sin: no gradient rule in layer 'wave'. Move wrt=."


def test_without_layers_the_nodes_are_named():
    assert str(SINE) == "Sin: no gradient rule (at a, b)."


def test_without_an_operation_the_reason_stands_alone():
    assert str(Refusal("", "the model cannot be converted.")) == "the model cannot be converted."


def test_nodes_without_a_name_are_no_place():
    assert str(Refusal("Sin", "no gradient rule", ("",))) == "Sin: no gradient rule."


def test_of_many_places_the_first_five_are_named():
    nodes = tuple(f"n{i}" for i in range(8))
    assert Refusal("Sin", "never", nodes).line == "Sin: never (at n0, n1, n2, n3, n4 and 3 more)"


def test_layers_are_found_by_node_and_named_once():
    layers = {"a": "wave", "b": "wave", "c": ""}
    found = Refusal("Sin", "never", ("a", "b", "c")).in_layers(layers.__getitem__)
    assert found.layers == ("wave",)
    assert found.nodes == ("a", "b", "c")


def test_one_operation_for_one_reason_is_one_refusal():
    others = [Refusal("Sin", "no gradient rule", ("c",)), Refusal("Cos", "no gradient rule")]
    assert merged([SINE, *others]) == (
        Refusal("Sin", "no gradient rule", ("a", "b", "c")),
        Refusal("Cos", "no gradient rule"),
    )
    assert len(merged([SINE, Refusal("Sin", "another reason", ("c",))])) == 2


@pytest.mark.parametrize("kind", [UnsupportedOpsError, NotDifferentiableError])
def test_an_error_prints_each_refusal_and_advice_once(kind: type[ProbegenError]):
    refusals = [
        Refusal("Sin", "no gradient rule", ("a",), ("wave",), "Move wrt=."),
        Refusal("Cos", "never", ("b",), (), "Move wrt=."),
    ]
    error = kind("these stand in the way:", refusals)
    assert str(error).splitlines() == [
        "these stand in the way:",
        "  Sin: no gradient rule in layer 'wave'",
        "  Cos: never (at b)",
        "Move wrt=.",
    ]
    assert error.refusals == tuple(refusals)


def test_an_error_without_refusals_is_its_message():
    assert str(NotDifferentiableError("no gradient flows.")) == "no gradient flows."


def test_what_there_is_instead():
    assert did_you_mean("lyaer", ["layer", "x"]) == nearest("lyaer", ["layer", "x"])
    assert did_you_mean("lyaer", ["layer", "x"]) == " Did you mean 'layer'?"
    assert did_you_mean("q", ["x"]) == " There is 'x'."
    assert did_you_mean("q", ["x", "y"]) == " There are 'x', 'y'."
    assert nearest("q", ["x", "y"]) == did_you_mean("q", []) == ""
