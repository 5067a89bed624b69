"""Where the samples of a tensor lie, told from the sizes, and which operators join them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.batch_axes import BatchAxes, node_that_joins
from probegen.graph.core.axis_factors import SAMPLES
from probegen.graph.core.values import shape_of
from probegen.graph.shape_inference import infer_shapes
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.joined_heads import joined_heads
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


def test_joined_heads_are_followed_and_told_apart() -> None:
    read, found = _followed(joined_heads())
    values = dict(_by_name(read))
    assert found.factors(values["weights"]) == ((SAMPLES, 3), (5,), (5,))
    assert found.axis(values["weights"]) is None
    assert found.joined(values["weights"]) == 0
    assert found.axis(values["heads"]) == 0
    assert found.axis(values["last"]) == 0
    assert found.joined(values["last"]) is None
    assert _axis_that_grows(joined_heads(), "weights", 0, (2, 7)) == [(6, 5, 5), (21, 5, 5)]


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


def test_two_batches_behind_each_other_are_told_apart() -> None:
    """As a network sees both of a pair; which of the two a computed cut leaves is not known."""
    read, found = _followed(
        parse(
            """
            g (float[N,3] x) => (float[A,3] left, float[B,3] right) {
              both = Concat<axis=0>(x, x)
              n = Shape<end=1>(x)
              zero = Constant<value_ints=[0]>()
              left = Slice(both, zero, n)
              far = Constant<value_ints=[9223372036854775807]>()
              right = Slice(both, n, far)
            }"""
        )
    )
    values = dict(_by_name(read))
    assert found.factors(values["both"]) == ((2, SAMPLES), (3,))
    assert found.joined(values["left"]) is None
    assert found.joined(values["right"]) is None


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


HEAD = """<ir_version: 8, opset_import: ["" : 18]>
g (float[batch, 6, 4] x, int64[batch, 5] ids) => (float[unknown] y)
<float[4, 6] w = {ONES}, float[4] c = {1, 1, 1, 1},
 float[1, 8, 4] w4 = {ONES, 1, 1, 1, 1, 1, 1, 1, 1},
 float[1, 8, 2] r4 = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, float[1, 6, 2] k2 = {1, 1,
 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, int64[1] zero = {0}, int64[1] one = {1}, int64 first = {0},
 int64[1] far = {9223372036854775807}, int64[3] twice = {2, 1, 1},
 int64[2] far2 = {1000000000, 1000000000},
 int64[2] starts = {0, 1000000000}, int64[2] ends = {1000000000, -1000000000},
 int64[2] axes = {0, 1}, int64[2] steps = {1, -1}, int64[2] flat = {-1, 4},
 int64[2] whole = {1, -1}, int64[3] apart = {-1, 6, 4}>
""".replace("ONES", ", ".join(["0.5"] * 24))

JOINED = {
    "ReduceMax": "y = ReduceMax <keepdims = 0> (x)",
    "ReduceMean": "y = ReduceMean (x, zero)",
    "ReduceMin of what is reshaped": "r = Reshape (x, flat) y = ReduceMin (r, zero)",
    "a softmax": "y = Softmax <axis = 0> (x)",
    "a softmax of all": "r = Reshape (x, whole) y = Softmax <axis = 1> (r)",
    "CumSum": "y = CumSum (x, zero)",
    "CumSum of what is counted": """b = Cast <to = 9> (x)
        f = Cast <to = 1> (b)
        y = CumSum (f, zero)""",
    "BatchNormalization": """t = Transpose <perm = [0, 2, 1]> (x)
        y, m, v = BatchNormalization <training_mode = 1> (t, c, c, c, c)""",
    "MeanVarianceNormalization": """u = Unsqueeze (x, one)
        y = MeanVarianceNormalization (u)""",
    "LayerNormalization": "y = LayerNormalization <axis = 0> (x, x)",
    "pairs": """m = ReduceMean <keepdims = 0> (x, one)
        t = Transpose (m)
        y = MatMul (m, t)""",
    "pairs by Einsum": """m = ReduceMean <keepdims = 0> (x, one)
        y = Einsum <equation = "ac,bc->ab"> (m, m)""",
    "a product over samples": """m = ReduceMean <keepdims = 0> (x, one)
        y = Gemm <transA = 1> (m, m)""",
    "differences of pairs": """m = ReduceMean <keepdims = 0> (x, one)
        a = Unsqueeze (m, zero)
        b = Unsqueeze (m, one)
        y = Sub (a, b)""",
    "behind what is gathered": """i = Gather <axis = 1> (x, zero)
        y = ReduceMax <keepdims = 0> (i, zero)""",
    "the first sample": "y = Slice (x, zero, one, zero)",
    "the first sample, picked": "y = Gather (x, first)",
    "a batch in another order": """m = ReduceMean <keepdims = 0> (x, one)
        best, order = TopK <axis = 1> (m, one)
        y = Gather <axis = 0> (m, order)""",
    "behind a whole slice": """n = Shape <end = 1> (x)
        s = Slice (x, zero, n, zero)
        y = Softmax <axis = 0> (s)""",
    "behind a slice of steps": """n = Shape <end = 1> (x)
        a = Concat <axis = 0> (zero, n)
        s = Slice (x, a, far2)
        y = Softmax <axis = 0> (s)""",
    "halves of a batch": "y, rest = Split <axis = 0, num_outputs = 2> (x)",
    "the best of a batch": "y, order = TopK <axis = 0> (x, one)",
    "samples for steps": "all, y = LSTM <hidden_size = 2> (x, w4, r4)",
    "samples for positions": """t = Transpose <perm = [1, 2, 0]> (x)
        y = Conv <kernel_shape = [2], group = 6> (t, k2)""",
    "what is looked up": """e = Gather (w, ids)
        y = ReduceMax <keepdims = 0> (e, zero)""",
    "of both of a pair": """b = Concat <axis = 0> (x, x)
        y = Softmax <axis = 0> (b)""",
    "in a step": """y = Scan <num_scan_inputs = 1, scan_input_axes = [1], body = step (
        float[batch, 4] e) => (float[batch, 4] m) { m = Softmax <axis = 0> (e) }> (x)""",
    "behind a loop over samples": """s = Scan <num_scan_inputs = 1, body = each (float[6, 4] e)
        => (float[6, 4] f) { f = Tanh (e) }> (x)
        y = ReduceMax (s, zero)""",
    "behind a branch": """t = ReduceSum <keepdims = 0> (w)
        n = Greater (t, t)
        m = If (n) <then_branch = a () => (float[batch, 6, 4] p) {p = Relu (x)},
                    else_branch = b () => (float[batch, 6, 4] q) {q = Tanh (x)}>
        y = ReduceMin <keepdims = 0> (m, zero)""",
    "the others": "y = Slice (x, one, far, zero)",
    "in a branch": """s = ReduceSum <keepdims = 0> (w)
        n = Greater (s, s)
        y = If (n) <then_branch = a () => (float[1] p) {p = ReduceMax <keepdims = 0> (x)},
                    else_branch = b () => (float[1] q) {q = ReduceSum (w)}>""",
}
APART = {
    "channels": "y = ReduceMax (x, one)",
    "a softmax over channels": "y = Softmax <axis = 2> (x)",
    "reshaped and back": """r = Reshape (x, flat)
        m = MatMul (r, w)
        t = Transpose <perm = [1, 0]> (m)
        b = Transpose <perm = [1, 0]> (t)
        y = LayerNormalization <axis = 1> (b, b)""",
    "frames": "r = Reshape (x, flat) s = Reshape (r, apart) y = Softmax <axis = 1> (s)",
    "whole samples": "y = Slice (x, zero, far, zero)",
    "whole samples, cut and turned": """s = Slice (x, starts, ends, axes, steps)
        y = Relu (s)""",
    "a maximum of masks": """b = Cast <to = 9> (x)
        f = Cast <to = 1> (b)
        y = ReduceMax <keepdims = 0> (f)""",
    "both of a pair": """b = Concat <axis = 0> (x, x)
        p, q = Split <axis = 0, num_outputs = 2> (b)
        y = Softmax <axis = 1> (q)""",
    "copies": "t = Tile (x, twice) y = Softmax <axis = 1> (t)",
    "steps": """t = Transpose <perm = [1, 0, 2]> (x)
        all, y = LSTM <hidden_size = 2> (t, w4, r4)""",
    "the sample of a step": """n = Shape <end = 1> (x)
        m = Squeeze (n)
        y = Loop (m, , ) <body = each (int64 i, bool c) => (bool d, float[6, 4] f) {
        d = Identity (c)
        f = Gather (x, i) }>""",
    "each sample in a loop": """y = Scan <num_scan_inputs = 1, body = each (float[6, 4] e)
        => (float[6, 4] f) { f = Softmax <axis = 0> (e) }> (x)""",
    "what nothing reads": "m = ReduceMax (x) y = Relu (x)",
    "inference": """t = Transpose <perm = [0, 2, 1]> (x)
        y = BatchNormalization (t, c, c, c, c)""",
}


def joining(body: str) -> str:
    """Returns the operator that joins samples in a graph; `""` where none does."""
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD}{{ {body} }}"))
    infer_shapes(model)
    found = node_that_joins(
        model.graph, dict.fromkeys(model.graph.inputs, 0), list(model.graph.outputs)
    )
    return "" if found is None else found.op_type


@pytest.mark.parametrize("case", JOINED)
def test_what_joins_samples(case: str) -> None:
    assert joining(JOINED[case])


@pytest.mark.parametrize("case", APART)
def test_what_treats_each_by_itself(case: str) -> None:
    assert not joining(APART[case])
