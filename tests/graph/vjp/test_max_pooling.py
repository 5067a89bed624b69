"""Gradients of max pooling: against loops, against TensorFlow, and at ties."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import (
    Case,
    apart,
    check,
    check_rows_apart,
    differentiate,
    one_node,
    run,
    uniform,
    written,
)
from tests.reference_spatial import max_pool_gradient

X = (2, 3, 7, 6)

#: Channels in whole blocks: in float32 maxima are found by pairs.
BLOCK = (2, 16, 7, 6)


def ties(*shape: int) -> np.ndarray:
    """Returns values of which many are equal, most of them the smallest there is."""
    return np.maximum(np.random.default_rng(5).integers(-3, 3, shape), 0).astype(np.float64)


def max_pool(name: str, x: np.ndarray, kernel: list[int], **attributes: Any) -> Case:
    """Returns a MaxPool, held against the loops."""
    opset = attributes.pop("opset", 18)
    attributes["kernel_shape"] = kernel
    return Case(
        op="MaxPool",
        inputs=[x],
        attributes=attributes,
        numeric=False,
        twin=lambda dys, x: [max_pool_gradient(dys[0], x, attributes)],
        opset=opset,
        name=name,
    )


MAXIMA = [
    case
    for x in (apart(*X), ties(*X), apart(*BLOCK), ties(*BLOCK), -1 - ties(*BLOCK))
    for case in (
        max_pool("2, stride 2", x, [2, 2], strides=[2, 2]),
        max_pool("2, stride 1", x, [2, 2]),
        max_pool("3, stride 2, same", x, [3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        max_pool("3, stride 2, same lower", x, [3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        max_pool("3, stride 1, padded", x, [3, 3], pads=[1, 1, 1, 1]),
        max_pool("3x2, strides 2x1", x, [3, 2], strides=[2, 1], pads=[1, 0, 0, 1]),
        max_pool("2x3, stride 2", x, [2, 3], strides=[2, 2]),
        max_pool("3, stride 3", x, [3, 3], strides=[3, 3], pads=[0, 0, 0, 2]),
        max_pool("3, stride 2, ceiling", x, [3, 3], strides=[2, 2], ceil_mode=1),
        max_pool("stride beyond the window", x, [2, 2], strides=[3, 4]),
        max_pool("dilated", x, [2, 3], dilations=[3, 2], strides=[2, 1]),
        max_pool("4x2", x, [4, 2], strides=[2, 3], pads=[1, 0, 2, 1]),
        max_pool("single elements", x, [1, 1], strides=[2, 3]),
        max_pool("single rows", x, [1, 2], strides=[2, 2]),
    )
]
_OPEN_CHANNELS: dict[int, dict[int, str]] = {0: {0: "batch", 1: "channels"}}
MAXIMA += [
    dataclasses.replace(
        max_pool(f"single elements of open channels, {rank}-D", ties(*x), [1] * rank, strides=s),
        batch=_OPEN_CHANNELS,
    )
    for rank, x, s in ((1, (2, 3, 9), [2]), (2, (2, 3, 5, 7), [3, 2]), (2, (2, 3, 5, 70), [2, 2]))
]
MAXIMA += [
    max_pool("1-D", ties(2, 3, 9), [3], strides=[2], pads=[1, 0]),
    max_pool("3-D", ties(2, 2, 4, 5, 3), [2, 3, 2], strides=[2, 2, 1], auto_pad="SAME_UPPER"),
    max_pool("no overlap, opset 13", ties(*X), [2, 2], strides=[2, 3], opset=13),
    max_pool("a hole around it", apart(1, 1, 1), [2], dilations=[2], pads=[1, 1]),
    max_pool("a hole around rows", ties(2, 3, 2, 4), [2, 2], dilations=[3, 2], pads=[1, 0, 1, 0]),
]


@pytest.mark.parametrize("case", MAXIMA, ids=str)
def test_gradient_goes_to_the_first_greatest(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("x", [ties(*X), ties(*BLOCK)], ids=["odd channels", "a block"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (2, 2, "SAME"),
        (3, 2, "SAME"),
        (3, 1, "SAME"),
        (2, 2, "VALID"),
        (3, 2, "VALID"),
        (2, 3, "VALID"),
    ],
)
def test_ties_go_where_tensorflow_sends_them(
    x: np.ndarray, kernel: int, stride: int, padding: str
) -> None:
    def function(x: Any) -> Any:
        import tensorflow as tf

        pooled = tf.nn.max_pool2d(tf.transpose(x, [0, 2, 3, 1]), kernel, stride, padding)
        return tf.transpose(pooled, [0, 3, 1, 2])

    check(
        Case(
            op="MaxPool",
            inputs=[x],
            attributes={
                "kernel_shape": [kernel, kernel],
                "strides": [stride, stride],
                "auto_pad": "SAME_UPPER" if padding == "SAME" else "VALID",
            },
            numeric=False,
            tensorflow=function,
        )
    )


def test_maxima_of_large_and_small_numbers_are_told_apart() -> None:
    x = np.array([1e-30, 2e-30, -3e38, 3e38, 1.0, np.nextafter(np.float32(1), np.float32(2))])
    x = np.broadcast_to(x, (1, 16, 2, 6)).astype(np.float64)
    check(max_pool("", x, [1, 2], strides=[1, 2]))
    check(max_pool("", x, [2, 2], strides=[2, 2]))


def test_whole_blocks_of_channels_need_no_scatter() -> None:
    """In float32: other element types, and open sizes, take indices."""
    case = max_pool("", apart(*BLOCK), [3, 3], strides=[2, 2])
    assert not {"ScatterElements", "Where", "Greater"} & set(written(case))
    assert "ScatterElements" in written(case, element=np.float64)
    assert "ScatterElements" in written(case, {0: {2: "height"}})


def test_the_forward_node_is_not_asked_for_indices() -> None:
    case = max_pool("", apart(*X), [3, 3], strides=[2, 2])
    made = differentiate(one_node(case, np.float32), ["x0"], ["y0"]).model
    forward = next(node for node in made.graph.node if node.name == "MaxPool")
    assert len(forward.output) == 1


def test_overlapping_windows_are_refused_where_runtimes_cannot_add_at_indices() -> None:
    case = max_pool("", apart(*X), [3, 3], strides=[2, 2], opset=15)
    with pytest.raises(UnsupportedOpsError, match="needs opset 16"):
        written(case)


# -- over everything, and back --------------------------------------------------------------


GLOBAL = [Case(op="GlobalMaxPool", inputs=[apart(*X)])]
#: Places in an image of 2x3x4x6, where what was greatest goes back to.
_PLACES = np.array([[[[0, 9], [14, 17]]] * 3, [[[1, 4], [13, 22]]] * 3])
_PLACES = _PLACES + 24 * np.arange(6).reshape(2, 3, 1, 1)
UNPOOLED = [
    Case(
        op="MaxUnpool",
        inputs=[uniform(2, 3, 2, 2), _PLACES, *more],
        attributes={"kernel_shape": kernel, "strides": kernel},
        constants={2},
        batch={},
        ranks={0: 4},
        open_all=False,
        double=False,
        numeric=False,
        twin=lambda dys, _, places, *__: [dys[0].reshape(-1)[places]],
        name=name,
    )
    for name, kernel, more in (
        ("usual", [2, 3], []),
        ("to a size", [2, 2], [np.array([2, 3, 4, 6])]),
    )
]


@pytest.mark.parametrize("case", [*GLOBAL, *UNPOOLED], ids=str)
def test_gradient_is_that_of_finite_differences(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("shape", [X, (2, 3, 5), (2, 3, 4, 2, 5)], ids=str)
def test_the_first_greatest_of_everything_gets_all(shape: tuple[int, ...]) -> None:
    x = ties(*shape)
    flat = x.reshape(2, 3, -1)

    def twin(dys: Any, _: Any) -> list[Any]:
        chosen = np.arange(flat.shape[2]) == flat.argmax(axis=2)[..., None]
        return [(chosen * dys[0].reshape(2, 3, 1)).reshape(x.shape)]

    # onnx's evaluator always takes two spatial axes.
    check(Case(op="GlobalMaxPool", inputs=[x], numeric=False, twin=twin, double=len(shape) == 4))


@pytest.mark.parametrize(
    "case",
    [
        max_pool("by pairs", apart(3, 16, 6, 5), [3, 3], strides=[2, 2]),
        max_pool("by indices", apart(3, 2, 6, 5), [3, 3], strides=[2, 2]),
        Case(op="GlobalMaxPool", inputs=[apart(3, 2, 6, 5)]),
    ],
    ids=str,
)
def test_rows_of_a_batch_do_not_mix(case: Case) -> None:
    check_rows_apart(case)


RECTIFIED = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, 16, 7, 6] x) => (float[n, 16, 4, 3] y) {
        r = Relu(x)
        y = MaxPool <kernel_shape: ints = [3, 2], strides: ints = [2, 2], pads: ints = [1, 0, 1, 0]>
            (r)
    }
"""


@pytest.mark.parametrize("wrt", [["x"], ["x", "r"]], ids=str)
def test_a_rectifier_before_a_maximum_is_passed_with_it(wrt: list[str]) -> None:
    """At ties, most of them at 0, where the rectifier's slope is 0 whoever the maximum is."""
    model = onnx.parser.parse_model(RECTIFIED)
    made = differentiate(model, wrt, ["y"]).model
    x = np.random.default_rng(5).integers(-3, 3, (2, 16, 7, 6)).astype(np.float32)
    dy = uniform(2, 16, 4, 3, seed=4).astype(np.float32)
    found = run(made, {"x": x, "dy/y": dy})
    geometry = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
    expected = max_pool_gradient(dy, np.maximum(x, 0), geometry)
    np.testing.assert_allclose(found["d/x"], expected * (x > 0), atol=1e-6)
    if "r" in wrt:
        np.testing.assert_allclose(found["d/r"], expected, atol=1e-6)


def test_the_mask_of_a_rectifier_is_taken_of_the_maxima() -> None:
    made = differentiate(onnx.parser.parse_model(RECTIFIED), ["x"], ["y"])
    assert made.nodes[0].op_type == "HardSigmoid"
    assert made.nodes[0].inputs[0].name == "y"


INFINITE_PADDING = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, {channels}, 7, 6] x) => (float[n, {channels}, 4, 3] y)
    <int64[8] widths = {{0, 0, 1, 0, 0, 0, 1, 1}}>
    {{
        f = Mul(x, two)
        p = Pad(f, widths, lowest)
        y = MaxPool <kernel_shape: ints = [3, 3], strides: ints = [2, 2]> (p)
    }}
"""


@pytest.mark.parametrize("channels", [5, 16])
@pytest.mark.parametrize("lowest", [-np.inf, -3.4e38])
def test_padding_with_minus_infinity_loses_every_comparison(channels: int, lowest: float) -> None:
    """As ResNets of timm pad before a maximum; nothing multiplies infinity by 0."""
    model = onnx.parser.parse_model(INFINITE_PADDING.format(channels=channels))
    for name, value in (("lowest", lowest), ("two", 2)):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        )
    made = differentiate(model, ["x"], ["y"]).model
    x = np.random.default_rng(6).integers(-3, 3, (2, channels, 7, 6)).astype(np.float32)
    dy = uniform(2, channels, 4, 3, seed=4).astype(np.float32)
    padded = np.pad(2 * x, [(0, 0), (0, 0), (1, 1), (0, 1)], constant_values=-1e30)
    expected = max_pool_gradient(dy, padded, {"kernel_shape": [3, 3], "strides": [2, 2]})
    found = run(made, {"x": x, "dy/y": dy})["d/x"]
    np.testing.assert_allclose(found, 2 * expected[:, :, 1:-1, :-1], atol=1e-6)
