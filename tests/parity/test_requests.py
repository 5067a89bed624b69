"""The targets that an artefact with a `target` input is verified with."""

import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.errors import InputError
from probegen.parity.requests import drawn_targets
from probegen.parity.samples import ORDINARY, Batch

CLASSES = 3
SALIENCY = OutputSpec(
    "saliency/x",
    "saliency",
    "float32",
    (None, 5),
    ("batch", "feature"),
    target=TargetSpec("input", classes=CLASSES),
)
MANIFEST = Manifest(
    (InputSpec("x", "float32", (None, 5), ("batch", "feature")),), (SALIENCY,), target_input=True
)


def batch(size, source=()):
    return Batch({}, (ORDINARY,) * size, source)


def targets(target, size=4, source=(), seed=0):
    found = drawn_targets(MANIFEST, target, batch(size, source), np.random.default_rng(seed))
    assert found.dtype == np.int32
    assert found.shape == (size,)
    return found.tolist()


def test_drawn_targets_are_the_argmax_and_every_class():
    drawn = [targets(None, seed=seed) for seed in range(30)]
    assert all(row[0] == -1 for row in drawn)
    assert {t for row in drawn for t in row[1:]} == set(range(CLASSES))
    assert len({tuple(row) for row in drawn}) > 5


def test_one_target_is_that_of_every_sample():
    assert targets(2) == [2, 2, 2, 2]
    assert targets(np.int64(-1), size=2) == [-1, -1]


def test_targets_follow_their_samples():
    assert targets([2, 0, 1], size=3) == [2, 0, 1]
    assert targets([2, 0], size=5) == [2, 0, 2, 0, 2]
    assert targets([2, 0, 1], size=5, source=(1, 1, 2, 0, 1)) == [0, 0, 1, 2, 0]
    assert targets([2, 0, 1], size=1, source=(2,)) == [1]


@pytest.mark.parametrize("target", [1.5, "cat", [[0, 1]], [0.0, 1.0], True])
def test_what_is_no_class_is_refused(target):
    with pytest.raises(InputError, match="takes a class index or one for each sample, got"):
        targets(target)


def test_fewer_targets_than_samples_are_refused():
    with pytest.raises(InputError, match="target has 2 entries, and there are more samples"):
        targets([0, 1], size=3, source=(0, 1, 2))
