"""Slopes of saturated functions in float32, against numpy in float64."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from tests.graph.vjp.harness import differentiate, run

#: Where slopes are from 1 down to what float32 does not hold, and to both sides of each kink.
X = np.array([0, 1e-6, 0.3, 1, 3, 6, 8.9, 9.5, 12, 14.1, 16.9, 18, 25, 40, 70, 85], np.float32)
ENDS = np.array([100, 3e38, np.inf], np.float32)


def _of_sigmoid(x):
    bell = np.exp(-np.abs(x))
    return bell / (1 + bell) ** 2


#: Operator -> its slope in float64.
SLOPES = {
    "Sigmoid": _of_sigmoid,
    "Tanh": lambda x: 4 * _of_sigmoid(2 * x),
    "Softplus": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))),
    "Elu": lambda x: np.exp(np.minimum(x, 0)),
    "Elu <alpha = 0.5>": lambda x: np.where(x > 0, 1, 0.5 * np.exp(np.minimum(x, 0))),
    "Selu <alpha = 2.0, gamma = 0.5>": lambda x: np.where(x >= 0, 0.5, np.exp(np.minimum(x, 0))),
    "Celu <alpha = 2.0>": lambda x: np.exp(np.minimum(x, 0) / 2),
}


def _gradient(lines, x, dy, dtype="float"):
    """Returns the gradient at x of `y`, times dy, in float32."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({dtype}[N, M] x) => ({dtype}[N, M] y)'
        f"{{ {lines} }}"
    )
    made = differentiate(model, ["x"], ["y"]).model
    return run(made, {"x": x, "dy/y": dy}, need_kernels=True)["d/x"]


@pytest.mark.parametrize("op", SLOPES)
def test_slopes_of_saturated_functions_keep_their_digits(op):
    """`y (1 - y)` of a sigmoid was 0 from 17 on, and off by a tenth at 14."""
    x = np.stack([X, -X])
    name, _, attributes = op.partition(" ")
    dy = np.where(x > 1, -3, 2).astype(np.float32)
    found = _gradient(f"y = {name} {attributes} (x)", x, dy)
    np.testing.assert_allclose(found, dy * SLOPES[op](x.astype(np.float64)), rtol=3e-6, atol=1e-37)
    ends = np.stack([ENDS, -ENDS])
    found = _gradient(f"y = {name} {attributes} (x)", ends, np.ones_like(ends))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, SLOPES[op](ends.astype(np.float64)), atol=1e-37)


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Softplus"])
def test_slopes_in_float16(op):
    x = np.array([[-14, -9, -4, -0.5, 0, 0.5, 4, 9, 14]], np.float16)
    found = _gradient(f"y = {op} (x)", x, np.ones_like(x), "float16")
    # What is below 6e-5 has few digits there.
    np.testing.assert_allclose(found, SLOPES[op](x.astype(np.float64)), rtol=2e-3, atol=6e-8)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_the_gradient_at_the_winner_of_a_softmax(op):
    """It is a difference of two numbers that are nearly equal, and was their rounding."""
    x = np.array([[9, -8, 3, -2], [30, 2, -4, 1], [0.5, 0.1, -0.3, 0.2], [-60, 25, 0, -np.inf]])
    g = np.array([[1, 0, 0, 0], [0.7, -2, 0.4, 1], [1, 2, 3, -1], [0, 1, 0, 0]])
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    others = np.einsum("nj,njk->nk", p, g[:, None, :] - g[:, :, None])  # sum_j p_j (g_k - g_j)
    expected = p * others
    if op == "LogSoftmax":
        # g_k (sum of the other p) - p_k (sum of the other g)
        rest = np.array([[p[n, np.arange(4) != k].sum() for k in range(4)] for n in range(4)])
        expected = g * rest - p * (g.sum(1, keepdims=True) - g)
    found = _gradient(f"y = {op} <axis = 1> (x)", x.astype("f"), g.astype("f"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize(("op", "nodes"), [("Sigmoid", 3), ("Tanh", 3)])
def test_maps_that_a_convolution_reads_have_the_slope_from_the_result(op, nodes):
    """What sums up thousands of slopes sees no rounding of one, and has a convolution fused."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 4, 5] x, float[3, 2, 2, 2] w)
        => (float[N, 3, 3, 4] y) {{ a = {op} (x)  y = Conv (a, w) }}"""
    )
    made = differentiate(model, ["a"], ["y"]).written
    assert len(differentiate(model, ["x"], ["y"]).written) - len(made) == nodes
