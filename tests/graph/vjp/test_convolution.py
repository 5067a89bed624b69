"""Gradients of convolutions: every attribute, against loops and against TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, check, differentiate, one_node, run, uniform, written
from tests.reference_spatial import convolution_gradients, transposed_convolution_gradients


def conv(
    name: str, x: tuple, w: tuple, bias: bool = False, wrt: Any = (0,), **attributes: Any
) -> Case:
    """Returns a Conv of the given shapes, held against the loops."""
    constants = [i for i in (1, 2) if i not in wrt]

    def twin(dys: Any, *inputs: Any) -> list[Any]:
        found = convolution_gradients(dys[0], inputs[0], inputs[1], attributes)
        return [found[i] for i in wrt]

    return Case(
        op="Conv",
        inputs=[uniform(*x), uniform(*w, seed=1), *([uniform(w[0], seed=2)] if bias else [])],
        attributes=attributes,
        constants=constants,
        wrt=wrt,
        batch={0: {0: "batch"}},
        open_all=1 in constants,
        numeric=False,
        twin=twin,
        # With open sizes these take a ConvTranspose, whose groups onnx's evaluator gets wrong.
        double=attributes.get("group", 1) == 1 or max(attributes.get("strides", [1])) == 1,
        name=name,
    )


X = (2, 3, 7, 5)

CONVOLUTIONS = [
    # one window a position
    conv("1-D", (2, 3, 9), (4, 3, 3)),
    conv("kernel 1", X, (4, 3, 1, 1)),
    conv("valid", X, (4, 3, 3, 2)),
    conv("same", X, (4, 3, 3, 3), auto_pad="SAME_UPPER"),
    conv("same, even kernel", X, (4, 3, 2, 4), auto_pad="SAME_LOWER"),
    conv("uneven padding", X, (4, 3, 3, 2), pads=[2, 0, 1, 1]),
    conv("padding beyond the kernel", X, (4, 3, 2, 1), pads=[3, 2, 0, 1]),
    conv("dilated", X, (4, 3, 3, 2), dilations=[2, 3], pads=[1, 2, 3, 1]),
    conv("groups", (2, 6, 5, 4), (4, 3, 3, 2), group=2, pads=[1, 1, 0, 1]),
    conv("depthwise", (2, 3, 5, 4), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    conv("depthwise, two outputs each", (2, 3, 5, 4), (6, 1, 3, 2), group=3),
    conv("3-D", (2, 2, 4, 3, 5), (3, 2, 2, 1, 3), pads=[1, 0, 1, 0, 0, 1]),
    # strides
    conv("1-D, stride 2", (2, 3, 9), (4, 3, 3), strides=[2]),
    conv("strides", X, (4, 3, 3, 3), strides=[2, 3], pads=[1, 0, 1, 2]),
    conv("stride on one axis", X, (4, 3, 3, 2), strides=[1, 2]),
    conv("same, odd sizes, stride 2", X, (4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    conv(
        "same lower, even, stride 2",
        (2, 3, 8, 6),
        (4, 3, 3, 3),
        strides=[2, 2],
        auto_pad="SAME_LOWER",
    ),
    conv("kernel 1, stride 2", X, (4, 3, 1, 1), strides=[2, 2]),
    conv("kernel 1, padded", X, (4, 3, 1, 1), strides=[2, 3], pads=[1, 1, 0, 1]),
    conv("stride beyond the kernel", X, (4, 3, 2, 1), strides=[3, 3]),
    conv("kernel is stride", (2, 3, 8, 6), (4, 3, 4, 2), strides=[4, 2]),
    conv("windows drop the end", (2, 3, 9, 8), (4, 3, 2, 3), strides=[4, 3]),
    conv(
        "many channels, stride 2", (1, 17, 5, 7), (3, 17, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    conv("many channels, kernel below stride", (1, 16, 7, 8), (3, 16, 2, 2), strides=[3, 3]),
    conv(
        "stride and dilation", X, (4, 3, 3, 2), strides=[2, 2], dilations=[3, 1], pads=[2, 1, 2, 1]
    ),
    conv(
        "dilation is stride", X, (4, 3, 3, 2), strides=[2, 2], dilations=[2, 2], pads=[1, 1, 2, 1]
    ),
    conv(
        "stride 4, dilation 2",
        (2, 3, 9, 11),
        (4, 3, 3, 3),
        strides=[4, 4],
        dilations=[2, 6],
        pads=[2, 5, 1, 6],
    ),
    conv(
        "groups, stride 2", (2, 6, 5, 4), (4, 3, 3, 2), group=2, strides=[2, 2], pads=[1, 1, 0, 1]
    ),
    conv("depthwise, stride 2", X, (3, 1, 3, 3), group=3, strides=[2, 2], pads=[0, 0, 1, 1]),
    conv(
        "depthwise 5, stride 2",
        (2, 3, 9, 8),
        (3, 1, 5, 5),
        group=3,
        strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    conv(
        "depthwise, stride 3, dilated",
        (2, 3, 9, 11),
        (3, 1, 3, 2),
        group=3,
        strides=[3, 2],
        dilations=[2, 3],
        pads=[1, 4, 0, 2],
    ),
    conv("depthwise, kernel 1, stride 2", X, (3, 1, 1, 1), group=3, strides=[2, 2]),
    conv("depthwise, stride beyond kernel", (2, 3, 8, 9), (3, 1, 2, 2), group=3, strides=[3, 4]),
    conv(
        "3-D, strides", (1, 2, 5, 4, 6), (3, 2, 3, 2, 3), strides=[2, 1, 3], pads=[1, 0, 1, 1, 1, 1]
    ),
    conv("3-D, kernel 1, strides", (1, 2, 5, 4, 6), (3, 2, 1, 1, 1), strides=[2, 3, 2]),
    conv("3-D depthwise, strides", (1, 2, 5, 4, 6), (2, 1, 3, 3, 2), group=2, strides=[2, 2, 2]),
    conv("long rows, kernel 1, stride 2", (2, 3, 3, 141), (4, 3, 1, 1), strides=[2, 2]),
    conv("long rows, depthwise", (1, 3, 5, 133), (3, 1, 3, 3), group=3, strides=[2, 2]),
    conv("long, 1-D depthwise", (2, 3, 200), (3, 1, 4), group=3, strides=[3], pads=[1, 2]),
    conv("many phases", (1, 17, 12, 10), (3, 17, 7, 5), strides=[5, 4], pads=[1, 2, 0, 1]),
    conv("few channels, 1-D", (2, 3, 14), (4, 3, 5), strides=[3], pads=[2, 1]),
    conv("few channels, 3-D", (1, 2, 7, 6, 8), (3, 2, 3, 3, 2), strides=[2, 2, 2]),
    # kernels and biases
    conv("kernel too", X, (4, 3, 3, 2), wrt=(0, 1, 2), bias=True, pads=[1, 0, 2, 1]),
    conv(
        "kernel too, strides",
        X,
        (4, 3, 2, 3),
        wrt=(0, 1),
        strides=[3, 2],
        dilations=[2, 1],
        pads=[1, 1, 0, 2],
    ),
    conv(
        "kernel too, groups",
        (2, 6, 5, 4),
        (4, 3, 3, 2),
        wrt=(0, 1, 2),
        bias=True,
        group=2,
        strides=[2, 1],
    ),
    conv("kernel too, depthwise", X, (3, 1, 3, 2), wrt=(0, 1), group=3, strides=[2, 2]),
    conv("kernel alone, 1-D", (2, 3, 9), (4, 3, 3), wrt=(1,), strides=[2], pads=[1, 0]),
]


def transposed(
    name: str, x: tuple, w: tuple, before: list[int], wrt: Any = (0,), **attributes: Any
) -> Case:
    """Returns a ConvTranspose; `before` is what it cuts from the start of its output."""
    bias = [uniform(w[1] * attributes.get("group", 1), seed=2)]

    def twin(dys: Any, *inputs: Any) -> list[Any]:
        found = transposed_convolution_gradients(dys[0], inputs[0], inputs[1], attributes, before)
        return [found[i] for i in wrt]

    return Case(
        op="ConvTranspose",
        inputs=[uniform(*x), uniform(*w, seed=1), *bias],
        attributes=attributes,
        constants=[i for i in (1, 2) if i not in wrt],
        wrt=wrt,
        batch={0: {0: "batch"}},
        open_all=1 not in wrt and "output_shape" not in attributes,
        numeric=False,
        twin=twin,
        # onnx's reference evaluator has no groups here, and fails at some chosen shapes.
        double="group" not in attributes and "output_shape" not in attributes,
        name=name,
    )


TRANSPOSED = [
    transposed("stride 1", (2, 3, 5, 4), (3, 4, 3, 2), [0, 0]),
    transposed("padded", (2, 3, 5, 4), (3, 4, 3, 3), [1, 0], pads=[1, 0, 2, 1]),
    transposed("strides", (2, 3, 4, 3), (3, 4, 3, 3), [0, 0], strides=[2, 3]),
    transposed(
        "as Keras pads same", (2, 3, 4, 3), (3, 4, 3, 3), [0, 0], strides=[2, 2], pads=[0, 0, 1, 1]
    ),
    transposed(
        "output padding",
        (2, 3, 4, 3),
        (3, 4, 3, 2),
        [1, 1],
        strides=[2, 3],
        pads=[1, 1, 1, 0],
        output_padding=[1, 2],
    ),
    transposed("stride beyond kernel", (2, 3, 4, 3), (3, 4, 1, 2), [0, 0], strides=[3, 4]),
    transposed(
        "same upper", (2, 3, 4, 3), (3, 4, 3, 4), [0, 0], strides=[2, 3], auto_pad="SAME_UPPER"
    ),
    transposed(
        "same lower", (2, 3, 4, 3), (3, 4, 3, 4), [1, 1], strides=[2, 3], auto_pad="SAME_LOWER"
    ),
    transposed("dilated", (2, 3, 4, 3), (3, 4, 2, 3), [1, 0], dilations=[3, 2], pads=[1, 0, 0, 1]),
    transposed("1-D", (2, 3, 5), (3, 4, 3), [1], strides=[2], pads=[1, 0]),
    transposed(
        "3-D",
        (1, 2, 3, 2, 4),
        (2, 3, 2, 3, 2),
        [0, 1, 0],
        strides=[2, 2, 1],
        pads=[0, 1, 0, 0, 0, 1],
    ),
    transposed(
        "chosen shape", (2, 3, 4, 3), (3, 4, 3, 3), [1, 0], strides=[2, 2], output_shape=[8, 7]
    ),
    transposed(
        "chosen shape, upper",
        (2, 3, 4, 3),
        (3, 4, 3, 3),
        [0, 0],
        strides=[2, 2],
        output_shape=[8, 7],
        auto_pad="SAME_UPPER",
    ),
    transposed("groups", (2, 4, 4, 3), (4, 3, 3, 2), [0, 0], group=2, strides=[2, 2]),
    transposed(
        "kernel too",
        (2, 3, 4, 3),
        (3, 4, 3, 2),
        [1, 0],
        wrt=(0, 1, 2),
        strides=[2, 1],
        pads=[1, 0, 0, 1],
    ),
    transposed(
        "kernel too, groups",
        (2, 4, 4, 3),
        (4, 3, 3, 2),
        [0, 0],
        wrt=(0, 1, 2),
        group=2,
        strides=[2, 2],
    ),
]


COLUMNS = [
    Case(
        op="Col2Im",
        inputs=[uniform(2, 3 * int(np.prod(block)), blocks), np.array(image), np.array(block)],
        attributes=attributes,
        constants={1, 2},
        name=str(attributes),
    )
    for image, block, blocks, attributes in (
        ([3, 5], [2, 3], 6, {}),
        ([3, 4], [3, 2], 6, {"pads": [1, 0, 1, 1], "strides": [1, 2]}),
        ([3, 7], [2, 3], 6, {"dilations": [1, 2]}),
        ([7], [3], 3, {"strides": [2]}),
        ([2, 3, 3], [2, 1, 2], 6, {}),
    )
]


@pytest.mark.parametrize("case", [*CONVOLUTIONS, *TRANSPOSED, *COLUMNS], ids=str)
def test_gradient_is_that_of_the_loops(case: Case) -> None:
    check(case)


def last(x: Any) -> Any:
    """Moves TensorFlow's channels from position 1 to the end."""
    import tensorflow as tf

    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def second(x: Any) -> Any:
    """Moves TensorFlow's channels from the end to position 1."""
    import tensorflow as tf

    return tf.transpose(x, [0, x.shape.rank - 1, *range(1, x.shape.rank - 1)])


def tensorflow_conv(x: Any, w: Any, strides: list[int], padding: str = "SAME", **more: Any) -> Any:
    import tensorflow as tf

    rank = x.shape.rank - 2
    kernel = tf.transpose(w, [*range(2, 2 + rank), 1, 0])
    return second(tf.nn.convolution(last(x), kernel, strides, padding, **more))


def tensorflow_depthwise(x: Any, w: Any, strides: list[int]) -> Any:
    import tensorflow as tf

    kernel = tf.transpose(w, [2, 3, 0, 1])
    return second(tf.nn.depthwise_conv2d(last(x), kernel, [1, *strides, 1], "SAME"))


def tensorflow_transposed(x: Any, w: Any, shape: list[int], strides: list[int]) -> Any:
    import tensorflow as tf

    kernel = tf.transpose(w, [2, 3, 1, 0])
    return second(tf.nn.conv2d_transpose(last(x), kernel, shape, strides, "SAME"))


def against(op: str, function: Any, x: tuple, w: tuple, name: str, **attributes: Any) -> Case:
    return Case(
        op=op,
        inputs=[uniform(*x), uniform(*w, seed=1)],
        attributes=attributes,
        batch={0: {0: "batch"}},
        open_all=False,
        numeric=False,
        tensorflow=function,
        name=name,
    )


TENSORFLOW = [
    against(
        "Conv",
        lambda x, w: tensorflow_conv(x, w, [2, 2]),
        (2, 3, 7, 8),
        (4, 3, 3, 3),
        "conv2d, same, stride 2",
        strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    against(
        "Conv",
        lambda x, w: tensorflow_conv(x, w, [1, 1], "VALID", dilations=[2, 1]),
        (2, 3, 7, 8),
        (4, 3, 2, 3),
        "conv2d, valid, dilated",
        dilations=[2, 1],
    ),
    against(
        "Conv",
        lambda x, w: tensorflow_conv(x, w, [3]),
        (2, 3, 10),
        (4, 3, 4),
        "conv1d, same, stride 3",
        strides=[3],
        auto_pad="SAME_UPPER",
    ),
    against(
        "Conv",
        lambda x, w: tensorflow_conv(x, w, [2, 1, 2], data_format="NDHWC"),
        (2, 2, 3, 4, 5),
        (3, 2, 2, 3, 3),
        "conv3d, same",
        strides=[2, 1, 2],
        auto_pad="SAME_UPPER",
    ),
    against(
        "Conv",
        lambda x, w: tensorflow_depthwise(x, w, [2, 2]),
        (2, 3, 7, 8),
        (3, 1, 5, 5),
        "depthwise, same, stride 2",
        strides=[2, 2],
        auto_pad="SAME_UPPER",
        group=3,
    ),
    against(
        "ConvTranspose",
        lambda x, w: tensorflow_transposed(x, w, [2, 8, 9, 4], [2, 3]),
        (2, 3, 4, 3),
        (3, 4, 3, 4),
        "conv2d_transpose, same",
        strides=[2, 3],
        pads=[0, 0, 1, 1],
    ),
]


@pytest.mark.parametrize("case", TENSORFLOW, ids=str)
def test_gradient_is_that_of_tensorflow(case: Case) -> None:
    check(case)


# -- what is written -----------------------------------------------------------------------

STRUCTURES = [
    (conv("kernel 1", X, (4, 3, 1, 1)), ["Transpose", "Conv"]),
    (conv("stride 1", X, (4, 3, 3, 3), pads=[1, 1, 1, 1]), ["Transpose", "Slice", "Conv"]),
    (conv("depthwise", X, (3, 1, 3, 3), group=3), ["Slice", "Conv"]),
    (
        conv("kernel 1, stride 2", X, (4, 3, 1, 1), strides=[2, 2]),
        ["Transpose", "Conv", "MatMul", "Reshape", "Slice"],
    ),
    (
        conv("kernel 1, stride 2, even sizes", (2, 3, 6, 8), (4, 3, 1, 1), strides=[2, 2]),
        ["Transpose", "Conv", "MatMul", "Reshape"],
    ),
    (
        conv("depthwise, stride 2", X, (3, 1, 3, 3), group=3, strides=[2, 2]),
        ["MatMul", "Reshape", "Slice", "Conv"],
    ),
    (transposed("transposed", (2, 3, 5, 4), (3, 4, 3, 2), [0, 0], strides=[2, 2]), ["Conv"]),
]


@pytest.mark.parametrize(("case", "expected"), STRUCTURES, ids=str)
def test_common_cases_take_few_nodes(case: Case, expected: list[str]) -> None:
    assert written(case) == expected


def test_phases_take_a_convolution_each_and_no_inserted_zero() -> None:
    found = written(conv("", (1, 16, 8, 6), (5, 16, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    assert [found.count(op) for op in ("Conv", "Concat", "MatMul", "Pad")] == [4, 3, 0, 0]


def test_phases_of_few_channels_come_from_one_convolution() -> None:
    found = written(conv("", (1, 3, 8, 6), (5, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]))
    assert [found.count(op) for op in ("Conv", "DepthToSpace", "Concat")] == [1, 1, 0]


def test_large_strides_take_few_nodes() -> None:
    """As the patches of a vision transformer."""
    assert len(written(conv("", (1, 3, 32, 48), (5, 3, 16, 16), strides=[16, 16]))) < 10
    assert len(written(conv("", (1, 17, 32, 48), (5, 17, 16, 8), strides=[16, 8]))) < 10


@pytest.mark.parametrize("w", [(4, 3, 1), (3, 1, 5)], ids=["kernel 1", "depthwise"])
def test_constants_do_not_grow_with_the_length_of_a_sequence(w: tuple[int, ...]) -> None:
    case = conv("", (1, 3, 4000), w, strides=[3], group=3 // w[1])
    made = differentiate(one_node(case, np.float32), ["x0"], ["y0"]).model
    assert max(onnx.numpy_helper.to_array(i).size for i in made.graph.initializer) < 5000


@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_open_sizes_need_no_transposed_convolution_at_stride_1(strides: list[int]) -> None:
    case = conv("", X, (4, 3, 3, 3), pads=[1, 1, 1, 1], strides=strides)
    found = written(case, {0: {0: "batch", 2: "height", 3: "width"}})
    assert ("ConvTranspose" in found) == (strides == [2, 2])


@pytest.mark.parametrize(
    "case",
    [
        conv("dense", (1, 32, 6, 8), (64, 32, 3, 3), pads=[1, 1, 1, 1]),
        conv("strided", (1, 32, 6, 8), (64, 32, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        conv("stem", (1, 3, 12, 8), (256, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
        conv("depthwise", (1, 512, 6, 8), (512, 1, 5, 5), group=512, strides=[2, 2]),
    ],
    ids=str,
)
def test_the_file_holds_the_weight_once(case: Case) -> None:
    forward = one_node(case, np.float32)
    made = differentiate(forward, ["x0"], ["y0"])
    before, after = (
        sum(onnx.numpy_helper.to_array(i).nbytes for i in model.graph.initializer)
        for model in (forward, made.model)
    )
    assert after < 1.1 * before


@pytest.mark.parametrize(
    "case",
    [
        conv("dense", (1, 32, 6, 8), (16, 32, 3, 3), pads=[1, 1, 1, 1]),
        conv("groups", (1, 32, 6, 8), (64, 16, 3, 3), group=2),
        conv("stem", (1, 3, 12, 8), (16, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
    ],
    ids=str,
)
def test_a_session_turns_the_kernel_at_load(case: Case, tmp_path: Path) -> None:
    made = differentiate(one_node(case, np.float32, case.open_batch()), ["x0"], ["y0"])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        made.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not left & {"Transpose", "Pad", "Slice"}


@pytest.mark.parametrize("case", [c for c in CONVOLUTIONS if len(c.inputs[0]) > 1][::4], ids=str)
def test_rows_of_a_batch_do_not_mix(case: Case) -> None:
    made = differentiate(one_node(case, np.float32, case.open_batch()), ["x0"], ["y0"]).model
    x = uniform(3, *case.inputs[0].shape[1:], seed=3).astype(np.float32)
    rest = {f"x{i}": case.inputs[i].astype(np.float32) for i in case.graph_inputs if i}
    forward = run(one_node(case, np.float32, case.open_batch()), {"x0": x, **rest})["y0"]
    dy = uniform(*forward.shape, seed=4).astype(np.float32)
    together = run(made, {"x0": x, "dy/y0": dy, **rest})["d/x0"]
    for i in range(3):
        alone = run(made, {"x0": x[i : i + 1], "dy/y0": dy[i : i + 1], **rest})["d/x0"]
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-5, atol=1e-6)


# -- refusals ------------------------------------------------------------------------------


def test_a_kernel_of_open_size_is_refused() -> None:
    case = conv("", X, (4, 3, 3, 2), wrt=(0, 1))
    open_kernel = {0: {0: "batch"}, 1: {2: "height"}}
    with pytest.raises(UnsupportedOpsError, match="sizes of its kernel are known at run time"):
        written(case, open_kernel)


def test_the_gradient_of_a_kernel_is_refused_where_the_padding_is_open() -> None:
    case = conv("", X, (4, 3, 3, 2), wrt=(1,), strides=[2, 2], auto_pad="SAME_UPPER")
    with pytest.raises(UnsupportedOpsError, match="padding depends on a size"):
        written(case, {0: {0: "batch", 2: "height", 3: "width"}})


def test_a_chosen_output_shape_is_refused_where_the_input_is_open() -> None:
    case = transposed("", (2, 3, 4, 3), (3, 4, 3, 3), [1, 0], strides=[2, 2], output_shape=[8, 7])
    with pytest.raises(UnsupportedOpsError, match="its sizes are known at run time only"):
        written(case, {0: {0: "batch", 2: "height", 3: "width"}})
