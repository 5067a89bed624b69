"""Sizes of inputs that nobody named are one where an operator needs them to be."""

from __future__ import annotations

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.core.values import shape_of
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, hard, parse, run

_TWO = "float[unk__4,5] x, float[unk__9,{}] z"


def _first_sizes(body: str, other: str = "5", names: str = "unk__", **weights: object):
    inputs = _TWO.format(other).replace("unk__", names)
    model = parse(f"g ({inputs}) => (float[M,K] y) {{ {body} }}")
    return [
        (shape_of(v) or ())[0] for v in read_onnx(add_weights(model, **weights)).model.graph.inputs
    ]


@pytest.mark.parametrize(
    ("body", "other"),
    [
        ("y = Add(x, z)", "5"),
        ("y = Concat<axis=1>(x, z)", "3"),
        ("t = Transpose(x) y = MatMul(t, z)", "3"),
        ("y = Gemm<transA=1>(x, z)", "3"),
        # As factors of a product.
        ("t = Constant<value_ints=[-1]>() a = Reshape(x, t) b = Reshape(z, t) "
         "two = Constant<value_ints=[-1,5]>() c = Mul(a, b) y = Reshape(c, two)", "5"),
    ],
)  # fmt: skip
def test_sizes_that_meet_are_one(body: str, other: str) -> None:
    assert _first_sizes(body, other) == ["unk__4", "unk__4"]


@pytest.mark.parametrize("body", ["y = Concat<axis=0>(x, z)", "t = Transpose(z) y = MatMul(x, t)"])
def test_sizes_that_do_not_meet_stay_two(body: str) -> None:
    assert _first_sizes(body) == ["unk__4", "unk__9"]


def test_sizes_that_somebody_named_stay_two() -> None:
    assert _first_sizes("y = Add(x, z)", names="n") == ["n4", "n9"]


def test_two_inputs_of_tf2onnx_are_compiled(tmp_path) -> None:
    """Each input has a batch of its own name; verification feeds as many of both."""
    model = add_weights(
        parse(
            """
            g (float[unk__1,5] x, float[unk__2,7,3] z) => (float[unk__3,4] y) {
              a = MatMul(x, v)
              b = ReduceMean<keepdims=0>(z, one)
              c = MatMul(b, w)
              d = Mul(a, c)
              y = Tanh(d)
            }"""
        ),
        v=hard(5, 4),
        w=hard(3, 4, seed=1),
        one=np.array([1]),
    )
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=2)], str(path))
    art = runtime.load(path)
    assert [i.axes[0] for i in art.manifest.inputs] == ["batch", "batch"]
    for rows in (2, 5):
        feeds = {"x": hard(rows, 5), "z": hard(rows, 7, 3, seed=2)}
        result = art.run(feeds)
        y = run(model, feeds)["y"][:, 2]
        slope = 1 - y**2
        left, right = feeds["x"] @ hard(5, 4), feeds["z"].mean(1) @ hard(3, 4, seed=1)
        expected = (slope * right[:, 2])[:, None] * hard(5, 4)[:, 2]
        np.testing.assert_allclose(result["input_gradient/x"].array, expected, atol=1e-5)
        expected = (slope * left[:, 2])[:, None, None] * hard(3, 4, seed=1)[:, 2] / 7
        expected = np.broadcast_to(expected, (rows, 7, 3))
        np.testing.assert_allclose(result["input_gradient/z"].array, expected, atol=1e-5)
