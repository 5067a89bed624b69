"""Names of axes: batch first or not, channels where operators have them, positions by kind."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.sources.onnx.layouts import Layouts
from probegen.sources.onnx.reading import read_onnx
from probegen.sources.onnx.source import open_source
from tests.sources.onnx.support import add_weights, parse


def _weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _axes(text: str, given=None, **weights):
    """Returns the axes of every input, output and inner value by name, and the layouts."""
    read = read_onnx(add_weights(parse(text), **weights))
    graph = read.model.graph
    layouts = Layouts(graph, given or {})
    values = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    return {str(v.name): layouts.axes(v) for v in values}, layouts


def test_images_with_channels_second() -> None:
    found, _ = _axes(
        """
        g (float[N,3,9,7] x) => (float[N,5] y) {
          c = Conv(x, w)
          r = Relu(c)
          p = GlobalAveragePool(r)
          y = Flatten(p)
        }""",
        w=_weights(5, 3, 3, 2),
    )
    assert found["x"] == found["r"] == ("batch", "channel", "height", "width")
    assert found["y"] == ("batch", "channel")


def test_quantised_images_with_channels_second() -> None:
    """Between the input and the convolution that knows stand steps, which gradients pass."""
    found, _ = _axes(
        """
        g (float[N,3,9,7] x) => (float[N,5,7,6] y) {
          q = QuantizeLinear(x, scale, zero)
          d = DequantizeLinear(q, scale, zero)
          c = Conv(d, w)
          r = QuantizeLinear(c, scale, zero)
          y = DequantizeLinear(r, scale, zero)
        }""",
        w=_weights(5, 3, 3, 2),
        scale=np.float32(0.5),
        zero=np.int8(3),
    )
    assert found["x"] == found["y"] == ("batch", "channel", "height", "width")


@pytest.mark.parametrize(
    ("sizes", "axes"),
    [
        ("3,9,7", ("batch", "channel", "height", "width")),
        ("1,5,9,7", ("batch", "channel", "depth", "height", "width")),
        ("9,7,3", ("batch", "height", "width", "channel")),  # as its sizes say
        ("8,9,7", ("batch", "height", "width", "channel")),  # no image that is known
    ],
)
def test_images_that_no_convolution_reads_are_as_their_writer_has_them(sizes, axes) -> None:
    text = f"g (float[N,{sizes}] x) => (float[N,M] y) {{ r = Relu(x) y = Flatten(r) }}"
    graph = read_onnx(parse(text)).model.graph
    found = Layouts(graph, {}, channels_second=True)
    assert found.axes(graph.inputs[0]) == axes
    if axes[1] == "channel":
        assert found.axes(graph[0].outputs[0]) == axes
    if sizes == "3,9,7":
        assert Layouts(graph, {}).axes(graph.inputs[0]) == ("batch", "height", "width", "channel")


def test_the_producer_of_a_file_says_where_channels_are() -> None:
    model = parse("g (float[N,3,9,7] x) => (float[N,M] y) { r = Relu(x) y = Flatten(r) }")
    for producer, second in (("pytorch", "channel"), ("tf2onnx", "height")):
        model.producer_name = producer
        assert open_source(model).view.input(0).axes[1] == second


def test_a_column_is_no_series() -> None:
    found, _ = _axes(
        """
        g (int64[N,1] ids, float[N,1] z) => (float[N,1] y) {
          e = Gather(w, ids)
          c = Conv<pads = [1, 0]>(e, k)
          t = Transpose<perm = [0, 2, 1]>(c)
          f = Flatten(t)
          y = Add(f, z)
        }""",
        w=_weights(9, 1),
        k=_weights(1, 1, 2),
    )
    assert found["t"] == ("batch", "time", "channel")
    assert found["f"] == found["y"] == found["z"] == ("batch", "channel")


def test_images_with_channels_last_as_tensorflow_exports_them() -> None:
    found, _ = _axes(
        """
        g (float[N,9,7,3] x) => (float[N,8,5,5] y) {
          t = Transpose<perm=[0,3,1,2]>(x)
          c = Conv(t, w)
          n = Transpose<perm=[0,2,3,1]>(c)
          y = Relu(n)
        }""",
        w=_weights(5, 3, 2, 3),
    )
    assert found["x"] == found["y"] == ("batch", "height", "width", "channel")
    assert found["c"] == ("batch", "channel", "height", "width")


def test_volumes_and_signals() -> None:
    found, _ = _axes(
        "g (float[N,2,6,9,7] x) => (float[N,4,5,8,6] y) { y = Conv(x, w) }",
        w=_weights(4, 2, 2, 2, 2),
    )
    assert found["y"] == ("batch", "channel", "depth", "height", "width")
    found, _ = _axes(
        "g (float[N,2,9] x) => (float[N,4,8] y) { y = Conv(x, w) }", w=_weights(4, 2, 2)
    )
    assert found["x"] == found["y"] == ("batch", "channel", "time")


def test_tokens() -> None:
    found, _ = _axes(
        """
        g (float[N,T,6] x) => (float[N,T,5] y) {
          m = MatMul(x, w)
          y = Relu(m)
        }""",
        w=_weights(6, 5),
    )
    assert found["x"] == found["y"] == ("batch", "time", "channel")


@pytest.mark.parametrize(("time", "batch"), [("T", "N"), ("seq", "batch_size"), ("N1", "batch")])
def test_time_before_the_batch_by_the_name_of_its_size(time: str, batch: str) -> None:
    found, layouts = _axes(
        f"g (float[{time},{batch},6] x) => (float[{time},{batch},5] y) {{ y = MatMul(x, w) }}",
        w=_weights(6, 5),
    )
    assert found["x"] == found["y"] == ("time", "batch", "channel")
    assert layouts.batch is None


def test_a_fixed_time_before_the_batch_by_what_the_outputs_begin_with() -> None:
    """As torch's newer exporter writes `TransformerEncoder(batch_first=False)`."""
    text = """g (float[7,s27,6] x) => (float[s27,5] y) {
      m = ReduceMean<keepdims=0>(x, zero)  y = MatMul(m, w) }"""
    found, layouts = _axes(text, w=_weights(6, 5), zero=np.array([0]))
    assert found["x"] == ("time", "batch", "channel")
    assert found["y"][0] == "batch"
    assert layouts.batch is None
    # One sample whose steps each have an output keeps its batch.
    found, layouts = _axes(text.replace("7,", "1,"), w=_weights(6, 5), zero=np.array([0]))
    assert found["x"] == ("batch", "time", "channel")
    assert layouts.batch == 1


def test_time_before_the_batch_by_the_operator_that_reads_it() -> None:
    found, _ = _axes(
        """
        g (float[a,b,5] x, float[2,b,3] h) => (float[a,2,b,3] y, float[2,b,3] last) {
          y, last = GRU<hidden_size=3, direction="bidirectional">(x, w, r, , , h)
        }""",
        w=_weights(2, 9, 5),
        r=_weights(2, 9, 3),
    )
    assert found["x"] == ("time", "batch", "channel")
    assert found["h"] == found["last"] == ("layer", "batch", "channel")
    assert found["y"] == ("time", "direction", "batch", "channel")


def test_what_a_user_says_counts_most() -> None:
    text = "g (float[p,q,6] x) => (float[p,q,5] y) { y = MatMul(x, w) }"
    found, _ = _axes(text, w=_weights(6, 5))
    assert found["x"][0] == "batch"
    found, _ = _axes(text, {"x": ("time", "batch", "feature")}, w=_weights(6, 5))
    assert found["x"] == ("time", "batch", "feature")
    assert found["y"][:2] == ("time", "batch")


def test_an_image_alone_has_no_batch() -> None:
    found, layouts = _axes(
        """
        g (float[3,9,7] x) => (float[5] y) {
          s = Sub(x, mean)
          u = Unsqueeze(s, zero)
          c = Conv(u, w)
          most = ReduceMax<keepdims=0>(c, places)
          y = Squeeze(most, zero)
        }""",
        mean=_weights(3, 1, 1),
        w=_weights(5, 3, 3, 2),
        zero=np.array([0]),
        places=np.array([2, 3]),
    )
    assert found["x"] == ("channel", "height", "width")
    assert found["c"] == ("batch", "channel", "height", "width")  # one, which the model puts in
    assert "batch" not in found["y"]
    assert layouts.batch == 1


def test_the_only_open_size_of_a_state_is_the_batch() -> None:
    text = "g (float[?,4] x, float[2,?,4] s) => (float[2,?,4] y) { y = Add(x, s) }".replace(
        "?", "N"
    )
    model = parse(text)
    for value in [*model.graph.input, *model.graph.output]:
        for d in value.type.tensor_type.shape.dim:
            d.ClearField("dim_param")
    graph = read_onnx(model).model.graph
    layouts = Layouts(graph, {})
    assert [layouts.axes(v)[i] for v, i in zip(graph.inputs, (0, 1), strict=True)] == ["batch"] * 2


def test_steps_that_convolutions_take_for_samples_are_none_where_a_state_says_one() -> None:
    """As a detector of voices reads the windows of one recording."""
    found, layouts = _axes(
        """
        g (float[steps,1,9] x, float[1,1,3] h) => (float[steps,1,1,3] y) {
          c = Conv(x, k)
          t = Transpose<perm=[0,2,1]>(c)
          one = Slice(t, zero, first, axis)
          y = GRU<hidden_size=3>(one, w, r, , , h)
        }""",
        k=_weights(5, 1, 3),
        w=_weights(1, 9, 5),
        r=_weights(1, 9, 3),
        zero=np.array([0]),
        first=np.array([1]),
        axis=np.array([1]),
    )
    assert "batch" not in found["x"]
    assert found["h"] == ("layer", "batch", "channel")
    assert layouts.batch == 1


def test_what_nothing_is_known_of_is_no_image() -> None:
    """Heads and their steps are neither height nor width."""
    found, _ = _axes(
        """
        g (float[N,5,12] x) => (float[N,3,5,5] y) {
          q = Reshape(x, four)
          h = Transpose<perm=[0,2,1,3]>(q)
          t = Transpose<perm=[0,2,3,1]>(q)
          y = MatMul(h, t)
        }""",
        four=np.array([-1, 5, 3, 4]),
    )
    assert found["h"] == ("batch", "axis_1", "axis_2", "axis_3")


def test_a_convolution_of_single_positions_makes_no_image_of_what_it_reads() -> None:
    """As distances are read off a distribution in a detector: it weighs 4 sides and all boxes."""
    found, _ = _axes(
        """
        g (float[N,8,30] x) => (float[N,4,30] y) {
          four = Reshape(x, sizes)
          t = Transpose<perm=[0,2,1,3]>(four)
          s = Softmax<axis=1>(t)
          c = Conv(s, w)
          y = Squeeze(c, one)
        }""",
        sizes=np.array([0, 4, 2, 30]),
        w=_weights(1, 2, 1, 1),
        one=np.array([1]),
    )
    assert found["s"] == ("batch", "channel", "axis_2", "axis_3")


def test_windows_are_told_apart() -> None:
    text = """
        g (float[N,6,10,8] x) => (float[M,10,8] y) {
          six = Reshape(x, cut)
          t = Transpose<perm=[0,1,3,2,4,5]>(six)
          y = Reshape(t, joined)
        }"""
    read = read_onnx(
        add_weights(parse(text), cut=np.array([-1, 3, 2, 2, 5, 8]), joined=np.array([-1, 10, 8]))
    )
    layouts = Layouts(read.model.graph, {})
    (y,) = read.model.graph.outputs
    apart = layouts.told_apart(y)
    assert apart is not None
    assert (apart.axis, apart.parts) == (0, (-1, 3, 2))
    assert apart.sizes == (None, 3, 2, 10, 8)
    assert apart.axes[0] == "batch"
    assert "batch" not in layouts.axes(y)


def test_samples_that_are_joined_with_open_sizes_of_an_input_are_told_apart() -> None:
    model = parse("g (float[N,T,8] x) => (float[M,8] y) { y = Reshape(x, s) }")
    read = read_onnx(add_weights(model, s=np.array([-1, 8])))
    layouts = Layouts(read.model.graph, {})
    (y,) = read.model.graph.outputs
    apart = layouts.told_apart(y)
    assert apart is not None
    assert (apart.axis, apart.parts, apart.sizes) == (0, (-1, ("x", 1)), (None, None, 8))
    assert "batch" not in layouts.axes(y)


def test_samples_that_are_joined_with_sizes_of_no_input_cannot_be_told_apart() -> None:
    """How many rows the other input leaves is found when it runs."""
    text = """
        g (float[N,8] x, float[K] z) => (float[M,8] y) {
          at = NonZero(z)
          row = Transpose(at)
          rows = Unsqueeze(x, one)
          many = Gather<axis=1>(rows, zeros)
          y = Reshape(many, s)
          zeros_wide = Sub(row, row)
          zeros = Squeeze(zeros_wide, one)
        }"""
    model = add_weights(parse(text), s=np.array([-1, 8]), one=np.array([1]))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:3], *nodes[5:], *nodes[3:5]])
    graph = read_onnx(model).model.graph
    apart = Layouts(graph, {}).told_apart(graph.outputs[0])
    assert apart is not None
    assert apart.parts is None


def test_samples_that_nobody_can_find_again() -> None:
    """Which of the two fours is in the middle is not to be told: no axis is called the batch."""
    text = """
        g (float[N,4,4,9] x, int64[3] s) => (float[P,Q,R] y) {
          r = Reshape(x, s)
          t = Sin(r)
          y = Cos(t)
        }"""
    read = read_onnx(parse(text))
    (r,) = [n.outputs[0] for n in read.model.graph if n.op_type == "Reshape"]
    r.shape = ir.Shape(["P", 4, "Q"])
    layouts = Layouts(read.model.graph, {})
    t = next(n.outputs[0] for n in read.model.graph if n.op_type == "Sin")
    assert layouts.is_lost(r)
    assert layouts.is_lost(t)
    assert "batch" not in layouts.axes(r) + layouts.axes(t)


def test_the_width_of_an_image_that_is_read_from_left_to_right() -> None:
    found, _ = _axes(
        """
        g (float[N,1,4,W] x) => (float[W1,1,N,3] y) {
          c = Conv<pads=[0,1,0,1]>(x, k)
          s = Squeeze(c, two)
          t = Transpose<perm=[2,0,1]>(s)
          y = GRU<hidden_size=3>(t, w, r)
        }""",
        k=_weights(5, 1, 4, 3),
        w=_weights(1, 9, 5),
        r=_weights(1, 9, 3),
        two=np.array([2]),
    )
    assert found["c"] == found["x"] == ("batch", "channel", "height", "width")
    assert found["t"][1] == "batch"


def test_a_vector_with_one_feature_each_is_a_series() -> None:
    found, _ = _axes(
        """
        g (float[N,7,3] x) => (float[N,6,1] y) <int64[1] last = {-1}, int64[1] time = {1}> {
          mean = ReduceMean <keepdims = 0> (x, time)
          flat = MatMul(mean, w)
          y = Unsqueeze(flat, last)
        }""",
        w=_weights(3, 6),
    )
    assert found["flat"] == ("batch", "channel")
    assert found["y"] == ("batch", "time", "channel")


def test_axes_of_size_1_that_are_taken_out_without_being_named() -> None:
    found, _ = _axes(
        """
        g (float[2,3,2,7] x) => (float[2,5,6] y) {
          c = Conv(x, w)
          y = Squeeze(c)
        }""",
        w=_weights(5, 3, 2, 2),
    )
    assert found["c"] == ("batch", "channel", "height", "width")
    assert found["y"] == ("batch", "channel", "width")


def test_layer_normalisation_as_tensorflow_exports_it() -> None:
    """Its mean over the last of three axes is written as a pooling, which knows no channels."""
    found, _ = _axes(
        """
        g (float[N,7,6] x) => (float[N,7,4] y) {
          mean = GlobalAveragePool(x)
          minus = Neg(mean)
          moved = Sub(x, mean)
          square = Mul(moved, moved)
          variance = GlobalAveragePool(square)
          root = Sqrt(variance)
          scale = Reciprocal(root)
          scaled = Mul(x, scale)
          shift = Mul(minus, scale)
          n = Add(scaled, shift)
          y = MatMul(n, w)
        }""",
        w=_weights(6, 4),
    )
    for name in ("x", "n", "square", "y"):
        assert found[name] == ("batch", "time", "channel"), name


def test_a_mean_that_scales_channels_knows_them() -> None:
    found, _ = _axes(
        """
        g (float[N,3,9] x) => (float[N,3,9] y) {
          mean = GlobalAveragePool(x)
          gate = Sigmoid(mean)
          y = Mul(x, gate)
        }"""
    )
    assert found["x"] == ("batch", "channel", "time")
