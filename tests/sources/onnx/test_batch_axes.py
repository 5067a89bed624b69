"""Where the samples of a tensor lie, told from the sizes, holds for sizes that are run."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from probegen.graph.core.values import shape_of
from probegen.sources.onnx.batch_axes import SAMPLES, BatchAxes, regrouped
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, parse, run


def _followed(model, axis=0):
    read = read_onnx(model)
    (x,) = [v for v in read.model.graph.inputs if v.name == "x"]
    found = BatchAxes(read.model.graph, {x: axis}, (shape_of(x) or ())[axis])
    return read, found


def _by_name(read) -> Iterator[tuple[str, object]]:
    for node in read.model.graph:
        for value in node.outputs:
            yield str(value.name), value


def _axis_that_grows(model, name, axis, rows):
    """Returns how many times the samples each axis of a value holds, by running it."""
    proto = parse(model) if isinstance(model, str) else model
    del proto.graph.output[:]
    proto.graph.output.add().name = name
    shape = [d.dim_value or 5 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    sizes = []
    for n in rows:
        shape[axis] = n
        sizes.append(run(proto, {"x": np.zeros(shape, np.float32)})[name].shape)
    return sizes


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        # Heads: split off, joined with the samples, told apart again.
        ([(SAMPLES,), ("t",), (12,)], ("n", "t", 3, 4), [(SAMPLES,), ("t",), (3,), (4,)]),
        ([(SAMPLES,), (3,), ("t",), (4,)], (None, "t", 4), [(SAMPLES, 3), ("t",), (4,)]),
        ([(SAMPLES, 3), ("t",), (4,)], (None, 3, "t", 4), [(SAMPLES,), (3,), ("t",), (4,)]),
        # torch's: time in front, samples joined with heads behind it.
        ([("t",), (SAMPLES,), (12,)], ("t", None, 4), [("t",), (SAMPLES, 3), (4,)]),
        # Windows of an image.
        (
            [(SAMPLES,), (6,), (10,), (8,)],
            (None, 3, 2, 2, 5, 8),
            [(SAMPLES,), (3,), (2,), (2,), (5,), (8,)],
        ),
        ([(SAMPLES,), (3,), (2,), (7,), (8,)], (None, 7, 8), [(SAMPLES, 3, 2), (7,), (8,)]),
        # Sizes that are regrouped across one another.
        ([(SAMPLES,), (6,), (4,)], (None, 8, 3), [(SAMPLES,), (8,), (3,)]),
        # An open size that the file was traced at.
        ([("t",), (SAMPLES,), (12,)], (7, None, 4), [(7,), (SAMPLES, 3), (4,)]),
        ([(SAMPLES,), (1,), (5,)], ("n", 5), [(SAMPLES,), (5,)]),
        ([(SAMPLES,), (5,)], ("n", 1, 5), [(SAMPLES,), (1,), (5,)]),
        ([(SAMPLES,), ("t",), (4,)], (None, None, 4), [(SAMPLES,), ("t",), (4,)]),
        # Two open sizes, and one way of joining whole factors.
        ([(SAMPLES,), (4,), (16,), (9,)], (None, 16, None), [(SAMPLES, 4), (16,), (9,)]),
        ([(SAMPLES,), (2, 2), (4, 4), (9,)], (None, 16, None), [(SAMPLES, 2, 2), (4, 4), (9,)]),
        # Sizes that are products, and cut out of what is there.
        ([(SAMPLES,), (3,), ("t",), (4,)], ("3 * n", "t", 4), [(SAMPLES, 3), ("t",), (4,)]),
        ([(SAMPLES,), (6,), (4,)], ("2 * n", 3, None), [(SAMPLES, 2), (3,), (4,)]),
        ([("t",), (SAMPLES,), (4,)], ("n * t", 4), [("t", SAMPLES), (4,)]),
        ([(SAMPLES,), (5,), ("t",), (4,)], (None, 5, "4 * t"), [(SAMPLES,), (5,), ("t", 4)]),
        # All in one.
        ([(SAMPLES,), ("t",), (4,)], (None, 4), [(SAMPLES, "t"), (4,)]),
    ],
)
def test_reshapes(source, shape, expected) -> None:
    assert regrouped(tuple(source), shape, "n") == tuple(expected)


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        ([(SAMPLES,), (5,), (4,)], (3, None)),  # samples are cut into threes
        ([(SAMPLES,), (2,), ("t",), (9,)], ("2 * t", None)),  # time is joined, samples are not
        ([(SAMPLES,), (4,), (4,), (9,)], (None, 4, None)),  # which of the fours is it
    ],
)
def test_reshapes_that_cannot_be_told(source, shape) -> None:
    assert regrouped(tuple(source), shape, "n") is None


def test_one_sample_that_is_fixed_keeps_its_axis() -> None:
    fixed = ((SAMPLES,), (6,), (4,))
    assert regrouped(fixed, (1, 24), 1) == ((SAMPLES,), (6, 4))
    assert regrouped(fixed, (1, 4, 6), 1) == ((SAMPLES,), (4,), (6,))
    assert regrouped(((7,), (SAMPLES,), (4,)), (7, 1, 2, 2), 1) == ((7,), (SAMPLES,), (2,), (2,))
    assert regrouped(((SAMPLES,), (6,)), (18,), 3) == ((SAMPLES, 6),)


_ATTENTION = """
g (float[N,T,12] x) => (float[N,T,12] y) {
  q = Reshape(x, four)
  heads = Transpose<perm=[0,2,1,3]>(q)
  joined = Reshape(heads, three)
  turned = Transpose<perm=[0,2,1]>(joined)
  scores = MatMul(joined, turned)
  weights = Softmax(scores)
  mixed = MatMul(weights, joined)
  apart = Reshape(mixed, back)
  last = Transpose<perm=[0,2,1,3]>(apart)
  y = Reshape(last, whole)
}
"""


def _attention():
    """Heads joined with the samples, as torch's bmm has them, at 5 steps."""
    return add_weights(
        parse(_ATTENTION.replace("T,12", "5,12")),
        four=np.array([-1, 5, 3, 4]),
        three=np.array([-1, 5, 4]),
        back=np.array([-1, 3, 5, 4]),
        whole=np.array([-1, 5, 12]),
    )


def test_joined_heads_are_followed_and_told_apart() -> None:
    read, found = _followed(_attention())
    values = dict(_by_name(read))
    assert found.factors(values["weights"]) == ((SAMPLES, 3), (5,), (5,))
    assert found.axis(values["weights"]) is None
    assert found.joined(values["weights"]) == 0
    assert found.axis(values["heads"]) == 0
    assert found.axis(values["last"]) == 0
    assert found.joined(values["last"]) is None
    assert _axis_that_grows(_attention(), "weights", 0, (2, 7)) == [(6, 5, 5), (21, 5, 5)]


_LITERAL = """
g (float[N,T,12] x) => (float y) {
  q = Reshape(x, four)
  heads = Transpose<perm=[0,2,1,3]>(q)
  sizes = Shape(x)
  n, t, rest = Split<axis=0, num_outputs=3>(sizes)
  all = Mul(n, three)
  target = Concat<axis=0>(all, minus, last)
  joined = Reshape<allowzero=1>(heads, target)
  end = Squeeze(t)
  steps = Range(zero, end, one)
  floats = Cast<to=1>(steps)
  column = Unsqueeze(floats, outer)
  moved = Mul(joined, column)
  y = Tanh(moved)
}
"""


def test_joined_heads_are_followed_through_what_torch_writes_for_open_sizes() -> None:
    """A target that is taken literally (its exporter's `allowzero`), and a table over the steps."""
    model = add_weights(
        parse(_LITERAL),
        four=np.array([0, 0, 3, 4]),
        outer=np.array([0, 2]),
        **{name: np.array([n]) for name, n in (("three", 3), ("minus", -1), ("last", 4))},
        **{name: np.array(n) for name, n in (("zero", 0), ("one", 1))},
    )
    read, found = _followed(model)
    values = dict(_by_name(read))
    assert found.factors(values["column"]) is None
    for name in ("joined", "moved", "y"):
        assert found.factors(values[name]) == ((SAMPLES, 3), ("T",), (4,)), name
        assert not found.is_lost(values[name])


_EVERY = """
g (float[N,4,6,5] x) => (float[N,M] y) {
  conv = Conv<kernel_shape=[3,3]>(x, w)
  turned = Transpose<perm=[2,0,3,1]>(conv)
  summed = ReduceSum<keepdims=0>(turned, two)
  wide = Unsqueeze(summed, one)
  slim = Squeeze(wide, one)
  picked = Gather<axis=2>(slim, three)
  both = Concat<axis=2>(picked, slim)
  added = Add(both, offset)
  most = ReduceMax<keepdims=0>(added, one)
  flat = Flatten<axis=1>(conv)
  product = MatMul(flat, m)
  same = Softmax(product)
  front = Slice(conv, zero, two, one)
  parts, rest = Split<axis=1, num_outputs=2>(conv)
  padded = Pad(conv, pads)
  grown = Einsum<equation="nchw,cd->dnhw">(conv, e)
  column = ReduceMean<keepdims=1>(product, one)
  larger = Expand(column, four)
  y = Concat<axis=1>(product, flat)
}
"""


_EVERY_NAME = (
    *("conv", "turned", "summed", "wide", "slim", "picked", "both", "added", "most", "flat"),
    *("product", "same", "larger", "front", "parts", "rest", "padded", "grown", "column", "y"),
)


@pytest.fixture(scope="module")
def every():
    rng = np.random.default_rng(0)

    def weights(*shape):
        return rng.normal(size=shape).astype(np.float32)

    model = parse(_EVERY)
    for name in _EVERY_NAME[:-1]:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(info)
    return add_weights(
        model,
        w=weights(2, 4, 3, 3),
        m=weights(24, 7),
        e=weights(2, 9),
        offset=weights(1, 1, 3),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        three=np.array([0]),
        four=np.array([1, 8]),
        pads=np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    )


@pytest.mark.parametrize("name", _EVERY_NAME)
def test_the_axis_is_the_one_that_grows_with_the_samples(every, name) -> None:
    first, second = _axis_that_grows(copy.deepcopy(every), name, 0, (11, 13))
    grows = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if (a, b) == (11, 13)]
    read, found = _followed(every)
    values = dict(_by_name(read))
    told = found.axis(values[name])
    assert ([] if told is None else [told]) == grows


def test_what_sums_over_the_samples_has_no_axis_of_them() -> None:
    read, found = _followed(
        parse(
            """
            g (float[N,3] x) => (float[3,3] y, float[N,N] z, float[1,3] mean) {
              t = Transpose<perm=[1,0]>(x)
              y = MatMul(t, x)
              z = MatMul(x, t)
              mean = ReduceMean<axes=[0]>(x)
            }""",
            opset=17,
        )
    )
    values = dict(_by_name(read))
    assert found.axis(values["y"]) is None
    assert found.axis(values["z"]) is None  # samples against samples
    assert found.axis(values["mean"]) is None


def test_recurrent_operators() -> None:
    model = add_weights(
        parse(
            """
            g (float[T,N,5] x) => (float[T,2,N,3] y, float[2,N,3] last) {
              y, last = GRU<hidden_size=3, direction="bidirectional">(x, w, r)
            }"""
        ),
        w=np.ones((2, 9, 5), np.float32),
        r=np.ones((2, 9, 3), np.float32),
    )
    read, found = _followed(model, axis=1)
    values = dict(_by_name(read))
    assert found.axis(values["y"]) == 2
    assert found.axis(values["last"]) == 1
