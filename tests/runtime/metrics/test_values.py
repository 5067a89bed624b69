"""Sparseness, pointing game, infidelity and max-sensitivity against their formulas."""

import warnings

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime import metrics
from tests import models
from tests.runtime.metrics.conftest import images, network

GRADIENT, SALIENCY, CAM = "input_gradient/image", "saliency/image", "grad_cam/b"


def gini(values):
    """Half the mean absolute difference of all pairs over the mean."""
    values = np.abs(values.astype(float).ravel())
    return np.abs(values[:, None] - values).mean() / (2 * values.mean())


@pytest.mark.parametrize("name", [GRADIENT, SALIENCY])
@pytest.mark.parametrize("batch", [1, 3])
def test_sparseness_is_the_gini_index(chosen, batch, name):
    x = images(batch)
    found = metrics.sparseness(chosen, x, name, target=2)
    heat = chosen.run(x, target=2)[name].array
    np.testing.assert_allclose(found, [gini(row) for row in heat], rtol=1e-6)


def test_sparseness_of_even_and_of_zero_maps(table):
    _, artefact = table
    x = np.zeros((2, 6), np.float32)
    x[1, 4] = 2.0
    found = metrics.sparseness(artefact, x, "integrated_gradients/row")
    np.testing.assert_allclose(found, [0.0, 5 / 6], atol=1e-6)


def test_pointing_game(chosen):
    x = images(3)
    heat = chosen.run(x, target=[0, 1, 2])[SALIENCY].array
    places = [np.unravel_index(row.argmax(), row.shape) for row in heat]
    masks = np.zeros((3, 5, 7), bool)
    masks[0][places[0]] = True
    far = [(i, j) for i in range(5) for j in range(7)
           if (i - places[1][0]) ** 2 + (j - places[1][1]) ** 2 == 4]  # fmt: skip
    masks[1][far[0]] = True
    pointed = {
        reach: metrics.pointing_game(
            chosen, x, SALIENCY, masks=masks, tolerance=reach, target=[0, 1, 2]
        ).tolist()
        for reach in (0, 1, 2)
    }
    assert [p[:2] for p in pointed.values()] == [[1, 0], [1, 0], [1, 1]]
    assert all(np.isnan(p[2]) for p in pointed.values())
    with pytest.raises(InputError, match=r"expected booleans \[3, 5, 7\]: batch, height, width"):
        metrics.pointing_game(chosen, x, SALIENCY, masks=np.ones((3, 7, 5)))
    with pytest.raises(InputError, match="tolerance is -1"):
        metrics.pointing_game(chosen, x, SALIENCY, masks=masks, tolerance=-1)


def test_pointing_game_of_a_coarse_map(keras_images):
    _, artefact = keras_images
    x = models.images((11, 8, 2))
    everywhere = np.ones((len(x), 11, 8))
    found = metrics.pointing_game(artefact, x, "grad_cam/conv2", masks=everywhere)
    assert found.tolist() == [1.0] * len(x)


@pytest.mark.parametrize("name", [GRADIENT, SALIENCY])
def test_infidelity_is_its_formula(chosen, plain, name):
    """For given changes, of an attribution of the input's shape and of one a position."""
    x, classes = images(3), np.array([1, 3, 0])
    changes = np.random.default_rng(4).normal(0, 0.3, (5, 3, 2, 5, 7)).astype(np.float32)
    heat = chosen.run(x, target=classes)[name].array.astype(float)
    heat = heat if heat.ndim == 4 else heat[:, None]
    rows = np.arange(3)
    errors = [
        ((heat * change).sum((1, 2, 3)) - (plain(x) - plain(x - change))[rows, classes]) ** 2
        for change in changes
    ]
    found = metrics.infidelity(chosen, x, name, perturbations=changes, target=classes)
    np.testing.assert_allclose(found, np.mean(errors, 0), rtol=1e-4)
    alike = metrics.infidelity(chosen, x, name, perturbations=changes[:, 0], target=classes)
    again = np.repeat(changes[:, :1], 3, 1)
    same = metrics.infidelity(chosen, x, name, perturbations=again, target=classes)
    np.testing.assert_array_equal(alike, same)


def test_infidelity_of_what_is_linear_is_zero(table):
    _, artefact = table
    x = np.random.default_rng(1).normal(size=(4, 6))
    assert (metrics.infidelity(artefact, x, "input_gradient/row") < 1e-11).all()
    assert (metrics.infidelity(artefact, x, "integrated_gradients/row") > 1e-4).all()


def test_scaled_infidelity_leaves_the_unit_out(chosen):
    """The scale of sec. 2.2 makes the error smallest, so that none is smaller."""
    x = images(2)
    free = metrics.infidelity(chosen, x, GRADIENT, scaled=True, target=1)
    assert (free <= metrics.infidelity(chosen, x, GRADIENT, target=1)).all()


def test_infidelity_warns_of_logits(highest, chosen):
    with pytest.warns(UserWarning, match="explains a logit, and the artefact predicts what"):
        metrics.infidelity(highest, images(1), GRADIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.infidelity(chosen, images(1), GRADIENT, target=0)


@pytest.mark.parametrize("relative", [False, True])
def test_max_sensitivity_is_its_formula(chosen, relative):
    x, classes = images(3), np.array([1, 3, 0])
    changes = np.random.default_rng(6).uniform(-0.2, 0.2, (4, 3, 2, 5, 7)).astype(np.float32)

    def heat(value):
        return chosen.run(value, target=classes)[GRADIENT].array.astype(float).reshape(3, -1)

    first = heat(x)
    norms = [np.linalg.norm(heat(x + change) - first, axis=1) for change in changes]
    expected = np.max(norms, 0) / (np.linalg.norm(first, axis=1) if relative else 1.0)
    found = metrics.max_sensitivity(
        chosen, x, GRADIENT, perturbations=changes, relative=relative, target=classes
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_max_sensitivity_of_slopes_that_do_not_change(table):
    _, artefact = table
    x = np.random.default_rng(1).normal(size=(4, 6))
    assert metrics.max_sensitivity(artefact, x, "input_gradient/row").tolist() == [0.0] * 4
    moved = metrics.max_sensitivity(artefact, x, "integrated_gradients/row", radius=0.5)
    assert (moved > 0.1).all()
    zero = metrics.max_sensitivity(artefact, np.zeros((1, 6)), "integrated_gradients/row")
    assert zero.tolist() == [np.inf]


def test_max_sensitivity_keeps_the_class(chosen, plain):
    """Without a target, the class is that of the sample, also where a change would flip it."""
    x = images(6, seed=8)
    classes = plain(x).argmax(1)
    flips = 3 * np.random.default_rng(9).normal(size=(4, 2, 5, 7))
    assert any((plain(x + flip).argmax(1) != classes).any() for flip in flips)
    found = metrics.max_sensitivity(chosen, x, GRADIENT, perturbations=flips)
    named = metrics.max_sensitivity(chosen, x, GRADIENT, perturbations=flips, target=classes)
    np.testing.assert_allclose(found, named, rtol=1e-6)


@pytest.mark.parametrize("metric", [metrics.infidelity, metrics.max_sensitivity])
def test_drawn_changes_repeat_and_belong_to_each_sample(chosen, metric):
    x = images(3)
    found = metric(chosen, x, GRADIENT, target=1)
    np.testing.assert_array_equal(found, metric(chosen, x, GRADIENT, target=1))
    alone = metric(chosen, x[1:2], GRADIENT, target=1)
    np.testing.assert_allclose(alone, found[1:2], rtol=1e-3)
    assert not np.allclose(found, metric(chosen, x, GRADIENT, target=1, seed=1), rtol=1e-3)


@pytest.mark.parametrize("metric", [metrics.infidelity, metrics.max_sensitivity])
def test_what_does_not_fit_is_refused(chosen, words, metric):
    x = images(2)
    for shape in ((3, 5, 7), (2,), (0, 2, 5, 7), (4, 3, 2, 5, 7)):
        with pytest.raises(InputError, match=r"expected \[n, 2, 5, 7\] for all samples alike"):
            metric(chosen, x, GRADIENT, perturbations=np.zeros(shape))
    with pytest.raises(InputError, match="not finite"):
        metric(chosen, x, GRADIENT, perturbations=np.full((1, 2, 5, 7), np.inf))
    for samples in (0, 1.5, True, "3"):
        with pytest.raises(InputError, match=r"samples is .* whole number, 1 or more"):
            metric(chosen, x, GRADIENT, samples=samples)
    name = words[1].manifest.explanations[0].name
    with pytest.raises(InputError, match=r"'tokens' \(int32\) holds whole numbers. Use deletion"):
        metric(words[1], models.tokens(), name)


def test_groups_of_the_request(place):
    """What needs groups is measured with them."""
    probes = [pg.FeatureAblation(groups="input", target="input"), pg.InputGradient(target="input")]
    pg.compile(network(), probes, place / "groups.onnx", verify=False)
    artefact = runtime.load(place / "groups.onnx", threads=1)
    x, groups = images(2), np.tile(np.arange(7) // 3, (2, 5, 1))
    name = "feature_ablation/image"
    heat = artefact.run(x, target=1, groups=groups)[name].array
    found = metrics.sparseness(artefact, x, name, target=1, groups=groups)
    np.testing.assert_allclose(found, [gini(row) for row in heat], rtol=1e-5)
    curve = metrics.removal_curve(artefact, x, name, step=0.5, target=1, groups=groups)
    assert curve.scores.shape == (2, 3)
    moved = metrics.max_sensitivity(artefact, x, name, samples=2, target=1, groups=groups)
    assert (moved > 0).all()
    best = runtime.maximise(artefact, target=[1, 2], groups=groups, steps=2)
    assert best.input.shape == x.shape
    with pytest.raises(InputError, match="takes groups"):
        metrics.sparseness(artefact, x, name, target=1)
