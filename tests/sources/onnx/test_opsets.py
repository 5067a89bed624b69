"""Operators of older opsets say the same in the form of opset 18; onnxruntime runs the old file."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import SourceError
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse, run

#: (opset, inputs and outputs, body)
CASES = {
    "slice of old": (9, "float[N,5,7] x", "N,A,B", "Slice<starts=[1,-3], ends=[9,-1], axes=[1,2]>"),
    "slice, no axes": (9, "float[N,5,7] x", "A,B,C", "Slice<starts=[0,1], ends=[1000,3]>"),
    "pad of old": (10, "float[N,5] x", "N,M", "Pad<pads=[0,1,0,2], value=0.5>"),
    "pad, cut": (9, "float[N,5] x", "N,M", "Pad<pads=[0,-1,0,2]>"),
    "pad, mirrored": (10, "float[N,5] x", "N,M", 'Pad<pads=[0,1,0,2], mode="reflect">'),
    "clip of old": (10, "float[N,5] x", "N,5", "Clip<min=-0.5, max=1.5>"),
    "clip, one side": (7, "float[N,5] x", "N,5", "Clip<min=0.25>"),
    "squeeze": (12, "float[N,1,5,1] x", "N,5", "Squeeze<axes=[1,3]>"),
    "squeeze, all": (11, "float[N,1,5,1] x", "N,5", "Squeeze"),
    "unsqueeze": (11, "float[N,5] x", "N,1,5,1", "Unsqueeze<axes=[1,-1]>"),
    "reduce sum": (11, "float[N,3,5] x", "N,3", "ReduceSum<axes=[-1], keepdims=0>"),
    "reduce sum, all": (7, "float[N,3,5] x", "A,B,C", "ReduceSum"),
    "reduce mean": (17, "float[N,3,5] x", "N,1,5", "ReduceMean<axes=[1]>"),
    "reduce max": (7, "float[N,3,5] x", "N", "ReduceMax<axes=[1,2], keepdims=0>"),
    "reduce L2": (13, "float[N,3,5] x", "N,3,1", "ReduceL2<axes=[2]>"),
    "reduce log sum exp": (13, "float[N,3,5] x", "N,3,1", "ReduceLogSumExp<axes=[2]>"),
    "softmax of old": (11, "float[N,3,5] x", "N,3,5", "Softmax"),
    "softmax, axis 1": (7, "float[N,3,5,2] x", "N,3,5,2", "Softmax<axis=1>"),
    "softmax, axis 2": (9, "float[N,3,5,2] x", "N,3,5,2", "Softmax<axis=2>"),
    "softmax, last axis": (12, "float[N,3,5] x", "N,3,5", "Softmax<axis=-1>"),
    "softmax, axis 0": (12, "float[N,5] x", "N,5", "Softmax<axis=0>"),
    "softmax, one wide axis": (9, "float[N,5,1,1] x", "N,5,1,1", "Softmax<axis=1>"),
    "log softmax": (11, "float[N,3,5] x", "N,3,5", "LogSoftmax<axis=1>"),
    "hardmax": (11, "float[N,3,5] x", "N,3,5", "Hardmax<axis=1>"),
    "dropout": (7, "float[N,5] x", "N,5", "Dropout<ratio=0.4>"),
    "flatten": (7, "float[N,3,5] x", "N,M", "Flatten<axis=2>"),
    "upsample, nearest": (7, "float[N,2,3,5] x", "N,2,H,W", "Upsample<scales=[1.,1.,2.,3.]>"),
    "upsample, fraction": (7, "float[N,2,4,5] x", "N,2,H,W", "Upsample<scales=[1.,1.,1.5,2.6]>"),
    "upsample, linear": (
        7,
        "float[N,2,3,5] x",
        "N,2,H,W",
        'Upsample<mode="linear", scales=[1.,1.,2.,3.]>',
    ),
    "average pool": (7, "float[N,2,5,7] x", "N,2,H,W", "AveragePool<kernel_shape=[2,3]>"),
    "max pool": (7, "float[N,2,5,7] x", "N,2,H,W", "MaxPool<kernel_shape=[2,3], strides=[2,2]>"),
    "elu, LRN": (7, "float[N,6,3,2] x", "N,6,3,2", "LRN<size=3, alpha=0.1>"),
    "depth to space": (10, "float[N,8,3,2] x", "N,2,H,W", "DepthToSpace<blocksize=2>"),
    "cast": (7, "float[N,5] x", "N,5", "Cast<to=1>"),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_of_one_input(case: str) -> None:
    opset, given, shape, call = CASES[case]
    model = parse(f"g ({given}) => (float[{shape}] y) {{ y = {call}(x) }}", opset=opset)
    sizes = [int(s) for s in given.split("[")[1].split("]")[0].split(",")[1:]]
    read = assert_same(model, *({"x": hard(n, *sizes)} for n in (2, 3)))
    assert read.opset == 18
    if case != "squeeze, all":  # whose rank an open size leaves open
        onnx.checker.check_model(ir.serde.serialize_model(read.model), full_check=True)


def test_softmax_of_unknown_rank() -> None:
    model = parse(
        """
        g (float[N,4,6] x, int64[3] s) => (float y) {
          h = Reshape(x, s)
          y = Softmax<axis=1>(h)
        }""",
        opset=11,
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert_same(model, {"x": hard(2, 4, 6), "s": np.array([2, 3, 8])})


@pytest.mark.parametrize("opset", [10, 11, 12])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 3.0), (0.5, 0.4), (0.6, 1.7)])
def test_resize_of_old(opset: int, mode: str, scales: tuple[float, float]) -> None:
    inputs = "x, s" if opset == 10 else "x, none, s"
    model = add_weights(
        parse(
            f"""
            g (float[N,2,5,7] x) => (float[N,2,H,W] y) {{
              y = Resize<mode = "{mode}">({inputs})
            }}""",
            opset=opset,
        ),
        s=np.array([1, 1, *scales], np.float32),
        **({} if opset == 10 else {"none": np.zeros(0, np.float32)}),
    )
    assert_same(model, {"x": hard(2, 2, 5, 7)}, {"x": hard(3, 2, 5, 7)})


def test_resize_by_sizes_with_an_empty_scale() -> None:
    model = add_weights(
        parse(
            """
            g (float[2,2,5,7] x) => (float[2,2,8,9] y) {
              y = Resize<mode = "nearest", coordinate_transformation_mode = "tf_half_pixel_for_nn",
                nearest_mode = "floor">(x, none, none, s)
            }""",
            opset=11,
        ),
        s=np.array([2, 2, 8, 9]),
        none=np.zeros(0, np.float32),
    )
    assert_same(model, {"x": hard(2, 2, 5, 7)})


def test_upsample_with_scales_as_an_input() -> None:
    model = add_weights(
        parse(
            'g (float[N,2,3,5] x) => (float[N,2,H,W] y) { y = Upsample<mode="nearest">(x, s) }',
            opset=9,
        ),
        s=np.array([1, 1, 2, 3], np.float32),
    )
    assert_same(model, {"x": hard(2, 2, 3, 5)}, {"x": hard(3, 2, 3, 5)})


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_normalisation(opset: int) -> None:
    model = add_weights(
        parse(
            """
            g (float[N,3,5] x) => (float[N,3,5] y) {
              y = BatchNormalization<epsilon = 0.01, momentum = 0.8>(x, s, b, m, v)
            }""",
            opset=opset,
        ),
        s=hard(3, seed=1),
        b=hard(3, seed=2),
        m=hard(3, seed=3),
        v=np.abs(hard(3, seed=4)) + 0.1,
    )
    assert_same(model, {"x": hard(2, 3, 5)}, {"x": hard(4, 3, 5)}, tolerance=1e-5)


def test_batch_normalisation_in_training_is_refused() -> None:
    old = """
        g (float[N,3] x, float[3] s) => (float[N,3] y, float[3] mean) {
          y, mean, var, sm, sv = BatchNormalization(x, s, s, s, s)
        }"""
    with pytest.raises(SourceError, match=r"BatchNormalization 'y'.*inference"):
        read_onnx(parse(old, opset=9))
    new = """
        g (float[N,3] x, float[3] s) => (float[N,3] y) {
          y, mean, var = BatchNormalization<training_mode = 1>(x, s, s, s, s)
        }"""
    with pytest.raises(SourceError, match=r"BatchNormalization 'y' works in training mode"):
        read_onnx(parse(new, opset=15))


def test_parts_of_a_split() -> None:
    text = """
        g (float[N,6] x) => (float[N,2] a, float[N,1] b, float[N,3] c) {
          a, b, c = Split<axis = 1, split = [2, 1, 3]>(x)
        }"""
    assert_same(parse(text, opset=10), {"x": hard(2, 6)}, {"x": hard(3, 6)})
    equal = "g (float[N,6] x) => (float[N,3] a, float[N,3] b) { a, b = Split<axis=1>(x) }"
    assert_same(parse(equal, opset=11), {"x": hard(2, 6)}, {"x": hard(3, 6)})


def test_the_largest_of_old() -> None:
    model = parse("g (float[N,6] x) => (float[N,3] t, int64[N,3] i) { t, i = TopK(x) }", opset=9)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("k", 3))
    assert_same(model, {"x": hard(2, 6)}, {"x": hard(3, 6)})


def test_scatter_of_old() -> None:
    model = add_weights(
        parse("g (float[2,6] x) => (float[2,6] s) { s = Scatter<axis=1>(x, j, u) }", opset=9),
        j=np.array([[5, 0], [1, 2]]),
        u=hard(2, 2, seed=3),
    )
    read = assert_same(model, {"x": hard(2, 6)})
    assert operators(read) == ["ScatterElements"]


@pytest.mark.parametrize("opset", [10, 12, 18])
def test_masks_of_dropout(opset: int) -> None:
    """onnxruntime fills them with false up to opset 11, though nothing is dropped."""
    text = "g (float[N,6] x) => (float[N,6] y, bool[N,6] m) { h, m = Dropout(x)\n y = Abs(h) }"
    read = assert_same(parse(text, opset=opset), {"x": hard(2, 6)}, {"x": hard(3, 6)})
    assert "Dropout" not in operators(read)
    with pytest.raises(SourceError, match=r"Dropout 'h' of opset 9 .* something reads its mask"):
        read_onnx(parse(text, opset=9))


def test_roi_align_keeps_its_old_coordinates() -> None:
    model = parse(
        """
        g (float[2,3,9,7] x, float[4,4] rois, int64[4] which) => (float[4,3,2,3] y) {
          y = RoiAlign<output_height = 2, output_width = 3, sampling_ratio = 2>(x, rois, which)
        }""",
        opset=15,
    )
    rois = np.array([[0, 0, 6, 8], [1, 2, 5, 6], [2, 2, 3, 3], [0, 1, 4, 7]], np.float32)
    assert_same(model, {"x": hard(2, 3, 9, 7), "rois": rois, "which": np.array([0, 1, 1, 0])})


def test_an_initializer_need_not_be_an_input_and_was_one_once() -> None:
    text = """
        g (float[N,3] x, float[3,2] w) => (float[N,2] y) { y = MatMul(x, w) }"""
    model = add_weights(parse(text, opset=8, ir_version=3), w=hard(3, 2, seed=1))
    read = assert_same(model, {"x": hard(2, 3)}, {"x": hard(4, 3)})
    assert [v.name for v in read.model.graph.inputs] == ["x"]
    assert read.notes == ()
    model.ir_version = 8
    (note,) = assert_same(model, {"x": hard(2, 3)}).notes
    assert note.startswith("The file stores defaults for the inputs 'w'")


@pytest.mark.parametrize(
    ("opset", "told"), [(6, "expected 7 or newer"), (99, "knows opsets up to")]
)
def test_opsets_that_are_not_known(opset: int, told: str) -> None:
    model = parse("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.opset_import[0].version = opset
    with pytest.raises(SourceError, match=told):
        read_onnx(model)


def test_an_operator_without_a_newer_form_is_named() -> None:
    model = parse(
        """
        g (float[N,3] x) => (float[N,3] y) { y = Abs(x) }""",
        opset=8,
    )
    model.graph.node[0].op_type, model.graph.node[0].name = "Scan", "loop of old"
    with pytest.raises(SourceError, match=r"Scan 'loop of old' of opset 8 has no form in opset 18"):
        read_onnx(model)
    model.graph.node[0].op_type = "Scaled"
    with pytest.raises(
        SourceError, match=r"Scaled 'loop of old' is no operator of opset 18: ONNX has"
    ):
        read_onnx(model)


def test_operators_of_old_within_branches_and_loops() -> None:
    model = parse(
        """
        g (float[N,3] x, bool c, int64 steps) => (float[N,3] y, float[T,N] z) {
          y = If (c) <
            then_branch = a () => (float[N,3] r) {
              u = Unsqueeze<axes = [0]>(x)
              s = Softmax<axis = 2>(u)
              r = Squeeze<axes = [0]>(s)
            },
            else_branch = b () => (float[N,3] r) { r = Clip<min = -0.5, max = 0.5>(x) }
          >
          go = Constant<value = bool {1}>()
          last, z = Loop (steps, go, x) <body = d (int64 i, bool g, float[N,3] state) =>
            (bool h, float[N,3] next, float[N] row) {
              h = Identity(g)
              next = Softmax(state)
              row = ReduceMax<axes = [1], keepdims = 0>(next)
            }>
        }""",
        opset=10,
    )
    feeds = [
        {"x": hard(n, 3), "c": np.array(c), "steps": np.array(2)}
        for n, c in ((2, True), (4, False))
    ]
    read = assert_same(model, *feeds)
    onnx.checker.check_model(ir.serde.serialize_model(read.model))


def test_half_precision_keeps_its_type() -> None:
    text = """
        g (float16[N,4] x) => (float16[N,6] y) {
          h = Clip<min = -0.5>(x)
          y = Pad<pads = [0, 1, 0, 1], value = 0.25>(h)
        }"""
    x = hard(3, 4).astype(np.float16)
    assert_same(parse(text, opset=10), {"x": x}, {"x": x[:2]})


def test_bounds_are_of_the_type_that_another_domain_gives() -> None:
    """onnx infers no type behind its operators: the bounds were float32."""
    model = parse(
        """
        g (float16[N,3] x) => (float16[N,5] y) <float16[3] bias = {15095, 47279, 46789}> {
          a = com.microsoft.BiasGelu(x, bias)
          c = Clip<min = -0.1, max = 0.8>(a)
          y = Pad<pads = [0, 1, 0, 1], value = 0.25>(c)
        }""",
        opset=9,
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    x = hard(4, 3).astype(np.float16)
    assert_same(model, {"x": x}, {"x": x[:2]}, tolerance=1e-3)  # the last place of float16


def test_batch_normalisation_of_each_position() -> None:
    """Opset 7 alone has it; onnxruntime does not run it any more. Twin: numpy."""
    rng = np.random.default_rng(0)
    s, b, m = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(3))
    v = rng.uniform(0.1, 2, size=(3, 5)).astype(np.float32)
    text = """
        g (float[N,3,5] x) => (float[N,3,5] y) {
          y = BatchNormalization<spatial = 0, epsilon = 0.01>(x, s, b, m, v)
        }"""
    read = read_onnx(add_weights(parse(text, opset=7), s=s, b=b, m=m, v=v))
    for n in (2, 3):
        x = hard(n, 3, 5)
        expected = (x - m) / np.sqrt(v + 0.01) * s + b
        np.testing.assert_allclose(run(read.model, {"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


SOFTMAXES = {
    "sizes that are computed": (
        "float[N,7] x",
        "float[N,3] y",
        """a = Shape (x)  n = Gather <axis=0> (a, zero)  s = Concat <axis=0> (n, rest)
        h = Reshape (x, s)  z = MatMul (h, w)  y = Softmax <axis=1> (z)""",
        [7],
    ),
    "no declared rank": (
        "float[N,7] x",
        "y",
        """a = Shape (x)  n = Gather <axis=0> (a, zero)  s = Concat <axis=0> (n, rest)
        h = Reshape (x, s)  z = MatMul (h, w)  y = Softmax <axis=1> (z)""",
        [7],
    ),
    "several axes": (
        "float[N,2,7] x",
        "float[N,2,3] y",
        "z = MatMul (x, w) y = Softmax (z)",
        [2, 7],
    ),
    "several axes, turned": (
        "float[N,2,7] x",
        "float[N,3,2] y",
        "z = MatMul (x, w) p = Softmax (z) y = Transpose <perm=[0,2,1]> (p)",
        [2, 7],
    ),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_the_gradient_is_that_of_the_scores_whatever_a_softmax_is_written_as(name, tmp_path):
    """Also where it becomes several nodes: else it would be that of the probabilities, unsaid."""
    inputs, outputs, body, shape = SOFTMAXES[name]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(7, 3)).astype(np.float32)
    model = add_weights(
        parse(f"g ({inputs}) => ({outputs}) {{ {body} }}", opset=8),
        w=weights,
        zero=np.array([0]),
        rest=np.array([7]),
    )
    target = (1,) if len(shape) == 1 else (1, None) if "turned" in name else (None, 1)
    pg.compile(model, [pg.InputGradient(target=target)], tmp_path / "m.onnx")
    x = hard(2, *shape)
    gradient = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/x"].array
    np.testing.assert_allclose(gradient, np.broadcast_to(weights[:, 1], x.shape), rtol=1e-5)
