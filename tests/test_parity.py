"""The comparison behind `verify`: what passes and what does not."""

from types import SimpleNamespace

import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.parity import compare, generate_samples
from probegen.plan.axes import complete, input_axes

RNG = np.random.default_rng(0)
REFERENCE = RNG.standard_normal((5, 7, 3)).astype("float32")


def output(kind, dtype="float32"):
    return OutputSpec("o", kind, dtype, (None, 7, 3), ("batch", "a", "b"))


def test_equal_arrays_agree_exactly():
    parity = compare(output("saliency"), REFERENCE, REFERENCE)
    assert (parity.max_abs, parity.max_rel, parity.passed) == (0, 0, True)
    assert parity.cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "error", "passed"),
    [
        ("prediction", 5e-5, True),
        ("prediction", 5e-4, False),
        ("attention", 5e-4, False),
        ("saliency", 5e-4, True),
        ("saliency", 5e-3, False),
    ],
)
def test_limits(kind, error, passed):
    largest = np.abs(REFERENCE).reshape(5, -1).max(1)[:, None, None]
    assert compare(output(kind), REFERENCE + error * largest, REFERENCE).passed is passed


def test_mixed_precision_widens_the_limit_of_float32_outputs():
    got = REFERENCE * (1 + 2e-3)
    assert not compare(output("prediction"), got, REFERENCE).passed
    assert compare(output("prediction"), got, REFERENCE, computed_in="float16").passed
    assert not compare(output("prediction"), 1.1 * REFERENCE, REFERENCE, 0, "float16").passed
    exact = output("prediction", "int32")
    assert not compare(exact, np.array([[1]]), np.array([[2]]), 0, "float16").passed


def test_a_tipped_gate_in_one_sample_passes_in_a_gradient_only():
    got = REFERENCE.copy()
    got[2, 3, 1] += 0.3
    tipped = np.array([0, 0, 0.03, 0, 0])  # what the reference moves by, in the Euclidean norm
    assert not compare(output("saliency"), got, REFERENCE).passed
    assert compare(output("saliency"), got, REFERENCE, moved=tipped).passed
    assert not compare(output("saliency"), got, REFERENCE, moved=np.roll(tipped, 1)).passed
    assert not compare(output("activation"), got, REFERENCE, moved=tipped).passed


def test_gradients_are_held_to_what_their_own_noise_allows_and_no_more():
    got = REFERENCE.copy()
    got[:, 4, 0] += 0.1
    distance = compare(output("saliency"), got, REFERENCE).l2_rel
    assert not compare(output("saliency"), got, REFERENCE).passed
    assert compare(output("saliency"), got, REFERENCE, moved=distance / 2).passed
    assert not compare(output("saliency"), got, REFERENCE, moved=distance / 4).passed
    assert not compare(output("saliency"), 1.2 * REFERENCE, REFERENCE, moved=1.0).passed


def test_a_gradient_that_points_elsewhere_fails_even_in_one_sample():
    got = REFERENCE.copy()
    got[4] = -got[4]
    assert not compare(output("saliency"), got, REFERENCE).passed


def test_an_error_in_every_sample_fails_however_local():
    got = REFERENCE.copy()
    got[:, 0, 0] += 0.2
    assert not compare(output("saliency"), got, REFERENCE).passed


def test_shapes_and_nan():
    assert not compare(output("saliency"), REFERENCE[:, :3], REFERENCE).passed
    broken = REFERENCE.copy()
    broken[0, 0, 0] = np.nan
    assert not compare(output("prediction"), broken, REFERENCE).passed
    assert compare(output("prediction"), broken, broken).passed


def test_zero_references():
    zero = np.zeros_like(REFERENCE)
    assert compare(output("saliency"), zero, zero).passed
    assert not compare(output("saliency"), zero + 0.1, zero).passed


def sizes_drawn(**shapes):
    """Returns the sizes, without the batch, of samples for float inputs of these sizes."""
    inputs = [
        InputSpec(
            name, "float32", (None, *sizes), input_axes(complete([None] * (1 + len(sizes))), False)
        )
        for name, sizes in shapes.items()
    ]
    drawn = generate_samples(SimpleNamespace(inputs=inputs), np.random.default_rng(0))
    return {name: value.shape[1:] for name, value in drawn.items()}


def test_lengths_of_inputs_that_go_together_agree():
    together = sizes_drawn(frames=(None, 20, 1), weights=(None, 4), mask=(None, None))
    assert together["frames"][0] == together["weights"][0] == together["mask"][0]
    assert together["mask"][0] == together["mask"][1]


def test_images_are_larger_than_sequences_are_long():
    alone, both = (
        sizes_drawn(image=(None, None, 3)),
        sizes_drawn(image=(None, None, 3), s=(None, 4)),
    )
    assert alone["image"] == both["image"]
    assert min(alone["image"][:2]) > both["s"][0]
    assert sizes_drawn(image=(None, 20, 3))["image"][0] == alone["image"][0]
