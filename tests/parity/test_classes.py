"""Attributions of several classes are judged class by class, and rounding may order equals."""

import numpy as np

from probegen.artefact.manifest import OutputSpec, TargetSpec
from probegen.parity.classes import each_class, heard, labelled, of_entry, repeated
from probegen.parity.comparison import compare
from probegen.parity.ties import with_ties_settled
from probegen.plan.plan import GradientGroup, GradientOutput, Plan, TargetPlan, TensorRef


def spec(axes=("batch", "class", "height", "width"), mode="all", kind="input_gradient"):
    shape = (None,) * len(axes)
    return OutputSpec("g", kind, "float32", shape, axes, target=TargetSpec(mode, output="y"))


VALUES = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype("f")


def test_a_row_is_a_class_of_a_sample():
    found = each_class(spec(), VALUES)
    assert found.shape == (6, 5, 4)
    np.testing.assert_array_equal(found[3], VALUES[1, 1])
    assert repeated(spec(), VALUES, [True, False, False]) == [True, True, *[False] * 4]
    assert labelled(spec(), VALUES, ["a", "b", "c"])[3] == "b, entry 1 of the classes"


def test_the_classes_need_not_stand_behind_the_samples():
    first = spec(("height", "batch", "class", "width"))
    turned = VALUES.transpose(0, 2, 1, 3)  # rows first, as the others are
    np.testing.assert_array_equal(each_class(first, turned), each_class(spec(), VALUES))
    np.testing.assert_array_equal(of_entry(first, turned, 1), VALUES[:, 1])


def test_one_class_stays_as_it_is():
    single = spec(("batch", "height", "width", "channel"), mode="argmax")
    assert each_class(single, VALUES) is VALUES
    assert repeated(single, VALUES, [1, 2, 3]) == [1, 2, 3]
    assert heard(single, VALUES) == [None]


def test_few_of_many_classes_are_heard():
    assert heard(spec(), VALUES) == [0, 1]
    assert heard(spec(), np.zeros((2, 9, 1, 1))) == [0, 4, 8]


def test_what_is_written_into_an_entry_is_written_into_the_whole():
    changed = VALUES.copy()
    of_entry(spec(), changed, 1)[2] = 0
    assert not changed[2, 1].any()
    np.testing.assert_array_equal(changed[:, 0], VALUES[:, 0])


def test_a_faint_class_does_not_hide_behind_a_strong_one():
    right = VALUES.copy()
    right[:, 0] *= 1e4
    wrong = right.copy()
    wrong[:, 1] = -wrong[:, 1]
    assert compare(spec(), wrong, right).passed  # taken together
    assert not compare(spec(), each_class(spec(), wrong), each_class(spec(), right)).passed


# -- scores that are nearly equal ----------------------------------------------------------------

CLASSES = OutputSpec("g/classes", "classes", "int32", (None, 2), ("batch", "class"), draw="beside")
PREDICTION = OutputSpec("y", "prediction", "float32", (None, 3), ("batch", "class"))


class Described:
    predictions = (PREDICTION,)
    region_input = None


def settled(scores, got, right):
    target = TargetPlan(TargetSpec("top", output="y", count=2))
    output = GradientOutput(spec(mode="top"), TensorRef(None), None, beside=(CLASSES,))
    plan = Plan((), (GradientGroup(target, (output,)),), Described())
    expected = {"y": np.asarray(scores), "g/classes": np.asarray(right), "g": VALUES}
    given = {"y": expected["y"], "g/classes": np.asarray(got), "g": VALUES + 1}
    return with_ties_settled(given, expected, plan, "float32")


def test_where_rounding_decides_a_sample_says_nothing():
    scores = [[5.0, 5.0 + 1e-6, 1.0], [5.0, 4.0, 1.0], [1.0, 2.0, 3.0]]
    found = settled(scores, [[0, 1], [1, 0], [2, 1]], [[1, 0], [0, 1], [2, 1]])
    np.testing.assert_array_equal(found["g/classes"], [[1, 0], [1, 0], [2, 1]])
    np.testing.assert_array_equal(found["g"][0], VALUES[0])
    np.testing.assert_array_equal(found["g"][1:], VALUES[1:] + 1)  # held to what they are


def test_channels_of_a_layer_are_as_good_by_their_sums_over_positions():
    """What is no prediction is asked for, and where it is not known nothing is settled."""
    scores = np.float32([[[3, 2, 0], [2, 3, 0]], [[3, 2, 0], [2, 2, 0]], [[1, 2, 9], [0, 1, 0]]])
    target = TargetPlan(TargetSpec("top", layer="l", count=2))
    output = GradientOutput(spec(mode="top"), TensorRef(None), None, beside=(CLASSES,))
    plan = Plan((), (GradientGroup(target, (output,)),), Described())
    expected = {"g/classes": np.array([[0, 1], [0, 1], [2, 1]]), "g": VALUES}
    given = {"g/classes": np.array([[1, 0], [1, 0], [2, 1]]), "g": VALUES + 1}
    found = with_ties_settled(given, expected, plan, "float32", lambda: [scores])
    np.testing.assert_array_equal(found["g/classes"], [[0, 1], [1, 0], [2, 1]])
    np.testing.assert_array_equal(found["g"][0], VALUES[0])
    for unknown in (None, lambda: []):
        found = with_ties_settled(given, expected, plan, "float32", unknown)
        np.testing.assert_array_equal(found["g/classes"], given["g/classes"])


def test_a_class_that_is_not_there_is_no_tie():
    found = settled([[5.0, 4.0, 1.0]] * 3, [[0, 7]] * 3, [[0, 1]] * 3)
    np.testing.assert_array_equal(found["g/classes"], [[0, 7]] * 3)
