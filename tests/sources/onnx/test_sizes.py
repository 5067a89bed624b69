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


def test_a_token_that_torch_expands_to_the_batch_is_counted_with_the_others() -> None:
    """As torch's older exporter writes `cls.expand(len(x), -1, -1)` before a `torch.cat`.

    ONNX's inference does not follow the choice, and called what comes out `unk__1`.
    """
    model = parse(
        """
        g (float[N,4,3] x) => (float[N,M,3] y) {
          shape = Shape<end=1>(x)
          kept = Constant<value_ints = [-1,-1]>()
          asked = Concat<axis=0>(shape, kept)
          three = Shape(asked)
          ones = ConstantOfShape<value = int64[1] {1}>(three)
          minus = Neg(ones)
          open = Equal(asked, minus)
          sizes = Where(open, ones, asked)
          first = Expand(cls, sizes)
          y = Concat<axis=1>(first, x)
        }"""
    )
    add_weights(model, cls=hard(1, 1, 3))
    read = assert_same(model, {"x": hard(2, 4, 3)}, {"x": hard(3, 4, 3)})
    assert shape_of(read.model.graph.outputs[0]) == ("N", 5, 3)


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


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        ("c = Max(front, front)", ("N", 3, "T", 4)),
        ("c = Min(front, front)", ("N", 3, "T", 4)),
        ("m = Mul(front, sevens) d = Div(m, sevens) c = Max(d, zeros)", ("N", 3, "T", 4)),
        ("n, h = Split<axis=0, num_outputs=2>(front) c = Concat<axis=0>(n, h)", ("N", 3, "T", 4)),
        ("p = ReduceProd(front) q = Div(p, three) c = Concat<axis=0>(q, three)", ("N", 3, "T", 4)),
        ("p = ReduceProd(front) m = Mod(p, three) c = Max(front, m)", ("N", 3, "T", 4)),
        ("a = Add(front, front) s = Sub(a, front) c = Where(yes, s, zeros)", ("N", 3, "T", 4)),
        ("c = ReduceProd(front)", ("3 * N", "T", 4)),
        ("e = Slice(front, nought, one) h = Slice(front, one, ends) p = ReduceProd(h) "
         "c = Mul(e, p)", ("3 * N", "T", 4)),
    ],
)  # fmt: skip
def test_sizes_are_followed_through_arithmetic(computed: str, expected: tuple[object, ...]) -> None:
    """As tf2onnx writes the sizes of a sum of products."""
    model = parse(
        f"""
        g (float[N,3,T,4] x) => (float y) {{
          all = Shape(x)
          front = Slice(all, nought, twice)
          last = Slice(all, three, ends)
          {computed}
          target = Concat<axis=0>(c, minus, last)
          r = Reshape(x, target)
          y = Tanh(r)
        }}"""
    )
    whole = {"nought": [0], "one": [1], "twice": [2], "three": [3], "ends": [9], "minus": [-1]}
    whole |= {"sevens": [7, 7], "zeros": [0, -1]}
    used = {name: np.array(v) for name, v in whole.items() if f"{name}" in str(model)}
    if "yes" in computed:
        used["yes"] = np.array([True, True])
    model = add_weights(model, **used)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = assert_same(model, {"x": hard(2, 3, 5, 4)}, {"x": hard(7, 3, 2, 4)})
    assert shape_of(read.model.graph.outputs[0]) == expected


@pytest.mark.parametrize(
    "computed",
    [
        # Which of two names is larger, or whether a name is larger than a number, is not known.
        "c = Max(front, back)",
        "c = Min(back, threes)",
        "d = Div(front, twos) c = Mul(d, twos)",
    ],
)
def test_what_cannot_be_told_of_sizes_stays_computed(computed: str) -> None:
    model = parse(
        f"""
        g (float[N,T] x, float[N,T,K] z) => (float y) {{
          front = Shape(x)
          all = Shape(z)
          back = Slice(all, one, ends)
          {computed}
          y = Expand(z0, c)
          z0 = ReduceMax<keepdims=0>(z)
        }}"""
    )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[-1], *nodes[:-1]])
    whole = {"one": [1], "ends": [9], "threes": [3, 3], "twos": [2, 2]}
    model = add_weights(model, **{n: np.array(v) for n, v in whole.items()})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = [{"x": np.zeros(s[:2], np.float32), "z": hard(*s)} for s in ((2, 6, 4), (4, 2, 5))]
    read = assert_same(model, *feeds)
    assert not {3, "N", "T", "K"} & set(shape_of(read.model.graph.outputs[0]) or ())


def test_products_of_sizes_are_looked_up_once() -> None:
    text = "g (float[N,3,T,4] x0) => (float[N,3,T,4] y) {\n"
    for i in range(2):
        text += f"""
            all{i} = Shape(x{i})
            two{i} = Slice(all{i}, nought, twice)
            joined{i} = ReduceProd(two{i})
            last{i} = Slice(all{i}, three, ends)
            t{i} = Concat<axis=0>(joined{i}, minus, last{i})
            r{i} = Reshape(x{i}, t{i})
            s{i} = Mul(r{i}, r{i})
            x{i + 1} = Reshape(s{i}, all{i})
        """
    model = parse(text + "y = Tanh(x2) }")
    whole = {"nought": [0], "twice": [2], "three": [3], "ends": [9], "minus": [-1]}
    model = add_weights(model, **{name: np.array(v) for name, v in whole.items()})
    read = assert_same(model, {"x0": hard(2, 3, 5, 4)}, {"x0": hard(1, 3, 2, 4)})
    kinds = operators(read)
    assert kinds.count("Shape") == 2
    assert "ReduceProd" not in kinds
    assert "Slice" not in kinds


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
