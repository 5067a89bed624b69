"""Slopes of scores, and what a path with a point on a kink says."""

from __future__ import annotations

import numpy as np
import pytest

import probegen as pg
from probegen.artefact.manifest import OutputSpec, TargetSpec
from probegen.parity.differences import Differences
from probegen.parity.slopes import Points
from probegen.parity.verdicts import OPEN, REFUTED
from probegen.plan.plan import GradientGroup, GradientOutput, TargetPlan, TensorRef

REF = TensorRef("x")


class Leaky:
    """`scores = leaky_relu(x J) W`: at 0 all units stand on their kinks; float64."""

    J = np.random.default_rng(5).normal(size=(6, 9))
    W = np.random.default_rng(6).normal(size=(9, 3))
    SLOPE = 0.3

    def at(self, feed, shifts):
        x = (feed["x"] + shifts.get(REF, 0.0)) @ self.J
        return [np.where(x > 0, x, self.SLOPE * x) @ self.W], {REF: feed["x"]}

    holding_masks = at

    def gradient(self, x):
        """Returns that of the last score, with the slope below 0 at 0 as well."""
        return (np.where(x @ self.J > 0, 1.0, self.SLOPE) * self.W[:, 2]) @ self.J.T


@pytest.mark.parametrize("steps", [3, 9])
def test_a_kink_at_the_start_of_a_path_refutes_no_gradient_that_is_right(steps):
    """The trapezoid rule takes a gradient at the baseline 0, where slopes are of both sides."""
    output = GradientOutput(
        OutputSpec("ig", "integrated_gradients", "float64", (None, 6), ("batch", "feature")),
        REF,
        pg.IntegratedGradients(steps=steps, rule="trapezoid"),
        ("batch", "feature"),
    )
    group = GradientGroup(TargetPlan(TargetSpec("index", (2,))), (output,), None)
    leaky, x = Leaky(), np.random.default_rng(1).normal(size=(40, 6))
    weights = np.array([0.5, *[1.0] * (steps - 2), 0.5]) / (steps - 1)
    shares = np.linspace(0, 1, steps)
    right = sum(w * leaky.gradient(x * share) for w, share in zip(weights, shares, strict=True))
    differences = Differences(leaky, [group])
    said = {
        name: differences.verdicts({"x": x}, None, group, output, {name: claim})[name]
        for name, claim in {"right": right, "twice": 2 * right, "of 0": right * 0}.items()
    }
    assert REFUTED not in said["right"]
    assert steps == 3 or said["right"].count(OPEN) < 20
    assert said["twice"].count(REFUTED) > 30
    assert said["of 0"].count(REFUTED) > 15


def test_points_on_kinks_are_told_from_bends():
    """A bend looks the straighter the smaller the step; a kink that nobody stands on is none."""
    x = np.array([[0.6, -0.8, 0.3], [0.2, 0.1, -0.4]])

    def each(shift):
        moved = np.broadcast_to(x + shift, x.shape)
        bent = np.exp(3 * moved).sum(axis=1)
        kinked = np.abs(moved - [[0.6, 0.0, 0.0], [0.0, 0.0, 0.0]]) @ [1.0, 0.0, 0.0]
        return np.stack([bent, kinked])

    points = Points(each, x)
    assert len(points) == 2
    up = np.broadcast_to([1.0, 0.0, 0.0], x.shape)
    slopes = {1e-4: points.slopes(up, 1e-4)}
    assert points.on_kinks.tolist() == [True, False]
    wide = points.with_kinks(up, slopes)[1e-4]
    np.testing.assert_allclose(wide.ahead - wide.behind, [2, 0], atol=1e-2)
    np.testing.assert_allclose(slopes[1e-4].ahead[1], 3 * np.exp(0.6) + 1, rtol=1e-3)
