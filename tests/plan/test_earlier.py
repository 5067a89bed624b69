"""The names of layers that Keras numbered otherwise when the model was built before."""

import pytest

import probegen as pg
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.plan.earlier import new_names, with_earlier_names, with_new_names
from probegen.plan.plan import PlainOutput, TensorRef
from probegen.plan.points import ProbePoint


def points(*names):
    return [ProbePoint(n, "Dense", ("dense",), ((None, 3),), ("float32",)) for n in names]


def before(*names):
    spec = InputSpec("x", "float32", (None, 3), ("batch", "feature"))
    output = OutputSpec("y", "prediction", "float32", (None, 3), ("batch", "class"))
    return Manifest((spec,), (output,), points=names)


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (("a_3", "b"), ("a", "b"), {"a_3": "a"}),
        (("a", "block_1/a_2"), ("a_7", "block/a_2"), {"a": "a_7", "block_1/a_2": "block/a_2"}),
        (("a_3#0", "a_3#1"), ("a#0", "a#1"), {"a_3#0": "a#0", "a_3#1": "a#1"}),
        (("a", "b"), ("a", "b"), {}),
        (("a_3", "b"), ("a", "c"), {}),
        (("a_3",), ("a", "b"), {}),
        (("conv1",), ("conv2",), {}),
    ],
)
def test_a_model_is_the_same_if_numbers_differ_alone(then, now, expected):
    assert new_names(points(*now), before(*then)) == expected


def test_nothing_is_renamed_without_a_manifest():
    assert new_names(points("a"), None) == {}


def test_selectors_are_renamed():
    names = {"a_3": "a", "b": "b_1"}
    assert with_new_names(pg.Activations(["a_3", "c", "b"]), names).select == ["a", "c", "b_1"]
    assert with_new_names(pg.GradCAM(layer="a_3"), names).layer == "a"
    assert with_new_names(pg.Saliency(), names).wrt == "input"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("activation/a", "activation/a_3"),
        ("activation/a:1", "activation/a_3:1"),
        ("saliency/a/lookup", "saliency/a_3/lookup"),
        ("saliency/head/a", "saliency/head/a_3"),
        ("activation/ab", "activation/ab"),
        ("activation/block/a", "activation/block_2/a_5"),
        ("a", "a"),
    ],
)
def test_outputs_keep_their_names(name, expected):
    names = {"a_3": "a", "block_2/a_5": "block/a"}
    spec = OutputSpec(name, "activation", "float32", (None, 3), ("batch", "unit"))
    output = PlainOutput(spec, TensorRef("a"), pg.Activations("a"))
    assert [o.spec.name for o in with_earlier_names([output], names)] == [expected]
