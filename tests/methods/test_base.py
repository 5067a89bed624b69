"""What all probes have in common: selectors, axes, what the manifest says."""

import pytest

import probegen as pg
from probegen.plan.making import make_plan
from probegen.sources import open_source
from tests import models


def test_axes_of_reductions():
    axes = ("batch", "time", "unit")
    assert pg.Activations("a", "mean", axes=(-1, 1, 2)).reduced_axes(axes) == (1, 2)
    assert pg.Activations("a", "mean", axes="channel").reduced_axes(axes) == (2,)
    assert pg.Activations("a", "mean", axes="spatial").reduced_axes(axes) == (1,)
    assert pg.Activations("a", "mean").kept_axes(axes) == (0, 1)
    assert pg.Activations("a").kept_axes(axes) == (0, 1, 2)
    with pytest.raises(pg.ProbegenError, match="does not fit the output of 'conv'"):
        pg.Activations("a", "mean", axes=-3).reduced_axes(axes, "conv")


def test_facts_for_the_manifest():
    axes = ("batch", "time", "unit")
    mean = pg.Activations("a", "max", axes=1, channels=(2, 0))
    expected = {"reduce": "max", "reduced_axes": ["time"], "channels": [2, 0]}
    assert mean.described(axes)["detail"] == mean.detail(axes) == expected
    assert pg.Activations("a").detail(axes)["channels"] is None
    saliency = pg.Saliency().described(axes)
    assert (saliency["kind"], saliency["sign"], saliency["draw"]) == (
        "saliency",
        "never negative",
        "map",
    )
    assert saliency["method"].endswith("(Simonyan et al. 2013, sec. 3.1)")
    assert pg.GradCAM().kept_axes(("batch", "channel", "time")) == (0, 2)


def test_whether_an_attribution_is_the_gradient_itself():
    gradients = [pg.InputGradient(), pg.Saliency(), pg.GradCAM(), pg.IntegratedGradients(2)]
    assert [p.gives_gradient for p in gradients] == [True, False, False, False]


def test_selectors_are_kept_or_resolved():
    assert pg.IntegratedGradients(2, wrt="input").resolved(["x", "y"]).wrt == "input"
    assert pg.InputGradient(wrt="conv*").resolved(["conv1"]).wrt == ["conv1"]
    assert pg.Activations("b*").with_selector("c").select == "c"
    assert pg.GradCAM("b*").selector == "b*"


def test_specs_call_a_method_by_its_kind_or_as_it_says():
    class Odd(pg.Saliency):
        kind = "odd"

    class Named(pg.Saliency):
        kind, text_name = "odd", "strange"

    assert (Odd.text_name, Named.text_name) == ("odd", "strange")
    assert (pg.Saliency.text_name, pg.Activations.text_name) == ("saliency", "activations")


class Doubled(pg.InputGradient):
    """A method that adds an axis of two and halves the positions."""

    def result(self, axes, sizes, layer="the layer"):
        del layer
        return (axes[0], "concept", *axes[1:]), (
            sizes[0],
            2,
            *(None if d is None else d // 2 for d in sizes[1:]),
        )


def test_what_axes_and_sizes_come_out():
    axes, sizes = ("batch", "height", "width", "channel"), (None, 6, None, 4)
    left = ("batch", "height", "width")
    assert pg.Saliency().result(axes, sizes) == (left, (None, 6, None))
    assert pg.GradCAM().result(axes, sizes) == (left, (None, 6, None))
    assert pg.InputGradient().result(axes, sizes) == (axes, sizes)
    some = pg.Activations("a", channels=(3, 0))
    assert some.result(axes, sizes) == (axes, (None, 6, None, 2))
    mean = pg.Activations("a", "mean", axes="spatial", channels=3)
    assert mean.result(axes, sizes) == (("batch", "channel"), (None, 1))
    with pytest.raises(pg.ProbegenError, match=r"\[4\] are out of range; 'conv' has 4 channels"):
        pg.Activations("a", channels=(1, 4)).result(axes, sizes, "conv")
    with pytest.raises(pg.ProbegenError, match="the output of 'conv' has no channels; its axes"):
        pg.Activations("a", channels=(1,)).result(axes[:3], sizes[:3], "conv")


def test_a_plan_has_the_axes_and_sizes_that_a_method_says():
    model = models.cnn()
    plan = open_source(model).view
    spec = make_plan(plan, [Doubled()]).manifest.explanations[0]
    assert spec.axes == ("batch", "concept", "height", "width", "channel")
    assert spec.shape == (None, 2, 5, 4, 1)
