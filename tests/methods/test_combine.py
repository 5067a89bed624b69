"""What each method makes of a gradient and a value, against numpy written out by hand."""

import numpy as np
import pytest

import probegen as pg
from probegen.methods.input_gradient import InputGradient
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.paths import Line
from probegen.methods.samples import NumpyWalk, Place, SumAt

OPS = NumpyOperations()
RNG = np.random.default_rng(4)
IMAGE = ("batch", "height", "width", "channel")
FIRST = ("batch", "channel", "height", "width")


def drawn(*shape):
    """Numbers with zeros, negatives and ties."""
    return RNG.integers(-3, 4, shape) / 2


def test_the_input_gradient_is_the_gradient():
    gradient = drawn(2, 3)
    probe = pg.InputGradient()
    assert probe.combine(OPS, gradient, drawn(2, 3), ("batch", "feature")) is gradient
    assert probe.gives_gradient
    assert probe.gradients_at() is None


@pytest.mark.parametrize(
    ("axes", "over"),
    [
        (("batch", "feature"), None),
        (("batch", "unit"), None),
        (("batch",), None),
        (("batch", "time", "embedding"), 2),
        (("batch", "channel", "time"), 1),
        (("batch", "height", "width"), None),
        (IMAGE, 3),
        (FIRST, 1),
    ],
)
def test_saliency_takes_the_maximum_over_channels_where_there_are_others(axes, over):
    gradient = drawn(*(2, 3, 4, 5)[: len(axes)])
    probe = pg.Saliency()
    expected = np.abs(gradient) if over is None else np.abs(gradient).max(over)
    found = probe.combine(OPS, gradient, None, axes)
    np.testing.assert_array_equal(found, expected)
    kept = probe.kept_axes(axes)
    assert kept == tuple(i for i in range(len(axes)) if i != over)
    assert tuple(gradient.shape[i] for i in kept) == found.shape
    assert not probe.gives_gradient


@pytest.mark.parametrize(("axes", "channel"), [(IMAGE, 3), (FIRST, 1)])
def test_grad_cam_weighs_channels_by_their_mean_gradient(axes, channel):
    gradient, value = drawn(2, 3, 4, 5), drawn(2, 3, 4, 5)
    maps = np.zeros(tuple(n for i, n in enumerate(value.shape) if i != channel))
    for k in range(value.shape[channel]):
        weight = gradient.take(k, channel).mean(axis=(1, 2))
        maps += weight[:, None, None] * value.take(k, channel)
    probe = pg.GradCAM()
    found = probe.combine(OPS, gradient, value, axes)
    np.testing.assert_allclose(found, np.where(maps > 0, maps, 0), atol=1e-12)
    assert (found == 0).any()
    assert (found > 0).any()
    assert [axes[i] for i in probe.kept_axes(axes)] == ["batch", "height", "width"]


def test_integrated_gradients_sample_the_middles_of_equal_pieces():
    probe = pg.IntegratedGradients(4, baseline=0.5)
    line = probe.gradients_at()
    assert line.fractions == (0.125, 0.375, 0.625, 0.875)
    assert line.weights == (0.25,) * 4
    value = drawn(2, 3)
    walk = NumpyWalk(line, value, Place("x", ("batch", "feature")))
    gradients = []
    for k, point in enumerate(walk.points()):
        np.testing.assert_allclose(point.at, 0.5 + (0.125 + 0.25 * k) * (value - 0.5))
        gradients.append(drawn(2, 3))
        walk.add(gradients[-1], point)
    np.testing.assert_allclose(walk.finished(), (value - 0.5) * np.mean(gradients, 0))
    assert not probe.gives_gradient
    assert probe.detail(("batch", "feature")) == {
        "steps": 4,
        "baseline": 0.5,
        "rule": "midpoint",
    }


def test_the_sum_at_the_points_of_a_method_is_no_more_than_that():
    value = drawn(2, 3)
    walk = NumpyWalk(SumAt(Line((0.0, 1.0), (0.25, 0.75))), value, Place())
    gradients = [drawn(2, 3), drawn(2, 3)]
    for gradient, point in zip(gradients, walk.points(), strict=True):
        walk.add(gradient, point)
    np.testing.assert_allclose(walk.finished(), 0.25 * gradients[0] + 0.75 * gradients[1])


REDUCED = {
    "whole": (pg.Activations("a"), lambda v: v, IMAGE),
    "mean": (pg.Activations("a", "mean"), lambda v: v.mean(3), IMAGE[:3]),
    "max": (
        pg.Activations("a", "max", axes="spatial"),
        lambda v: v.max((1, 2)),
        ("batch", "channel"),
    ),
    "norm": (
        pg.Activations("a", "norm", axes=(-2, 1)),
        lambda v: np.sqrt((v**2).sum((1, 2))),
        ("batch", "channel"),
    ),
    "some": (
        pg.Activations("a", "norm", channels=(4, 1)),
        lambda v: np.sqrt((v[..., [4, 1]] ** 2).sum(3)),
        IMAGE[:3],
    ),
}


@pytest.mark.parametrize("case", REDUCED)
def test_activations_are_given_out_reduced(case):
    probe, twin, kept = REDUCED[case]
    value = drawn(2, 3, 4, 5)
    np.testing.assert_allclose(probe.payload(OPS, value, IMAGE), twin(value))
    assert tuple(IMAGE[i] for i in probe.kept_axes(IMAGE)) == kept


def test_activations_refuse_axes_that_are_not_there():
    with pytest.raises(pg.ProbegenError, match=r"axes=\(4,\) does not fit the output of 'conv'"):
        pg.Activations("a", "mean", axes=(4,)).kept_axes(IMAGE, "conv")
    with pytest.raises(pg.ProbegenError, match=r"whose axes are 0 .batch., 1 .height."):
        pg.Activations("a", "mean").kept_axes(("batch", "height", "width"))


def test_definitions_name_their_source():
    assert InputGradient().definition(()) == "d target / d input (Baehrens et al. 2010, eq. 1)"
    assert pg.Activations("a").definition(IMAGE) == "output of the layer"
    mean = pg.Activations("a", "mean", axes="spatial").definition(IMAGE)
    assert mean == "mean of the layer's output over height, width"


def test_resolved_probes_hold_paths():
    assert pg.Saliency().resolved(["image"]).wrt == "input"
    assert pg.Saliency(wrt="re:a").resolved(["a", "b"]).wrt == ["a", "b"]
    assert pg.GradCAM().resolved(["conv"]).layer == "conv"
    assert pg.GradCAM().resolved(["conv#0", "conv#1"]).layer == ["conv#0", "conv#1"]
    assert pg.Activations("type:Conv2D").resolved(["a"]).select == ["a"]
