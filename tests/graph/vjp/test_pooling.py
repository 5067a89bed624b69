"""Gradients of average and norm pooling: against loops and against TensorFlow."""

from __future__ import annotations

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
    feeds_of,
    one_node,
    run,
    uniform,
    written,
)
from tests.reference_spatial import average_pool_gradient

X = (2, 3, 7, 6)

# -- averages ------------------------------------------------------------------------------


def average_pool(name: str, x: tuple, kernel: list[int], **attributes: Any) -> Case:
    """Returns an AveragePool, held against the loops."""
    attributes["kernel_shape"] = kernel
    opset = attributes.pop("opset", 18)
    return Case(
        op="AveragePool",
        inputs=[uniform(*x)],
        attributes=attributes,
        numeric=False,
        twin=lambda dys, x: [average_pool_gradient(dys[0], x, attributes)],
        opset=opset,
        name=f"{name}{', counted' if attributes.get('count_include_pad') else ''}",
    )


AVERAGES = [
    case
    for counted in (0, 1)
    for case in (
        average_pool("2, stride 2, dropping", X, [2, 2], strides=[2, 2], count_include_pad=counted),
        average_pool("3, same", X, [3, 3], auto_pad="SAME_UPPER", count_include_pad=counted),
        average_pool("3, padded", X, [3, 2], pads=[1, 1, 2, 0], count_include_pad=counted),
        average_pool(
            "3, stride 2, same",
            X,
            [3, 3],
            strides=[2, 2],
            auto_pad="SAME_LOWER",
            count_include_pad=counted,
        ),
        average_pool(
            "strides", X, [2, 3], strides=[3, 2], pads=[0, 1, 1, 1], count_include_pad=counted
        ),
        average_pool(
            "ceiling",
            X,
            [3, 3],
            strides=[2, 2],
            pads=[1, 0, 1, 0],
            ceil_mode=1,
            count_include_pad=counted,
        ),
        average_pool(
            "dilated",
            X,
            [2, 3],
            dilations=[2, 2],
            pads=[1, 1, 0, 1],
            opset=19,
            count_include_pad=counted,
        ),
        average_pool(
            "dilated, stride",
            X,
            [2, 2],
            dilations=[3, 1],
            strides=[2, 2],
            opset=19,
            count_include_pad=counted,
        ),
        average_pool("1-D", (2, 3, 9), [3], strides=[2], pads=[1, 1], count_include_pad=counted),
        average_pool(
            "3-D",
            (1, 2, 4, 5, 3),
            [2, 3, 2],
            strides=[2, 1, 2],
            pads=[0, 1, 0, 0, 1, 1],
            count_include_pad=counted,
        ),
        average_pool(
            "3-D, same",
            (1, 2, 4, 5, 3),
            [2, 3, 2],
            auto_pad="SAME_UPPER",
            count_include_pad=counted,
        ),
    )
]
AVERAGES += [
    average_pool("whole input", X, [7, 6]),
    average_pool("single elements, stride", X, [1, 1], strides=[2, 3]),
]


@pytest.mark.parametrize("case", AVERAGES, ids=str)
def test_averages(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("open_axes", [{}, {0: {2: "height"}}], ids=["known", "open"])
@pytest.mark.parametrize(("counted", "opset"), [(0, 13), (1, 13), (0, 19), (1, 19)])
def test_a_window_that_is_larger_than_the_input(counted: int, opset: int, open_axes: Any) -> None:
    """onnxruntime has it where the stride is larger still.

    Where padding counts, all of it does, up to opset 18.
    """
    attributes = {"kernel_shape": [2, 1], "strides": [3, 3], "count_include_pad": counted}
    x = uniform(2, 3, 1, 5)
    case = Case(op="AveragePool", inputs=[x], attributes=attributes, opset=opset)
    dys = {"y0": np.array([1.5, -2], np.float32) * np.ones((2, 3, 1, 1), np.float32)}
    forward = one_node(case, np.float32, open_axes)
    made = differentiate(forward, ["x0"], ["y0"]).model
    fed = feeds_of(case, np.float32)
    found = run(made, fed | {f"dy/{k}": v for k, v in dys.items()}, need_kernels=True)
    share = np.array([1.5, 0, 0, -2, 0]) / (2 if counted and opset < 19 else 1)
    np.testing.assert_allclose(found["d/x0"], np.broadcast_to(share, (2, 3, 1, 5)), rtol=1e-6)
    # It is linear: the gradient says what comes out.
    pooled = run(forward, fed, need_kernels=True)["y0"] * dys["y0"]
    np.testing.assert_allclose((found["d/x0"] * fed["x0"]).sum(), pooled.sum(), rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_averages_are_those_of_tensorflow(stride: int) -> None:
    def function(x: Any) -> Any:
        import tensorflow as tf

        pooled = tf.nn.avg_pool2d(tf.transpose(x, [0, 2, 3, 1]), 3, stride, "SAME")
        return tf.transpose(pooled, [0, 3, 1, 2])

    check(
        Case(
            op="AveragePool",
            inputs=[uniform(*X)],
            attributes={
                "kernel_shape": [3, 3],
                "strides": [stride, stride],
                "auto_pad": "SAME_UPPER",
            },
            tensorflow=function,
        )
    )


STRUCTURES = [
    (average_pool("blocks", (2, 3, 8, 6), [2, 3], strides=[2, 3]), ["Mul", "Resize"]),
    (average_pool("counted", X, [3, 3], pads=[1, 1, 1, 1], count_include_pad=1), ["AveragePool"]),
    (average_pool("same", X, [3, 3], auto_pad="SAME_UPPER"), ["Mul", "AveragePool"]),
    (average_pool("overlapping", X, [3, 3], strides=[2, 2]), ["MatMul", "MatMul"]),
]


@pytest.mark.parametrize(("case", "expected"), STRUCTURES, ids=str)
def test_averages_take_few_nodes(case: Case, expected: list[str]) -> None:
    assert written(case) == expected


@pytest.mark.parametrize("op", ["AveragePool", "LpPool"])
def test_constants_do_not_grow_with_the_length_of_a_sequence(op: str) -> None:
    case = Case(
        op=op,
        inputs=[apart(1, 2, 1000)],
        attributes={"kernel_shape": [3], "strides": [2], "pads": [0, 1]},
        batch={},
        open_all=False,
        numeric=False,
        twin=(lambda dys, x: [average_pool_gradient(dys[0], x, case.attributes)])
        if op == "AveragePool"
        else (lambda dys, x: [lp_pool_gradient(dys[0], x)]),
    )
    check(case)
    made = differentiate(one_node(case, np.float32), ["x0"], ["y0"]).model
    assert max(onnx.numpy_helper.to_array(i).size for i in made.graph.initializer) < 1000


def lp_pool_gradient(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """That of windows of 3, 2 apart, one padded at the end."""
    padded, dx = np.pad(x, [(0, 0), (0, 0), (0, 1)]), np.zeros((*x.shape[:2], x.shape[2] + 1))
    for o in range(dy.shape[2]):
        window = padded[:, :, 2 * o : 2 * o + 3]
        norm = np.sqrt((window**2).sum(axis=2))
        dx[:, :, 2 * o : 2 * o + 3] += (dy[:, :, o] / norm)[..., None] * window
    return dx[:, :, :-1]


def test_norms_of_a_ceiling_and_open_sizes_are_refused() -> None:
    case = Case(
        op="LpPool",
        inputs=[uniform(2, 3, 6, 3)],
        attributes={"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
    )
    with pytest.raises(UnsupportedOpsError, match="runtimes do not agree"):
        written(case, case.open_everything())


# -- over everything, and norms ------------------------------------------------------------


def global_lp(dys: Any, x: Any, p: int) -> list[Any]:
    y = (np.abs(x) ** p).sum(axis=(2, 3), keepdims=True) ** (1 / p)
    return [dys[0] * y ** (1 - p) * np.sign(x) * np.abs(x) ** (p - 1)]


GLOBAL = [
    Case(op="GlobalAveragePool", inputs=[uniform(*X)]),
    Case(op="GlobalAveragePool", inputs=[uniform(2, 3, 5)]),
    # Neither onnxruntime nor onnx's evaluator has these in float64.
    *(
        Case(
            op="GlobalLpPool",
            inputs=[apart(*X)],
            attributes={"p": p},
            numeric=False,
            twin=lambda dys, x, p=p: global_lp(dys, x, p),
            double=False,
            name=f"p {p}",
        )
        for p in (1, 2, 3)
    ),
]
NORMS = [
    Case(
        op="LpPool",
        inputs=[apart(2, 3, 5, 3)],
        attributes={"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1], "p": p},
        name=f"p {p}",
    )
    for p in (1, 2, 3)
]


@pytest.mark.parametrize("case", [*GLOBAL, *NORMS], ids=str)
def test_gradient_is_that_of_finite_differences(case: Case) -> None:
    check(case)


def test_a_norm_of_zeros_has_gradient_zero() -> None:
    case = Case(op="LpPool", inputs=[np.zeros((1, 2, 4, 4))], attributes={"kernel_shape": [2, 2]})
    made = differentiate(one_node(case, np.float32), ["x0"], ["y0"]).model
    feeds = {"x0": np.zeros((1, 2, 4, 4), np.float32), "dy/y0": np.ones((1, 2, 3, 3), np.float32)}
    np.testing.assert_array_equal(run(made, feeds)["d/x0"], 0)


def test_rows_of_a_batch_do_not_mix() -> None:
    check_rows_apart(average_pool("", (3, 2, 6, 5), [3, 3], strides=[2, 2]))
