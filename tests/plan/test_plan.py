"""What a plan says of tensors, targets and what moves together."""

import numpy as np
import pytest

import probegen as pg
from probegen.artefact.manifest import OutputSpec, TargetSpec
from probegen.plan.plan import (
    MADE,
    TWIN,
    GradientGroup,
    GradientOutput,
    TargetPlan,
    TensorRef,
    moved_together,
)


def test_references():
    assert TensorRef(None, position=2).is_input
    assert not TensorRef(None, position=2, made=TWIN).is_input
    assert not TensorRef("a").is_input
    made = TensorRef("a", 3, 1, MADE)
    assert made.key == ("a", 3)
    assert made.slot == (MADE, ("a", 3), 1)
    assert TensorRef(None).key == ("", 0)


@pytest.mark.parametrize("order", [None, (1, 0, 2), (2, 0, 1)])
def test_scores_are_arranged_and_restored(order):
    target = TargetPlan(TargetSpec("argmax"), order=order)
    scores = np.arange(24).reshape(2, 3, 4)
    arranged = target.arranged(scores)
    np.testing.assert_array_equal(arranged, scores.transpose(order or (0, 1, 2)))
    np.testing.assert_array_equal(target.restored(arranged), scores)


def test_scores_of_a_single_sample():
    target = TargetPlan(TargetSpec("argmax"), order=(0, 2, 1), single=True)
    scores = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(target.arranged(scores), scores.T[None])
    np.testing.assert_array_equal(target.restored(target.arranged(scores)), scores)


def test_what_stands_for_inputs_moves_together_and_layers_alone():
    def output(name, probe, ref, *inputs):
        spec = OutputSpec(name, "x", "float32", (None, 3), ("batch", "unit"))
        return GradientOutput(spec, ref, probe, inputs=inputs)

    one, other, plain = pg.IntegratedGradients(4), pg.IntegratedGradients(4), pg.Saliency()
    outputs = (
        output("a", one, TensorRef(None, position=0), "x"),
        output("b", plain, TensorRef(None, position=0), "x"),
        output("c", one, TensorRef("a")),
        output("d", one, TensorRef(None, position=1), "y"),
        output("e", one, TensorRef("b")),
        output("f", other, TensorRef(None, position=0), "x"),
    )
    groups = moved_together(GradientGroup(TargetPlan(TargetSpec("argmax")), outputs))
    names = [[o.spec.name for o in group] for group in groups]
    assert names == [["a", "d"], ["c"], ["e"], ["f"]]
