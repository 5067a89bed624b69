"""What constants and shapes decide is computed before the walk."""

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.core.values import shape_of
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse


def test_reshape_to_an_open_batch() -> None:
    model = parse(
        """
        g (float[N,3,5] x) => (float[N,M] y) {
          shape = Shape(x)
          zero = Constant<value = int64 {0}>()
          batch = Gather<axis=0>(shape, zero)
          axes = Constant<value_ints = [0]>()
          batch1 = Unsqueeze(batch, axes)
          rest = Constant<value_ints = [-1]>()
          target = Concat<axis=0>(batch1, rest)
          y = Reshape(x, target)
        }"""
    )
    read = assert_same(model, {"x": hard(2, 3, 5)}, {"x": hard(7, 3, 5)})
    assert operators(read) == ["Reshape"]
    assert shape_of(read.model.graph.outputs[0]) == ("N", 15)


def test_known_sizes_are_computed_through_floats() -> None:
    """As exporters of old write the sizes of an upsampling."""
    model = parse(
        """
        g (float[N,2,3,5] x) => (float[N,2,H,W] y) {
          shape = Shape<start=2>(x)
          floats = Cast<to=1>(shape)
          two = Constant<value_float = 2.0>()
          scaled = Mul(floats, two)
          whole = Floor(scaled)
          sizes = Cast<to=7>(whole)
          front = Shape<end=2>(x)
          all = Concat<axis=0>(front, sizes)
          y = Resize<mode="nearest">(x, , , all)
        }"""
    )
    read = assert_same(model, {"x": hard(2, 2, 3, 5)}, {"x": hard(3, 2, 3, 5)})
    assert (shape_of(read.model.graph.outputs[0]) or ())[1:] == (2, 6, 10)
    assert "Floor" not in operators(read)


def test_pad_and_slice_bounds() -> None:
    model = parse(
        """
        g (float[N,7] x) => (float[N,M] y) {
          one = Constant<value_ints = [1]>()
          minus = Neg(one)
          top = Constant<value = int64 {9}>()
          start = Constant<value = int64 {2}>()
          step = Constant<value = int64 {3}>()
          range = Range(start, top, step)
          axes = Constant<value_ints = [0]>()
          ends = ReduceMax<keepdims=1>(range)
          cut = Slice(x, one, ends, one)
          ones = ConstantOfShape<value = int64[1] {2}>(one)
          nought = Constant<value_ints = [0]>()
          after = Concat<axis=0>(nought, minus, nought, ones)
          y = Pad(cut, after)
        }"""
    )
    read = assert_same(model, {"x": hard(2, 7)}, {"x": hard(5, 7)})
    assert operators(read) == ["Slice", "Pad"]
    assert shape_of(read.model.graph.outputs[0]) == ("N", 6 - 1 + 2)


def test_expand_as_torch_writes_it() -> None:
    """The shape is compared with -1, and 1 stands where it is -1: a size is never negative."""
    model = parse(
        """
        g (float[N,1,4] x, float[N,3,4] z) => (float[N,3,4] y) {
          shape = Shape(z)
          rank = Shape(shape)
          ones = ConstantOfShape<value = int64[1] {1}>(rank)
          minus = Constant<value = int64 {-1}>()
          asked = Mul(ones, minus)
          is = Equal(shape, asked)
          target = Where(is, ones, shape)
          wide = Expand(z, target)
          y = Add(wide, x)
        }"""
    )
    feeds = [{"x": hard(n, 1, 4), "z": hard(n, 3, 4, seed=1)} for n in (2, 5)]
    read = assert_same(model, *feeds)
    assert operators(read) == ["Add"]


@pytest.mark.parametrize(("repeats", "kept"), [(2, False), (4000, True)])
def test_large_results_are_not_stored(repeats: int, kept: bool) -> None:
    """An Expand of a stored value stays, where the result is much larger."""
    model = add_weights(
        parse(
            """
            g (float[N,6] x) => (float[M,6] y) {
              wide = Expand(w, shape)
              top = ReduceMax<keepdims=0>(wide)
              m = Mul(x, top)
              first = Slice(wide, zero, one)
              y = Add(m, first)
            }"""
        ),
        w=hard(1, 6),
        shape=np.array([repeats, 6]),
        zero=np.array([0]),
        one=np.array([1]),
    )
    read = assert_same(model, {"x": hard(2, 6)}, {"x": hard(5, 6)})
    assert ("Expand" in operators(read)) == kept
    stored = [v.const_value.nbytes for v in read.model.graph.initializers.values()]
    assert max(stored) <= 4096


def test_weights_that_others_read_are_not_stored_twice() -> None:
    weights = hard(70, 80)
    model = add_weights(
        parse(
            """
            g (float[N,80] x) => (float[N,70] y, float[N,80] z) {
              turned = Transpose<perm=[1,0]>(w)
              y = MatMul(x, turned)
              z = MatMul(y, w)
            }"""
        ),
        w=weights,
    )
    read = assert_same(model, {"x": hard(2, 80)}, tolerance=1e-4)
    assert operators(read) == ["Transpose", "MatMul", "MatMul"]
    del model.graph.output[1], model.graph.node[2]
    assert operators(assert_same(model, {"x": hard(2, 80)})) == ["MatMul"]


def test_constants_of_every_kind_and_as_outputs() -> None:
    model = parse(
        """
        g (float[N] x) => (float[N] y, float[2] c, int64[3] k) {
          f = Constant<value_float = 1.5>()
          i = Constant<value_int = 2>()
          i32 = Cast<to=1>(i)
          c = Constant<value_floats = [1.0, -2.0]>()
          a = Add(x, f)
          y = Mul(a, i32)
          k = Constant<value_ints = [3, 0, -4]>()
        }"""
    )
    read = assert_same(model, {"x": hard(2)}, {"x": hard(5)})
    assert [o.name for o in read.model.graph.outputs] == ["y", "c", "k"]
    assert "Constant" not in operators(read)


def test_names_of_values_stay() -> None:
    model = parse(
        """
        g (float[N,4] x) => (float[N,4] y) {
          two = Constant<value_float = 2.0>()
          three = Mul(two, two)
          h = Mul(x, three)
          y = Relu(h)
        }"""
    )
    read = assert_same(model, {"x": hard(3, 4)})
    graph: ir.Graph = read.model.graph
    assert [v.name for n in graph for v in n.outputs] == ["h", "y"]
    assert "three" in graph.initializers
    assert dict(read.node_names) == {"h": ("h",), "y": ("y",)}


def test_slices_that_take_all() -> None:
    model = parse(
        """
        g (float[N,7,T] x) => (float[N,3,T] y) {
          ends = Shape(x)
          zeros = Constant<value_ints = [0, 0, 0]>()
          whole = Slice(x, zeros, ends)
          first = Constant<value_ints = [0]>()
          n = Slice(ends, first, one)
          one = Constant<value_ints = [1]>()
          three = Constant<value_ints = [3]>()
          t = Slice(ends, two, three)
          two = Constant<value_ints = [2]>()
          mixed = Concat<axis = 0>(n, three, t)
          y = Slice(whole, zeros, mixed)
        }"""
    )
    order = [0, 1, 2, 3, 5, 4, 6, 8, 7, 9, 10]
    nodes = [model.graph.node[i] for i in order]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = assert_same(model, {"x": hard(2, 7, 4)}, {"x": hard(3, 7, 5)})
    (node,) = read.model.graph
    bounds = [v.const_value.numpy().tolist() for v in node.inputs[1:] if v is not None]
    assert bounds == [[0], [3], [1], [1]]
    assert shape_of(node.outputs[0]) == ("N", 3, "T")


def test_open_sizes_keep_their_names_and_are_looked_up_once() -> None:
    """As torch writes a projection of GPT-2: flattened, multiplied, and brought back."""
    text = "g (float[batch,time,6] x0, int64[batch,T] ids) => (float[batch,time,6] y) {\n"
    text += """
        minus = Constant<value_ints = [-1]>()
        six = Constant<value_ints = [6]>()
        axis = Constant<value_ints = [0]>()
        zero = Constant<value = int64 {0}>()
        one = Constant<value = int64 {1}>()
        flat = Concat<axis = 0>(minus, six)
    """
    for i in range(3):
        text += f"""
            shape{i} = Shape(x{i})
            n{i} = Gather(shape{i}, zero)
            t{i} = Gather(shape{i}, one)
            nn{i} = Unsqueeze(n{i}, axis)
            tt{i} = Unsqueeze(t{i}, axis)
            back{i} = Concat<axis = 0>(nn{i}, tt{i}, six)
            rows{i} = Reshape(x{i}, flat)
            made{i} = MatMul(rows{i}, w)
            x{i + 1} = Reshape(made{i}, back{i})
        """
    text += """
        steps = Range(zero, t0, one)
        floats = Cast<to = 1>(steps)
        column = Unsqueeze(floats, last)
        last = Constant<value_ints = [1]>()
        y = Add(x3, column)
    }"""
    model = add_weights(parse(text), w=hard(6, 6, seed=1))
    nodes = list(model.graph.node)
    nodes[-2], nodes[-3] = nodes[-3], nodes[-2]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    feeds = [{"x0": hard(n, t, 6), "ids": np.zeros((n, 1), np.int64)} for n, t in ((2, 5), (3, 4))]
    read = assert_same(model, *feeds, tolerance=1e-4)
    kinds = operators(read)
    assert kinds.count("Shape") == 2
    assert kinds.count("Concat") == kinds.count("Squeeze") == 1
    assert "Gather" not in kinds
    shapes = {str(v.name): shape_of(v) for n in read.model.graph for v in n.outputs}
    assert shapes["x3"] == shapes["y"] == ("batch", "time", 6)
    assert shapes["steps"] == ("time",)


def test_sizes_within_a_loop_are_its_own() -> None:
    model = parse(
        """
        g (float[N,3] x, int64 steps) => (float[M,3] y) {
          go = Constant<value = bool {1}>()
          y = Loop (steps, go, x) <body = b (int64 i, bool c, float[R,3] s) =>
            (bool d, float[Q,3] t) {
              d = Identity(c)
              shape = Shape(s)
              ones = ConstantOfShape<value = float[1] {1.0}>(shape)
              added = Add(ones, s)
              t = Concat<axis = 0>(added, s)
            }>
        }"""
    )
    feeds = [{"x": hard(n, 3), "steps": np.array(k)} for n, k in ((2, 3), (1, 2))]
    assert_same(model, *feeds)


def test_weights_that_are_standardised_by_training_statistics() -> None:
    """As torch writes the convolutions of timm's ResNetV2: by the batch, which is the weights."""
    model = add_weights(
        parse(
            """
            g (float[N,3,9,9] x) => (float[N,64,7,7] y) {
              mean = ReduceMean<keepdims = 0>(w, axes)
              column = Unsqueeze(mean, last)
              centred = Sub(w, column)
              square = Mul(centred, centred)
              variance = ReduceMean<keepdims = 0>(square, axes)
              h, m, v = BatchNormalization<training_mode = 1, momentum = 1.0, epsilon = 0.01>(
                w, ones, zeros, mean, variance)
              kernel = Reshape(h, shape)
              y = Conv(x, kernel)
            }"""
        ),
        w=hard(1, 64, 27, seed=1),
        axes=np.array([0, 2]),
        last=np.array([1]),
        ones=np.ones(64, np.float32),
        zeros=np.zeros(64, np.float32),
        shape=np.array([64, 3, 3, 3]),
    )
    read = assert_same(model, {"x": hard(2, 3, 9, 9)}, tolerance=1e-4)
    assert operators(read) == ["Conv"]
