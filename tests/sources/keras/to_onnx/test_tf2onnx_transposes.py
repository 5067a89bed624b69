"""Convolutions and transposes where tf2onnx by itself converts wrongly, against eager Keras.

A third of the cases are branches of one model, each with an input and an output of its own, so that
one conversion serves them all. Each is asked for its prediction and its gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

import probegen as pg
from probegen.sources.keras.to_onnx.tf2onnx_fixes import fix_output_shapes, fix_transposes

L, ops = keras.layers, keras.ops


class Weighted(keras.layers.Layer):
    """Multiplies by, or adds, a weight that broadcasts against its input."""

    def __init__(self, shape: tuple[int, ...], *, adds: bool = False) -> None:
        super().__init__()
        self.shape, self.adds = shape, adds

    def build(self, _: Any) -> None:
        self.weight = self.add_weight(shape=self.shape, initializer="ones")

    def call(self, x: Any) -> Any:
        return x + self.weight if self.adds else x * self.weight


def _after_dense(layer: Any, *shape: int | None) -> tuple[tuple[int | None, ...], list[Any]]:
    """A transposed convolution behind a Dense, where tf2onnx has lost the image's size."""
    return shape, [L.Dense(4), layer]


def _two(layer: Callable[..., Any], *sizes: Any, **more: Any) -> Any:
    return layer(2, *sizes, **more)


def _reduced(first: Any, function: Any, axis: int, shape: Any = (2, 3, 1)) -> Any:
    return shape, [first, L.Lambda(lambda x: function(x, axis=axis))]


def _plain(layer: Callable[..., Any], channels: int, size: Any, **more: Any) -> Any:
    return layer(channels, size, use_bias=False, **more)


def _has_holes() -> bool:
    """Tells whether this TensorFlow runs transposed convolutions with holes.

    It does with oneDNN alone, which it leaves out on processors without AVX-512.
    """
    try:
        image, kernel = tf.zeros((1, 2, 2, 1)), tf.zeros((2, 2, 1, 1))
        tf.nn.conv2d_transpose(image, kernel, (1, 2, 2, 1), 1, "SAME", dilations=2)
    except tf.errors.InvalidArgumentError:
        return False
    return True


#: Name -> shape of the input without the batch, layers.
CASES: dict[str, tuple[tuple[int | None, ...], list[Any]]] = {
    "odd": _after_dense(_two(L.Conv2DTranspose, 3, strides=2, padding="same"), 5, 7, 3),
    "odd both": _after_dense(_two(L.Conv2DTranspose, 4, strides=3, padding="same"), 4, 5, 3),
    "one odd": _after_dense(
        _two(L.Conv2DTranspose, (3, 2), strides=(2, 3), padding="same"), 4, 5, 3
    ),
    "stride above kernel": _after_dense(
        _two(L.Conv2DTranspose, 2, strides=3, padding="same"), 4, 5, 3
    ),
    "output padding": _after_dense(
        _two(L.Conv2DTranspose, 3, strides=2, padding="same", output_padding=1), 4, 5, 3
    ),
    "valid": _after_dense(_two(L.Conv2DTranspose, 3, strides=2), 4, 5, 3),
    "dilated": _after_dense(
        _two(L.Conv2DTranspose, 3, dilation_rate=2, padding="same"), 4, 5, 3
    ),
    "open": _after_dense(
        _two(L.Conv2DTranspose, 3, strides=2, padding="same"), None, None, 3
    ),
    "open height": _after_dense(
        _two(L.Conv2DTranspose, (2, 4), strides=3, padding="same"), None, 5, 3
    ),
    "stride two above kernel": ((4, 5, 3), [_two(L.Conv2DTranspose, (1, 2), strides=3)]),
    "stride two above kernel, same": (
        (4, 5, 3), [_two(L.Conv2DTranspose, (1, 2), strides=4, padding="same")]
    ),
    "1-D": _after_dense(_two(L.Conv1DTranspose, 3, strides=2, padding="same"), 5, 3),
    "1-D open": _after_dense(_two(L.Conv1DTranspose, 3, strides=2, padding="same"), None, 3),
    "3-D": _after_dense(_two(L.Conv3DTranspose, 3, strides=2, padding="same"), 3, 4, 5, 3),
    "3-D open": _after_dense(
        _two(L.Conv3DTranspose, 3, strides=2, padding="same"), None, 4, None, 3
    ),
    "sum of height 1": _reduced(L.AveragePooling2D((2, 1)), ops.sum, 1),
    "norm of height 1": _reduced(L.AveragePooling2D((2, 1)), ops.norm, 1),
    "norm over width": _reduced(L.AveragePooling2D((2, 1)), ops.norm, 2),
    "deviation over width": _reduced(L.MaxPooling2D((2, 1)), ops.std, 2),
    "norm of width 1": _reduced(L.AveragePooling2D((1, 2)), ops.norm, 1, (3, 2, 1)),
    "norm in 3-D": _reduced(L.AveragePooling3D((3, 1, 1)), ops.norm, 2, (3, 4, 5, 1)),
    "product of height 1": _reduced(_plain(L.Conv2D, 1, (2, 1)), ops.prod, 1),
    "RMS of a pixel": ((1, 1, 4), [L.Conv2D(3, 1), L.RMSNormalization()]),
    "LayerNormalization of a pixel": ((1, 1, 4), [L.Conv2D(3, 1), L.LayerNormalization()]),
    "one filter times a vector": ((4, 5, 3), [_plain(L.Conv2D, 1, 2), Weighted((5,))]),
    "one filter times columns": ((4, 5, 3), [_plain(L.Conv2D, 1, 2), Weighted((4, 1))]),
    "one filter plus a vector": ((4, 5, 3), [_plain(L.Conv2D, 1, 2), Weighted((5,), adds=True)]),
    "columns as many as filters": (
        (4, 5, 3), [_plain(L.Conv2D, 4, 2), Weighted((4, 1), adds=True)]
    ),
    "rows as many as filters": (
        (4, 5, 3), [_plain(L.Conv2D, 3, 2), Weighted((3, 1, 1), adds=True)]
    ),
    "one transposed filter times a vector": (
        (2, 3, 3), [_plain(L.Conv2DTranspose, 1, 2), Weighted((5,))]
    ),
    "one filter in 1-D": ((5, 3), [_plain(L.Conv1D, 1, 2), Weighted((6,))]),
    "one filter in 3-D": ((3, 4, 5, 2), [_plain(L.Conv3D, 1, 2), Weighted((6,))]),
    "channels": ((4, 5, 3), [_plain(L.Conv2D, 2, 2), Weighted((2,)), Weighted((2,), adds=True)]),
}  # fmt: skip
if not _has_holes():
    del CASES["dilated"]


def _apply(layers: list[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _sines(ys: Any) -> Any:
    return sum(ops.sum(ops.sin(y), axis=list(range(1, len(y.shape)))) for y in ys)


class _Model:
    """A model of some cases as it is, and its artefact."""

    def __init__(self, cases: dict[str, tuple[tuple[int | None, ...], list[Any]]], path: Path):
        self.cases = cases
        xs = [keras.Input(shape, name=f"x{i}") for i, (shape, _) in enumerate(cases.values())]
        ys = [_apply(layers, x) for x, (_, layers) in zip(xs, cases.values(), strict=True)]
        model = keras.Model(xs, ys)
        rng = np.random.default_rng(0)
        for variable in model.variables:
            variable.assign(rng.normal(0, 0.5, variable.shape))
        pg.compile(model, [pg.InputGradient(target=_sines)], path, verify=False, gate=False)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answers(self, batch: int, size: int) -> dict[str, Any]:
        """Returns name -> prediction and gradient, found and expected."""
        rng = np.random.default_rng(batch)
        shapes = [[batch, *(d or size for d in shape)] for shape, _ in self.cases.values()]
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        names = [o.name for o in self.session.get_outputs()]
        feed = {f"x{i}": array for i, array in enumerate(arrays)}
        found = dict(zip(names, self.session.run(None, feed), strict=True))
        predictions = [found[name] for name in names if not name.startswith("input_gradient/")]
        result = {}
        for i, (name, (_, layers)) in enumerate(self.cases.items()):
            x = tf.constant(arrays[i])
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = _apply(layers, x)
                total = tf.reduce_sum(tf.sin(y))
            gradient = tape.gradient(total, x).numpy()
            result[name] = (predictions[i], y.numpy()), (found[f"input_gradient/x{i}"], gradient)
        return result


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], _Model]:
    @functools.cache
    def of(third: int) -> _Model:
        cases = dict(list(CASES.items())[third::3])
        return _Model(cases, tmp_path_factory.mktemp("transposes") / "some.onnx")

    return of


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize(("batch", "size"), [(1, 4), (3, 6)])
def test_as_eager_keras(models: Any, batch: int, size: int, third: int) -> None:
    """At two batches and open sizes."""
    for name, pairs in models(third).answers(batch, size).items():
        for found, expected in pairs:
            assert found.shape == expected.shape, name
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)


# -- the mends, on small graphs ----------------------------------------------------------------


def _model(node: Any, shape: list[Any], *constants: Any) -> ir.Model:
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        list(constants),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_larger_half_of_an_odd_padding_is_behind(size: int, kernel: int, stride: int) -> None:
    """Every size that TensorFlow allows for an image of `size`, by SAME."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, size, 4, 1)).astype(np.float32)
    w = rng.normal(size=(kernel, 1, 1, 1)).astype(np.float32)
    for rows in range(stride * (size - 1) + 1, stride * size + 1):
        node = helper.make_node(
            "ConvTranspose", ["x", "w"], ["y"], strides=[stride, 1], output_shape=[rows, 4]
        )
        held = onnx.numpy_helper.from_array(w.transpose(2, 3, 0, 1), "w")
        model = _model(node, ["n", 1, size, 4], held)
        fix_output_shapes(model.graph)
        assert "output_shape" not in model.graph.node(0).attributes
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        found = session.run(None, {"x": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
        expected = tf.nn.conv2d_transpose(x, w, (2, rows, 4, 1), (stride, 1), "SAME").numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "perm", "target"),
    [
        (["n", 3, 1, 1], [0, 2, 3, 1], [0, 1, 1, 3]),
        (["n", 1, "h", "w"], [0, 2, 3, 1], None),
        (["n", 1, "h", 4], [0, 2, 3, 1], [0, -1, 4, 1]),
        (["n", 2, 1, 3], [0, 2, 3, 1], None),
        ([1, "n", 3], [1, 0, 2], [-1, 1, 3]),
        (["n", "c", 1, 1], [0, 2, 3, 1], [0, 1, 1, -1]),
        (["n", 0, 1], [0, 2, 1], None),
    ],
)
def test_a_transpose_of_single_axes_is_a_reshape(
    shape: list[Any], perm: list[int], target: list[int] | None
) -> None:
    model = _model(helper.make_node("Transpose", ["x"], ["y"], perm=perm), shape)
    fix_transposes(model.graph)
    node = model.graph.node(0)
    assert node.op_type == ("Transpose" if target is None else "Reshape")
    if target is not None:
        assert node.inputs[1].const_value.numpy().tolist() == target
        x = np.random.default_rng(0).normal(size=[s if isinstance(s, int) else 5 for s in shape])
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
        (found,) = session.run(None, {"x": x.astype(np.float32)})
        np.testing.assert_array_equal(found, x.astype(np.float32).transpose(perm))


@pytest.mark.parametrize("first", [[0, 1, 1, 3], [-1, 1, 1, 3], [0, 1, 1, -1]])
def test_a_transpose_behind_a_reshape_joins_it(first: list[int]) -> None:
    """Squeeze-and-excite blocks have both."""
    nodes = [
        helper.make_node("Reshape", ["x", "first"], ["h"]),
        helper.make_node("Transpose", ["h"], ["y"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(np.array(first), "first")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    fix_transposes(model.graph)
    last = model.graph.node(1)
    assert (last.op_type, last.inputs[0].name) == ("Reshape", "x")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x.reshape(4, 3, 1, 1))
