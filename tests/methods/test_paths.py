"""Points on lines from baselines: where they lie, and what is made of the gradients there."""

import numpy as np
import pytest

import probegen as pg
from probegen.errors import SpecError
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.paths import Drawn, Line, Lines
from probegen.methods.quadrature import RULES
from probegen.methods.samples import NumpyWalk, Place, SumAt
from tests.methods.bent import Bent

RNG = np.random.default_rng(3)
PLACE = Place("x", ("batch", "height", "width"), ("x",))
SHAPE = (2, 4, 3)
BENT = Bent(RNG.normal(size=12))
VALUE = RNG.normal(size=SHAPE)


def explained(samples):
    return BENT.explained(samples, VALUE, PLACE)


def by_hand(baseline, value, rule, steps):
    """Integrated gradients, a step after the other."""
    total = np.zeros_like(value)
    for fraction, weight in zip(*RULES[rule](steps), strict=True):
        total += weight * BENT.gradient(baseline + fraction * (value - baseline))
    return (value - baseline) * total


ONE, SEVERAL = RNG.normal(size=SHAPE[1:]), RNG.normal(size=(3, *SHAPE[1:]))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", [0.0, -0.75, ONE, SEVERAL, ONE[:, :1], SEVERAL[:, :1]])
def test_lines_from_every_baseline(baseline, rule):
    probe = pg.IntegratedGradients(5, baseline, rule)
    found = explained(probe.gradients_at())
    rows = baseline if np.ndim(baseline) == 3 else [baseline]
    expected = np.mean([by_hand(b, VALUE, rule, 5) for b in rows], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_the_sum_is_the_difference_of_the_scores(rule):
    missing = {}
    for steps in (20, 40):
        found = explained(pg.IntegratedGradients(steps, SEVERAL, rule).gradients_at())
        behind = np.mean([BENT.score(np.broadcast_to(b, SHAPE)) for b in SEVERAL], axis=0)
        missing[steps] = np.abs(found.sum((1, 2)) - (BENT.score(VALUE) - behind)).max()
    limit = 1e-9 if rule == "gauss_legendre" else 0.3 * missing[20] + 1e-12
    assert missing[40] < limit


def test_a_line_from_a_blurred_copy():
    from probegen.methods.baselines import blurred

    blur = blurred(NumpyOperations(), VALUE, PLACE.axes, 1.5)
    found = explained(pg.IntegratedGradients(6, "blur:1.5").gradients_at())
    np.testing.assert_allclose(found, by_hand(blur, VALUE, "midpoint", 6), atol=1e-10)


def test_tensors_of_one_probe_have_as_many_lines():
    other = Place("age", ("batch", "feature"), ("age",), 1)
    probe = pg.IntegratedGradients(2, {"x": SEVERAL, "age": 0.5})
    samples = probe.gradients_at().of([PLACE, other])
    assert isinstance(samples, Lines)
    assert len(samples.weights) == 6
    value = RNG.normal(size=(2, 5))
    walk = NumpyWalk(samples, value, other)
    points = list(walk.points())
    for k, point in enumerate(points):
        np.testing.assert_allclose(point.at, 0.5 + (0.25, 0.75)[k % 2] * (value - 0.5))
        np.testing.assert_allclose(walk.factor(point), value - 0.5)
        walk.add(np.full((2, 5), k), point)
    np.testing.assert_allclose(walk.finished(), (value - 0.5) * 2.5)


def test_the_raw_sum_and_what_is_made_of_it():
    line = Line((0.25, 0.75), (0.5, 0.5), 1.0)
    raw = NumpyWalk(SumAt(line).of([PLACE]), VALUE, PLACE)
    for point in raw.points():
        raw.add(BENT.gradient(point.at), point)
    whole = NumpyWalk(line, VALUE, PLACE)
    np.testing.assert_allclose(raw.finished() * (VALUE - 1), whole.of_sum(raw.finished()))
    np.testing.assert_allclose(whole.of_sum(raw.finished()), explained(line))
    several = Lines((0, 1), (0.5, 0.5), (0.5, 0.5), pg.IntegratedGradients(1, SEVERAL).baseline)
    assert SumAt(several).of_sum(NumpyOperations(), VALUE, VALUE, PLACE, ()) is VALUE


# -- draws -------------------------------------------------------------------------------------


def test_draws_are_even():
    probe = pg.ExpectedGradients(SEVERAL, 10, seed=4)
    samples = probe.gradients_at().of([PLACE])
    assert np.bincount(samples.rows).tolist() in ([3, 3, 4], [3, 4, 3], [4, 3, 3])
    for row in range(3):
        pairs = zip(samples.rows, samples.fractions, strict=True)
        own = [fraction for r, fraction in pairs if r == row]
        assert [int(f * len(own)) for f in own] == list(range(len(own)))
    assert samples.weights == (0.1,) * 10
    assert probe.gradients_at().of([PLACE]) == samples
    other = pg.ExpectedGradients(SEVERAL, 10, seed=5).gradients_at().of([PLACE])
    assert (samples.rows, samples.fractions) != (other.rows, other.fractions)


def test_draws_are_in_expectation_the_mean_over_lines():
    behind = np.mean([BENT.score(np.broadcast_to(b, SHAPE)) for b in SEVERAL], axis=0)
    wanted = np.mean([by_hand(b, VALUE, "gauss_legendre", 40) for b in SEVERAL], axis=0)
    runs = np.stack([explained(Drawn(12, seed, _array(SEVERAL))) for seed in range(200)])
    error = runs.std(0) / np.sqrt(len(runs))
    assert (np.abs(runs.mean(0) - wanted) < 5 * error + 1e-12).all()
    many = explained(Drawn(3000, 0, _array(SEVERAL)))
    np.testing.assert_allclose(many.sum((1, 2)), BENT.score(VALUE) - behind, rtol=0.02)


def _array(values):
    return pg.ExpectedGradients(values, 1).background


# -- fields ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.IntegratedGradients(0), "steps= takes a whole number of at least 1"),
        (lambda: pg.IntegratedGradients(2.0), "steps= takes a whole number"),
        (lambda: pg.IntegratedGradients(1, rule="trapezoid"), "at least 2, got 1"),
        (lambda: pg.IntegratedGradients(rule="simpson"), r"rule= takes one of 'midpoint'"),
        (lambda: pg.IntegratedGradients(baseline="black"), "baseline= takes a finite number"),
        (lambda: pg.IntegratedGradients(baseline=[1, np.nan]), "NaN or infinite"),
        (lambda: pg.ExpectedGradients(0.0), r"background= takes an array of samples, \[n"),
        (lambda: pg.ExpectedGradients("blur"), "background= takes an array of samples"),
        (lambda: pg.ExpectedGradients([[1.0]], 0), "samples= takes a whole number of at least 1"),
        (lambda: pg.ExpectedGradients([[1.0]], seed=-1), "seed= takes a whole number of at leas"),
    ],
)
def test_fields_are_checked(make, says):
    with pytest.raises(SpecError, match=says):
        make()


def test_what_the_manifest_says():
    probe = pg.IntegratedGradients(3, {"x": "blur:2", "age": SEVERAL}, "gauss_legendre")
    assert probe.detail(()) == {
        "steps": 3,
        "baseline": {"x": {"blur": 2.0}, "age": {"shape": [3, 4, 3]}},
        "rule": "gauss_legendre",
    }
    assert pg.ExpectedGradients(SEVERAL, 7, seed=2).detail(()) == {
        "samples": 7,
        "seed": 2,
        "background": {"shape": [3, 4, 3]},
    }
