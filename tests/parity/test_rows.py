"""A reference whose arrays have their samples first."""

from types import MappingProxyType

import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.errors import VerificationError
from probegen.parity.rows import RowsMovedScores, RowsReference
from probegen.plan.plan import Plan, TensorRef

INPUT = InputSpec("x", "float32", (5, None, 2), ("time", "batch", "feature"))
LATER = OutputSpec("y", "prediction", "float32", (4, None), ("class", "batch"))
FIRST = OutputSpec("a", "activation", "float32", (None, 4), ("batch", "unit"), layer="swin/mlp")
NONE = OutputSpec("n", "activation", "float32", (4,), ("unit",))
PLAN = Plan((), (), Manifest((INPUT,), (LATER, FIRST, NONE)))
X = np.arange(30.0).reshape(5, 3, 2)
VALUES = {
    "y": np.arange(12.0).reshape(4, 3),
    "a": np.arange(12.0).reshape(3, 4),
    "n": np.arange(4.0),
}


class Inner:
    plan, sizes, computed_in, gradients_by = PLAN, frozenset({2}), "float32", "differences"
    words = MappingProxyType({})

    def predictions(self, feed, times=1):
        assert feed["x"] is X
        return [{"y": VALUES["y"]}] * times

    def explanations(self, feed, target, noise=None):
        assert feed["x"] is X
        assert noise is None
        return {name: value for name, value in VALUES.items() if name != target}

    def moved_scores(self):
        return None


REFERENCE = RowsReference(Inner())


def test_samples_come_first():
    assert REFERENCE.rows({"x": X}) == 3
    found = REFERENCE.arranged(VALUES, 3)
    np.testing.assert_array_equal(found["y"], VALUES["y"].T)
    np.testing.assert_array_equal(found["a"], VALUES["a"])
    np.testing.assert_array_equal(found["n"], np.stack([VALUES["n"]] * 3))
    once, again = REFERENCE.predictions({"x": X}, 2)
    for answer in (once, again):
        np.testing.assert_array_equal(answer["y"], VALUES["y"].T)
    assert set(REFERENCE.explanations({"x": X}, "a")) == {"y", "n"}
    assert REFERENCE.moved_scores() is None


@pytest.mark.parametrize(
    ("name", "axis", "size", "advice"),
    [("y", 1, 3, "Say what its axes are"), ("a", 0, 3, r"point.path not in \['swin/mlp'\]")],
)
def test_another_number_of_samples_than_the_inputs_have(name, axis, size, advice):
    says = f"'{name}' has {size} entries along its axis {axis}, .* for 2 samples.*{advice}"
    with pytest.raises(VerificationError, match=says):
        REFERENCE.arranged({name: VALUES[name]}, 2)


def test_moved_tensors_are_turned_and_turned_back():
    ref, other = TensorRef(None), TensorRef("layer")
    seen = {}

    class Scores:
        def at(self, feed, shifts):
            assert feed["x"] is X
            seen.update(shifts)
            return ["scores"], {ref: X, other: VALUES["a"]}

        holding_masks = at

        def is_held_back(self, group, at):
            return group == "group" and at is ref

    axes = {ref: INPUT.axes, other: FIRST.axes}
    moved = RowsMovedScores(Scores(), axes)
    shift = X.transpose(1, 0, 2) + 0.5
    scores, tensors = moved.at({"x": X}, {ref: shift, other: np.float64(2)})
    assert scores == ["scores"]
    np.testing.assert_array_equal(seen[ref], X + 0.5)
    assert seen[other] == 2
    np.testing.assert_array_equal(tensors[ref], X.transpose(1, 0, 2))
    np.testing.assert_array_equal(tensors[other], VALUES["a"])
    held = moved.holding_masks({"x": X}, {ref: shift})[1]
    np.testing.assert_array_equal(held[ref], X.transpose(1, 0, 2))
    assert moved.is_held_back("group", ref)
    assert not moved.is_held_back("group", other)
