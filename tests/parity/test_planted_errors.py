"""The verifier itself: planted errors are found, and right artefacts pass.

Outputs are real ones, of small random networks with ReLU and pooling gates, computed by numpy.
The "artefact" of a right answer sums in another order, as another engine does.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from probegen.artefact.manifest import OutputSpec
from probegen.parity.comparison import compare, judge, measure_rows
from probegen.parity.noise import moved, noisy_feeds

SHAPE, HIDDEN, GROUP, CLASSES = (7, 5, 3), 48, 4, 4
KINDS = ("prediction", "activation", "input_gradient", "saliency", "grad_cam")
SEEDS = range(7)


@dataclasses.dataclass(frozen=True)
class Network:
    """Dense, ReLU, maximum of groups, dense, softmax; all in `dtype`."""

    first: np.ndarray
    bias: np.ndarray
    second: np.ndarray
    dtype: str = "float32"

    @staticmethod
    def make(seed, dtype="float32", scale=1.0):
        rng = np.random.default_rng(seed)
        size = int(np.prod(SHAPE))
        return Network(
            rng.standard_normal((size, HIDDEN)) / np.sqrt(size),
            0.1 * rng.standard_normal(HIDDEN),
            scale * rng.standard_normal((HIDDEN // GROUP, CLASSES)),
            dtype,
        )

    def outputs(self, x, target=None, backwards=False):
        """Returns an array for each kind; `backwards` sums in the other order."""
        first, bias, second = (v.astype(self.dtype) for v in (self.first, self.bias, self.second))
        flat = x.reshape(len(x), -1).astype(self.dtype)
        before = total(flat[:, :, None] * first, 1, backwards) + bias
        hidden = np.maximum(before, 0)
        groups = hidden.reshape(len(x), -1, GROUP)
        best = groups.argmax(2)
        pooled = groups.max(2)
        logits = total(pooled[:, :, None] * second, 1, backwards)
        wanted = logits.argmax(1) if target is None else np.full(len(x), target)
        at_pooled = second.T[wanted]
        at_hidden = (np.arange(GROUP) == best[..., None]) * at_pooled[..., None]
        at_hidden = at_hidden.reshape(len(x), -1).astype(self.dtype) * (before > 0)
        gradient = total(at_hidden[:, :, None] * first.T, 1, backwards).reshape(x.shape)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        size = np.abs(gradient)
        return {
            "prediction": powers / powers.sum(1, keepdims=True),
            "activation": hidden,
            "input_gradient": gradient,
            "saliency": size.max(-1),
            "grad_cam": np.maximum((gradient.mean((1, 2), keepdims=True) * x).sum(-1), 0),
        }


def total(terms, axis, backwards):
    """Sums in a fixed order, one term after the other, so that rounding differs by the order."""
    terms = np.moveaxis(terms, axis, 0)
    sums = np.zeros_like(terms[0])
    for term in terms[::-1] if backwards else terms:
        sums = sums + term
    return sums


def spec(kind, dtype="float32"):
    return OutputSpec("o", kind, dtype, (None,), ("batch",))


def samples(seed, count=5):
    return np.random.default_rng(seed + 1000).standard_normal((count, *SHAPE)).astype("float32")


def judged(kind, got, network, x, **options):
    """Compares as `measure` does: where an output is in doubt, noise is measured as well."""
    expected = network.outputs(x)[kind]
    output = spec(kind, network.dtype)
    found = compare(output, got, expected, computed_in=network.dtype, **options)
    if found.passed:
        return found
    pair = noisy_feeds({"x": x}, network.dtype, np.random.default_rng(0), zeros=False)
    noise = moved(output, expected, got, [network.outputs(feed["x"])[kind] for feed in pair])
    exact = expected.reshape(len(x), -1).astype(float)
    size = np.linalg.norm(exact, axis=1) if output.is_attribution else np.abs(exact).max(1)
    size = np.where(size > 0, size, 1)
    return compare(
        output,
        got,
        expected,
        noise.by / size,
        network.dtype,
        beside=noise.beside / size,
        **options,
    )


# -- what is right passes ----------------------------------------------------------------------


def test_two_orders_of_summation_agree():
    cases = list(itertools.product(range(20), KINDS))
    wrong = []
    for seed, kind in cases:
        network, x = Network.make(seed), samples(seed)
        found = judged(kind, network.outputs(x, backwards=True)[kind], network, x)
        if not found.passed:
            wrong.append((seed, kind, found))
    assert len(cases) == 100
    assert not wrong


def test_gates_that_rounding_tips_agree():
    """The bias puts a gate of each sample within rounding of its edge."""
    tipped = 0
    for seed in range(20):
        network, x = Network.make(seed), samples(seed)
        flat = x.reshape(len(x), -1).astype("float32")
        before = total(flat[:, :, None] * network.first.astype("float32"), 1, False)
        bias = network.bias.copy()
        for row in range(len(x)):
            bias[row * 7] = -before[row, row * 7]
        network = dataclasses.replace(network, bias=bias)
        ours, other = network.outputs(x), network.outputs(x, backwards=True)
        for kind in KINDS[2:]:
            tipped += not np.allclose(ours[kind], other[kind], rtol=1e-3, atol=1e-5)
            found = judged(kind, other[kind], network, x)
            assert found.passed, (seed, kind, found)
    assert tipped > 5  # the case is what it says


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_element_types_agree(dtype):
    for seed, kind in itertools.product(SEEDS, KINDS):
        network, x = Network.make(seed, dtype), samples(seed)
        found = judged(kind, network.outputs(x, backwards=True)[kind], network, x)
        assert found.passed, (seed, kind, found)


def test_gradients_that_are_rounding_alone_agree():
    """One engine answers 0 where the other answers 1e-8, beside samples of ordinary size."""
    for seed in SEEDS:
        network, x = Network.make(seed), samples(seed)
        expected = network.outputs(x)["input_gradient"].copy()
        got = expected.copy()
        got[1] = 1e-8 * np.random.default_rng(seed).standard_normal(SHAPE)
        expected[1] = 0
        found = compare(spec("input_gradient"), got, expected)
        assert found.passed
        assert (found.below_floor, found.cosine) == (1, pytest.approx(1))
        assert compare(spec("input_gradient"), expected, got).passed
        assert not compare(spec("input_gradient"), 1e3 * got, expected).passed


@pytest.mark.parametrize("kind", ["input_gradient", "activation"])
def test_what_is_0_but_for_rounding_agrees_as_rounding_does(kind):
    """The reference is rounded by 1e-7 there, which may be all that it says."""
    rng = np.random.default_rng(0)
    expected, got = (1e-7 * rng.standard_normal((6, *SHAPE)) for _ in range(2))
    output, apart = spec(kind), expected.reshape(6, -1)
    rounding = np.linalg.norm(apart, axis=1) if output.is_attribution else np.abs(apart).max(1)

    def found(got, expected, rounding, **options):
        rows = measure_rows(output, got, expected)
        return judge(output, rows, rounding=rounding, computed_in="float32", **options)

    assert not found(got, expected, np.nan).passed
    assert found(got, expected, rounding).passed
    assert found(got, expected, rounding).below_floor == 6
    assert not found(10 * got, expected, rounding).passed
    lucky = np.where(np.arange(6) == 2, 0, rounding)  # what the others are rounded by tells it
    expected[2] = 0
    assert found(got, expected, lucky).passed
    # A sample that is more than its rounding is held to what it was.
    expected[4], got[4] = 1.0, 1.01
    assert not found(got, expected, np.where(np.arange(6) == 4, np.nan, lucky)).passed


def test_rare_events_agree_to_one_rounding_of_1():
    expected = np.array([[1.01e-5], [1.3e-5], [0.9e-5]], "float32")
    got = expected + np.float32(2e-8)
    assert not compare(spec("prediction"), got, expected).passed
    found = compare(spec("prediction"), got, expected, floor=1.2e-7)
    assert found.passed
    assert found.floor == 1.2e-7
    assert not compare(spec("prediction"), got * 1.1, expected, floor=1.2e-7).passed


# -- what is wrong is found --------------------------------------------------------------------


def scaled_sample(a, rng):
    a[rng.integers(len(a))] *= 10


def slightly_scaled_sample(a, rng):
    a[rng.integers(len(a))] *= 1.05


def scaled(a, _):
    a *= 1.02


def shifted_map(a, rng):
    row = rng.integers(len(a))
    a[row] = np.roll(a[row], 1, axis=0)


def swapped_axes(a, _):
    if a.ndim < 3:
        a[...] = a[:, ::-1]
    else:
        a[...] = np.swapaxes(a, 1, 2).reshape(a.shape)


def mirrored(a, _):
    a[...] = a[:, ::-1].copy()


def noise(a, rng):
    a += (1e-2 * np.abs(a).max() * rng.standard_normal(a.shape)).astype(a.dtype)


def one_nan(a, rng):
    a.reshape(-1)[rng.integers(a.size)] = np.nan


def one_infinity(a, rng):
    a.reshape(-1)[rng.integers(a.size)] = np.inf


def one_element(a, rng):
    a.reshape(-1)[rng.integers(a.size)] += 0.5 * np.abs(a).max()


def flipped_sign(a, rng):
    a[rng.integers(len(a))] *= -1


def zeroed_sample(a, rng):
    a[rng.integers(len(a))] = 0


def zeroed(a, _):
    a[...] = 0


def permuted_samples(a, _):
    a[...] = np.roll(a, 1, axis=0)


def first_sample_for_all(a, _):
    a[...] = a[:1].copy()


ERRORS = [
    scaled_sample, slightly_scaled_sample, scaled, shifted_map, swapped_axes, mirrored, noise,
    one_nan, one_infinity, one_element, flipped_sign, zeroed_sample, zeroed, permuted_samples,
    first_sample_for_all,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_planted_errors_are_found(kind):
    missed, planted = [], 0
    for seed, plant in itertools.product(SEEDS, ERRORS):
        network, x = Network.make(seed), samples(seed)
        right = network.outputs(x, backwards=True)[kind]
        wrong = right.copy()
        plant(wrong, np.random.default_rng(seed))
        if np.array_equal(wrong, right):
            continue  # a sample that is all zero cannot be scaled
        planted += 1
        if judged(kind, wrong, network, x).passed:
            missed.append((seed, plant.__name__))
    assert planted > 90
    assert not missed


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_wrong_class_is_found(kind):
    found = 0
    for seed in SEEDS:
        network, x = Network.make(seed), samples(seed)
        wrong = network.outputs(x, target=seed % CLASSES)[kind]
        if not np.array_equal(wrong, network.outputs(x)[kind]):  # not the class of all samples
            assert not judged(kind, wrong, network, x).passed
            found += 1
    assert found > len(SEEDS) / 2


def test_errors_are_found_beside_hard_samples_and_in_them():
    """Huge values in one sample excuse no other; a hard sample is judged like any where its
    reference stands still."""
    hard = [False, False, False, True, True]
    for seed, kind in itertools.product(SEEDS, KINDS):
        network, x = Network.make(seed), samples(seed)
        x[3] = 0
        x[4] *= 100
        right = network.outputs(x, backwards=True)[kind]
        assert judged(kind, right, network, x, hard=hard).passed, (seed, kind)
        for row in (0, 4):
            wrong = right.copy()
            wrong[row] *= 1.2
            if np.abs(right[row]).max():
                assert not judged(kind, wrong, network, x, hard=hard).passed, (seed, kind, row)
        for value in (np.nan, np.inf):
            wrong = right.copy()
            wrong[3].reshape(-1)[0] = value
            assert not judged(kind, wrong, network, x, hard=hard).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_the_reference_must_be_so_in_the_same_way(value):
    network, x = Network.make(0), samples(0)
    expected = network.outputs(x)["prediction"].copy()
    expected[2, 1] = value
    hard = [False, False, True, False, False]
    found = compare(spec("prediction"), expected, expected, hard=hard)
    assert found.passed
    assert found.non_finite == 1
    for other in (0.5, np.nan, np.inf, -np.inf):
        got = expected.copy()
        got[2, 1] = other
        same = other == value or (np.isnan(other) and np.isnan(value))
        assert compare(spec("prediction"), got, expected, hard=hard).passed == same
        assert compare(spec("saliency"), got, expected, hard=hard).passed  # left out, and counted


def test_an_error_is_placed():
    network, x = Network.make(0), samples(0)
    right = network.outputs(x)["saliency"]
    wrong = right.copy()
    wrong[3] *= 10
    found = compare(spec("saliency"), wrong, right)
    assert found.sample == "sample 3"
    assert found.worst == pytest.approx(9, rel=1e-3)
    assert found.l2_rel == 0  # the median saw nothing
    assert "sample 3" in found.fault()
