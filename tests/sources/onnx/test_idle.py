"""Pieces of size 0, which operators written out by onnx split off and join again."""

import numpy as np

import probegen as pg
from probegen import runtime
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse


def test_pieces_of_size_0() -> None:
    model = parse(
        """g (float[N,4,3] x) => (float[N,4,6] y, float[N,4,3] z) <int64[2] sizes = {4, 0},
            int64[2] uneven = {1, 3}> {
          whole, none = Split<axis = 1>(x, sizes)
          some, rest = Split<axis = 1>(whole, uneven)
          joined = Concat<axis = -2>(some, none, rest)
          y = Concat<axis = 2>(joined, x)
          z = Concat<axis = 1>(none, x)
        }"""
    )
    read = assert_same(model, {"x": hard(3, 4, 3)}, {"x": hard(1, 4, 3)})
    assert operators(read) == ["Split", "Concat", "Concat", "Identity"]


def test_all_features_are_turned(tmp_path) -> None:
    """The rotary embedding of opset 23 splits off those that are not, of which there are none."""
    weights = hard(6, 8, seed=1)
    cosines, sines = np.cos(hard(5, 2)), np.sin(hard(5, 2))
    model = add_weights(
        parse(
            """g (float[N,5,6] x) => (float[N,8] y) <int64[1] axis = {1},
                int64[1] five = {5}> {
              n = Shape<start = 0, end = 1>(x)
              sizes = Concat<axis = 0>(n, five)
              places = Expand(order, sizes)
              q = MatMul(x, weights)
              r = RotaryEmbedding<num_heads = 2, interleaved = 1>(q, cosines, sines, places)
              s = Mul(r, r)
              y = ReduceSum<keepdims = 0>(s, axis)
            }""",
            opset=23,
            ir_version=11,
        ),
        cosines=cosines,
        sines=sines,
        order=np.arange(5)[None],
        weights=weights,
    )
    probe = pg.IntegratedGradients(steps=3, target=3)
    pg.compile(model, probe, tmp_path / "m.onnx")
    x = hard(2, 5, 6, seed=2)
    found = runtime.load(tmp_path / "m.onnx").run(x)["integrated_gradients/x"].array
    # y is a sum of squares of linear functions, each of which the path's midpoints explain exactly.
    turned = sines[:, 1, None] * weights[:, 2] + cosines[:, 1, None] * weights[:, 3]
    linear = np.einsum("bti,ti->bt", x, turned)
    np.testing.assert_allclose(found, linear[..., None] * x * turned, rtol=1e-4, atol=1e-5)
