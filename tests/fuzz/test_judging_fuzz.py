"""A row that comes out otherwise alone: what joins samples, and what is rounding at a tie."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

from fuzz.judging import FoundError, check_rows, check_rows_alone, distance, is_tie, moved
from fuzz.keras_trial import _mixes_slopes
from fuzz.keras_witness import Witness

SPEC = SimpleNamespace(
    name="y", kind="prediction", axes=("batch", "unit"), shape=(None, 2), dtype="float32", unit=""
)


class Artefact:
    """Gives what a function makes of a batch."""

    inputs = outputs = (SPEC,)
    manifest = SimpleNamespace(predictions=(SPEC,))

    def __init__(self, function):
        self.function = function

    def run(self, feed, **asked):
        del asked
        return {"y": SimpleNamespace(array=self.function(feed["y"]))}


def tipped(x):
    """A tie that is broken otherwise in the first row of each eight, and alone."""
    first = np.arange(len(x)) % 8 != (0 if len(x) == 1 else 1)
    return np.where(first[:, None], x, x[:, ::-1])


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: 2 * x, ""),
        (tipped, ""),
        (lambda x: x * (1 + (len(x) == 1)), "row alone"),
        (lambda x: x - x.mean(0), "among copies"),
    ],
)
def test_rows_alone(function, found):
    x = np.array([[1.0, 2.0], [0.5, -3.0], [2.0, 0.25]], np.float32)
    art = Artefact(function)
    result = art.run({"y": x})
    if not found:
        check_rows_alone(art, {"y": x}, result, "float32", {})
        return
    with pytest.raises(FoundError, match=found):
        check_rows_alone(art, {"y": x}, result, "float32", {})
    if found == "row alone":  # where rounding says what is explained of it, or is as large
        check_rows_alone(art, {"y": x}, result, "float32", {}, lambda spec: spec.name == "y")
        check_rows_alone(art, {"y": x}, result, "float32", {}, logits=[1e6 * x])


@pytest.mark.parametrize(
    ("scores", "tied"), [([1, 3, 3], True), ([1, 3, 2.99], False), ([2, 3, 3 - 1e-6], True)]
)
def test_the_best_score_is_tied(scores, tied):
    assert is_tie(np.array(scores), "float32") == tied
    assert not is_tie(np.array(scores[:1]), "float32")


@pytest.mark.parametrize("joined", [False, True])
def test_slopes_that_go_to_other_rows_are_mixed(joined):
    """Predictions stay as they are."""
    x = keras.Input((3,))
    mean = ops.mean(x, axis=0, keepdims=True)
    ahead = mean - ops.stop_gradient(mean) if joined else 0 * x
    y = layers.Dense(2)(ops.tanh(x + ahead))
    witness = Witness(keras.Model(x, y), [y])
    feed = [np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)]
    assert _mixes_slopes(witness, feed, "float32", 0) == joined


def test_a_step_that_equal_numbers_take_together_is_noise():
    """A maximum of 25 numbers is not moved where some of them jump, and is where all do."""
    x = np.full((2, 25), -3.0, np.float16)

    def highest(feed):
        return -np.ceil(feed[0].astype(np.float64)).max(axis=1, keepdims=True)

    below, above = (moved([x], "float16", draw) for draw in (4, 5))
    assert sorted(float(highest(feed)[0, 0]) for feed in (below, above)) == [2, 3]
    assert len(np.unique(below)) == len(np.unique(above)) == 1
    got, right = highest([x + np.float16(0.002)]), highest([x])

    def compared(again):
        check_rows("ceil", got, right, distance, 0.1, again)

    compared(lambda draw: highest(moved([x], "float16", draw)))
    with pytest.raises(FoundError, match="ceil differs in row 0"):
        compared(lambda _: right)
