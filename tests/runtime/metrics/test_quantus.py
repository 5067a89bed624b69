"""Quantus on the same arrays gives the same figures; runs where it is installed."""

import numpy as np
import pytest

from probegen.runtime import metrics
from tests.runtime.metrics.conftest import images

quantus = pytest.importorskip("quantus")

NAME = "input_gradient/image"
CLASSES = np.array([3, 0, 2])
QUIET = {"disable_warnings": True, "display_progressbar": False}


class Network:
    """What Quantus asks of a model; remembers what it was asked for."""

    def __init__(self, plain):
        self.plain, self.seen = plain, []

    def predict(self, x):
        self.seen.append(np.array(x))
        return self.plain(x)

    @staticmethod
    def shape_input(x, *_, **__):
        return x


@pytest.fixture
def attributed(chosen):
    """Images, and the attribution of each position."""
    x = images(3)
    return x, chosen.run(x, target=CLASSES)[NAME].array.sum(1)


def test_sparseness(chosen, attributed):
    x, _ = attributed
    heat = np.abs(chosen.run(x, target=CLASSES)[NAME].array.astype(float))
    # They add 1e-7 to every magnitude, which is much where gradients vanish: scaled up before.
    heat /= heat.max((1, 2, 3), keepdims=True)
    theirs = quantus.Sparseness(**QUIET).evaluate_batch(x_batch=x, a_batch=heat)
    ours = metrics.sparseness(chosen, x, NAME, target=CLASSES)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_pointing_game(chosen, attributed):
    x, heat = attributed
    for seed in range(4):
        masks = np.random.default_rng(seed).random((3, 5, 7)) > 0.6
        theirs = quantus.PointingGame(**QUIET).evaluate_batch(
            a_batch=heat[:, None], s_batch=masks[:, None]
        )
        ours = metrics.pointing_game(chosen, x, NAME, masks=masks, target=CLASSES)
        assert ours.tolist() == np.asarray(theirs, float).tolist()


def test_pixel_flipping_is_the_curve_of_deletion(chosen, attributed, plain):
    """They leave the score of the whole sample out, and count steps where we count shares."""
    x, heat = attributed
    metric = quantus.PixelFlipping(
        features_in_step=5, perturb_baseline=0.0, return_auc_per_sample=False, **QUIET
    )
    # They flip single numbers: here those of a mask that lies over all channels.
    network = Network(lambda mask: plain(x * mask))
    theirs = metric.evaluate_batch(
        model=network, x_batch=np.ones((3, 1, 5, 7)), y_batch=CLASSES, a_batch=heat[:, None]
    )
    curve = metrics.removal_curve(chosen, x, NAME, baseline=0.0, step=5 / 35, target=CLASSES)
    tail = metrics.Curve(curve.shares[1:] * 7, curve.scores[:, 1:])
    np.testing.assert_allclose(curve.scores[:, 1:], theirs, rtol=1e-5)
    np.testing.assert_allclose(tail.area, np.trapezoid(theirs, axis=1), rtol=1e-5)


def test_infidelity(chosen, attributed, plain):
    """For the changes that they make, one block after the other without taking any back."""
    x, _ = attributed
    gradient = chosen.run(x, target=CLASSES)[NAME].array
    metric = quantus.Infidelity(
        perturb_baseline=0.0, perturb_patch_sizes=[1], n_perturb_samples=1, **QUIET
    )
    network = Network(plain)
    theirs = metric.evaluate_batch(
        model=network, x_batch=x.copy(), y_batch=CLASSES, a_batch=gradient
    )
    changes = np.stack([x - seen for seen in network.seen[1:]])
    ours = metrics.infidelity(chosen, x, NAME, perturbations=changes, target=CLASSES)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_max_sensitivity(chosen, attributed, plain):
    x, _ = attributed
    points = []

    def explain(_model, value, classes):
        points.append(np.array(value))
        return chosen.run(value, target=classes)[NAME].array

    metric = quantus.MaxSensitivity(nr_samples=6, lower_bound=0.2, **QUIET)
    metric.explain_batch = explain
    first = chosen.run(x, target=CLASSES)[NAME].array
    theirs = metric.evaluate_batch(model=Network(plain), x_batch=x, y_batch=CLASSES, a_batch=first)
    ours = metrics.max_sensitivity(
        chosen, x, NAME, perturbations=np.stack(points) - x, target=CLASSES
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
