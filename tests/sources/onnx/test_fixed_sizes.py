"""Open sizes that can be one number alone are that number."""

import numpy as np
import pytest

from probegen.graph.core.values import shape_of
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_batch_that_a_state_tells(kind: str) -> None:
    gates = {"GRU": 3, "LSTM": 4}[kind]
    model = add_weights(
        parse(
            f"""
            g (float[time,batch,3] x) => (float[M] y) {{
              h, last = {kind}<hidden_size = 4>(x, w, r, , , state)
              y = Squeeze(h)
            }}"""
        ),
        w=hard(1, gates * 4, 3, seed=1),
        r=hard(1, gates * 4, 4, seed=2),
        state=np.zeros((1, 1, 4), np.float32),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = assert_same(model, {"x": hard(5, 1, 3)}, {"x": hard(2, 1, 3)}, tolerance=1e-5)
    assert shape_of(read.model.graph.inputs[0]) == ("time", 1, 3)
    assert read.notes == (
        f"The size 'batch' of the inputs is 1: {kind} 'h' has states for 1 alone.",
    )
    assert operators(read) == [kind, "Squeeze"]


def test_a_length_that_a_reshape_tells() -> None:
    """PyTorch's attention fixes how many keys there are, and no other length can be reshaped so."""
    model = parse(
        """
        g (float[batch,time,8] x) => (float[M, N, K] y) <int64 heads = {2}, int64[1] length = {6},
            int64[1] width = {4}, int64[1] first = {0}> {
          t = Transpose<perm = [1, 0, 2]>(x)
          rows = Shape<start = 1, end = 2>(t)
          both = Mul(rows, heads)
          keys = Concat<axis = 0>(length, both, width)
          apart = Reshape(t, keys)
          turned = Transpose<perm = [1, 2, 0]>(apart)
          queries = Transpose<perm = [1, 0, 2]>(apart)
          y = MatMul(queries, turned)
        }"""
    )
    read = assert_same(model, {"x": hard(3, 6, 8)}, {"x": hard(5, 6, 8)}, tolerance=1e-5)
    assert shape_of(read.model.graph.inputs[0]) == ("batch", 6, 8)
    assert read.notes == ("The size 'time' of the inputs is 6: Reshape 'apart' takes no other.",)


def test_a_length_that_a_reshape_tells_before_shapes_are_known() -> None:
    """PyTorch's self-attention computes where it puts an axis, and shapes behind it come later."""
    model = parse(
        """
        g (float[batch,time,8] x) => (float[M, N, K] y) <int64 heads = {2}, int64[1] length = {6},
            int64[1] width = {4}, int64[1] none = {0}, int64[1] seven = {7}, int64[1] four = {4}> {
          three = Mod(seven, four)
          t = Transpose<perm = [1, 0, 2]>(x)
          sizes = Shape(t)
          front = Slice(sizes, none, three)
          back = Slice(sizes, three, three)
          whole = Concat<axis = 0>(front, back)
          long = Reshape(t, whole)
          longer = Unsqueeze(long, none)
          same = Squeeze(longer, none)
          rows = Shape<start = 1, end = 2>(t)
          both = Mul(rows, heads)
          keys = Concat<axis = 0>(length, both, width)
          apart = Reshape(same, keys)
          turned = Transpose<perm = [1, 2, 0]>(apart)
          queries = Transpose<perm = [1, 0, 2]>(apart)
          y = MatMul(queries, turned)
        }"""
    )
    read = assert_same(model, {"x": hard(3, 6, 8)}, {"x": hard(5, 6, 8)}, tolerance=1e-5)
    assert shape_of(read.model.graph.inputs[0]) == ("batch", 6, 8)
    assert read.notes == ("The size 'time' of the inputs is 6: Reshape 'apart' takes no other.",)


@pytest.mark.parametrize("target", ["-1, 8", "0, 8", "4, -1"])
def test_what_fits_any_size_tells_none(target: str) -> None:
    model = parse(
        f"""g (float[batch,2,4] x) => (float[M, N] y) <int64[2] to = {{{target}}}> {{
          r = Reshape(x, to)
          y = Neg(r)
        }}"""
    )
    read = assert_same(model, {"x": hard(4, 2, 4)}, tolerance=1e-5)
    assert shape_of(read.model.graph.inputs[0]) == ("batch", 2, 4)
    assert not read.notes
