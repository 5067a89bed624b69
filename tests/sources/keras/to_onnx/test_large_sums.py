"""Which sums of float16 have to be rounded as the model rounds them."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.core.marks import ROUNDED
from probegen.graph.passes.after.round_noted_sums import round_noted_sums
from probegen.sources.keras.to_onnx.large_sums import note_large_sums
from tests.graph.passes.harness import onnxruntime_of, parsed

INPUTS = "float16[n, 3, 4] x, float16[n, 1, 4] m, bool[n, 1, 4] b"
HALF = {
    "large": np.float16(65504),
    "small": np.float16(500),
    "none": np.float16(0),
    "endless": np.float16(-np.inf),
    "some": np.array([[[0, -1e4, 0, 0]]], np.float16),
}


@pytest.mark.parametrize(
    ("body", "is_noted"),
    [
        ("y = Sub(x, large)", True),
        ("y = Add(some, x)", True),
        ("a = Mul(m, large) y = Add(x, a)", True),
        ("a = Where(b, none, large) y = Sub(x, a)", True),
        ("y = Sub(x, small)", False),
        ("y = Add(x, endless)", False),
        ("a = Relu(m) y = Add(x, a)", False),
        ("y = Mul(x, large)", False),
    ],
)
def test_sums_with_large_numbers_are_noted(body, is_noted):
    model = parsed(body, inputs=INPUTS, **HALF)
    note_large_sums(model.graph)
    assert [n.meta.get(ROUNDED, False) for n in model.graph][-1] == is_noted


def test_other_types_are_left_alone():
    model = parsed("y = Sub(x, c)", inputs="float[n, 3] x", c=np.float32(1e9))
    note_large_sums(model.graph)
    assert not model.graph[0].meta


def test_a_query_all_of_whose_keys_are_masked_weighs_them_alike():
    """As Keras does in float16: `AdditiveAttention` takes 65504 from the scores of masked keys."""
    body = "s = Sub(x, large) w = Where(b, s, x) y = Softmax(w)"
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float16)
    mask = np.array([[[True] * 4], [[True, False, True, False]]])
    found = []
    for is_noted in (False, True):
        model = parsed(body, inputs=INPUTS, **HALF)
        if is_noted:
            note_large_sums(model.graph)
        round_noted_sums(model)
        found.append(onnxruntime_of(model)({"x": x, "m": x[:, :1], "b": mask})[0])
    np.testing.assert_array_equal(found[1][0], np.full((3, 4), 0.25))
    assert np.abs(found[0][0] - 0.25).max() > 0.1
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2e-3)
