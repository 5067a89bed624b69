"""Transposes that undo each other go; others are written as one."""

from __future__ import annotations

import pytest

from probegen.graph.passes.cancel_transposes import cancel_transposes
from probegen.graph.passes.tidy import remove_unused_nodes
from tests.graph.passes.harness import changed, parsed

X = "float[batch, 3, 5] x"
CASES = {
    "inverse ones go": (
        "a = Transpose<perm=[0, 2, 1]>(x) b = Transpose<perm=[0, 2, 1]>(a) y = Relu(b)",
        ["Relu"],
    ),
    "without an order both turn the axes round": (
        "a = Transpose(x) b = Transpose(a) y = Relu(b)",
        ["Relu"],
    ),
    "the first one stays for its other reader": (
        """a = Transpose<perm=[0, 2, 1]>(x) b = Transpose<perm=[0, 2, 1]>(a) r = Relu(b)
        s = ReduceSum<keepdims=0>(a) y = Mul(r, s)""",
        ["Transpose", "Relu", "ReduceSum", "Mul"],
    ),
    "three become one": (
        """a = Transpose<perm=[1, 2, 0]>(x) b = Transpose<perm=[1, 2, 0]>(a)
        y = Transpose<perm=[1, 0, 2]>(b)""",
        ["Transpose"],
    ),
    "an output keeps a node of its own": (
        "a = Transpose<perm=[0, 2, 1]>(x) y = Transpose<perm=[0, 2, 1]>(a)",
        ["Transpose"],
    ),
    "what lies between keeps both": (
        """a = Transpose<perm=[0, 2, 1]>(x) s = Softmax<axis=2>(a)
        y = Transpose<perm=[0, 2, 1]>(s)""",
        ["Transpose", "Softmax", "Transpose"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left(name: str) -> None:
    body, left = CASES[name]
    model = parsed(body, inputs=X)

    def change(_: object) -> None:
        cancel_transposes(model)
        remove_unused_nodes(model)

    assert changed(model, change) == left


def test_one_inside_a_branch_undoes_one_outside() -> None:
    model = parsed(
        """a = Transpose<perm=[0, 2, 1]>(x)
        y = If (on) <
          then_branch = yes () => (float[batch, 3, 5] b) { b = Transpose<perm=[0, 2, 1]>(a) },
          else_branch = no () => (float[batch, 3, 5] d) {
            c = Transpose<perm=[0, 2, 1]>(a) d = Relu(c) }
        >""",
        inputs=f"{X}, bool on",
    )

    def change(_: object) -> None:
        cancel_transposes(model)
        remove_unused_nodes(model)

    # The branch has to make its output itself, by a Transpose that changes nothing.
    assert changed(model, change) == ["If"]
    assert [n.op_type for n in model.graph.all_nodes()] == ["If", "Transpose", "Relu"]
