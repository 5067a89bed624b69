"""SmoothGrad: statistics of methods at noisy copies, against plain loops."""

import numpy as np
import pytest

import probegen as pg
from probegen.errors import SpecError
from probegen.methods import text_forms
from probegen.methods.noise import halves, keys_of_draws, normal_noise
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import NumpyWalk, Place, SumAt
from tests.methods.bent import Bent

OPS = NumpyOperations()
RNG = np.random.default_rng(3)
AXES = ("batch", "time", "channel")
PLACE = Place("x", AXES, ("x",), 1)
SHAPE = (2, 5, 3)
VALUE = RNG.normal(size=SHAPE)
BENT = Bent(RNG.normal(size=15))
SEVERAL = RNG.normal(size=(2, *SHAPE[1:]))


def explained(samples):
    return BENT.explained(samples, VALUE, PLACE)


def copies(count, share, seed, value=VALUE, tensor=1):
    """Noisy copies, one after the other."""
    spread = value.max((1, 2), keepdims=True) - value.min((1, 2), keepdims=True)
    numbers = halves(OPS, value, (1, 2))
    for draw in range(count):
        keys = [k[draw] for k in keys_of_draws(seed, count)]
        yield value + share * spread * normal_noise(OPS, numbers, keys, tensor)


def integrated(value, steps=3):
    found = [
        (value - b)
        * np.mean([BENT.gradient(b + (k + 0.5) / steps * (value - b)) for k in range(steps)], 0)
        for b in SEVERAL
    ]
    return np.mean(found, 0)


METHODS = {
    "input_gradient": ("input_gradient", BENT.gradient),
    "saliency": ("saliency", lambda x: np.abs(BENT.gradient(x)).max(2)),
    "integrated_gradients": (pg.IntegratedGradients(3, SEVERAL), integrated),
    "from a number": (
        pg.IntegratedGradients(1, 0.25),
        lambda x: (x - 0.25) * BENT.gradient((x + 0.25) / 2),
    ),
    "smooth_grad": (
        pg.SmoothGrad(2, 0.3, seed=9, of_method="saliency"),
        lambda x: np.mean([np.abs(BENT.gradient(c)).max(2) for c in copies(2, 0.3, 9, x)], 0),
    ),
}
STATISTICS = {
    "mean": lambda found: np.mean(found, 0),
    "square": lambda found: np.mean(np.square(found), 0),
    "variance": lambda found: np.var(found, 0),
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("method", METHODS)
def test_statistics_of_methods(method, statistic):
    asked, twin = METHODS[method]
    probe = pg.SmoothGrad(4, 0.2, seed=6, statistic=statistic, of_method=asked)
    expected = STATISTICS[statistic]([twin(c) for c in copies(4, 0.2, 6)])
    found = explained(probe.gradients_at())
    np.testing.assert_allclose(found, expected, atol=1e-10)
    axes, sizes = probe.result(AXES, SHAPE)
    assert found.shape == sizes
    assert len(axes) == found.ndim
    if statistic != "mean":
        assert found.min() >= 0


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_of_sums_is_a_sum(method):
    asked, _ = METHODS[method]
    samples = pg.SmoothGrad(3, 0.2, of_method=asked).gradients_at().of([PLACE])
    assert samples.is_sum == (method not in ("saliency", "smooth_grad"))
    raw = explained(SumAt(samples))
    walk = NumpyWalk(samples, VALUE, PLACE)
    if samples.is_sum:
        np.testing.assert_allclose(walk.of_sum(raw), explained(samples), atol=1e-12)
    else:
        assert walk.of_sum(raw) is None


def test_noise_is_a_share_of_each_samples_range_and_the_same_in_every_row():
    value = np.stack([VALUE[0], VALUE[0] * 10, np.full(SHAPE[1:], 3.0), VALUE[0]])
    walk = NumpyWalk(pg.SmoothGrad(3, 0.5).gradients_at().of([PLACE]), value, PLACE)
    for point in walk.points():
        moved = point.at - value
        np.testing.assert_allclose(moved[1], 10 * moved[0])
        np.testing.assert_array_equal(moved[2], 0)  # without a range there is no noise
        np.testing.assert_array_equal(moved[3], moved[0])
        assert np.abs(moved[0]).max() > 0


def test_what_is_the_same_at_all_copies_has_no_variance():
    probe = pg.SmoothGrad(7, 0.2, statistic="variance")
    walk = NumpyWalk(probe.gradients_at().of([PLACE]), VALUE, PLACE)
    for point in walk.points():
        walk.add(np.full(SHAPE, 0.1), point)
    np.testing.assert_array_equal(walk.finished(), 0)


def test_what_it_says_of_itself():
    plain, squared = pg.SmoothGrad(5, 0.1), pg.SmoothGrad(5, 0.1, 0, "square", "saliency")
    assert plain.described(AXES)["unit"] == "score per unit of input"
    assert plain.described(AXES)["sign"] == "signed"
    assert squared.described(AXES)["unit"] == "square of score per unit of input"
    assert squared.described(AXES)["sign"] == "never negative"
    assert "Hooker et al. 2019" in squared.described(AXES)["paper"]
    path = pg.SmoothGrad(5, 0.1, of_method=pg.IntegratedGradients(4, SEVERAL))
    assert path.described(AXES)["unit"] == "score"
    assert path.detail(AXES) == {
        "samples": 5,
        "noise": 0.1,
        "seed": 0,
        "statistic": "mean",
        "of_method": {
            "title": "Integrated gradients",
            "steps": 4,
            "baseline": {"shape": [2, 5, 3]},
            "rule": "midpoint",
        },
    }


def test_the_text_form_holds_the_method():
    probes = (
        pg.SmoothGrad(5, 0.1, of_method=pg.IntegratedGradients(4, SEVERAL), target=2),
        pg.SmoothGrad(5, 0.25, of_method=pg.Saliency()),
    )
    assert text_forms.from_json(text_forms.to_json(probes)) == probes
    assert probes[1].of_method == "saliency"
    assert text_forms.to_dict(probes[1])["of_method"] == "saliency"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.SmoothGrad(0), "samples= takes a whole number of at least 1"),
        (lambda: pg.SmoothGrad(1, statistic="variance"), "at least 2, got 1"),
        (lambda: pg.SmoothGrad(noise=-0.1), "noise= takes a share .* got -0.1"),
        (lambda: pg.SmoothGrad(noise="much"), "noise= takes a share"),
        (lambda: pg.SmoothGrad(statistic="median"), "statistic= takes one of 'mean'"),
        (lambda: pg.SmoothGrad(of_method="salience"), "'salience'.*Did you mean 'saliency'"),
        (lambda: pg.SmoothGrad(of_method="expected_gradients"), "that method needs background="),
        (lambda: pg.SmoothGrad(of_method=pg.GradCAM()), "takes a method that explains inputs"),
        (lambda: pg.SmoothGrad(of_method="lrp"), "got 'lrp', which passes relevance back"),
        (lambda: pg.SmoothGrad(of_method=3), "takes a method that explains inputs by gradients"),
        (lambda: pg.SmoothGrad(of_method=pg.Occlusion(2)), "takes a method that explains inputs"),
        (lambda: pg.SmoothGrad(of_method=pg.Saliency(target=2)), "target=2; give target= to pg.Sm"),
        (lambda: pg.SmoothGrad(of_method=pg.Saliency(name="s")), "give name= to pg.SmoothGrad its"),
    ],
)
def test_fields_are_checked(make, says):
    with pytest.raises(SpecError, match=says):
        make()
