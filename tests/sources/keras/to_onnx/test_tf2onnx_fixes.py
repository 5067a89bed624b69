"""What tf2onnx writes wrongly, put right in the graph."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, helper, numpy_helper

import probegen as pg
from probegen import runtime
from probegen.graph.gate import add_gate
from probegen.sources.keras.to_onnx.tf2onnx_fixes import fix_empty_inputs, fix_scales


def resize(size: int | str, scale: float, opset: int = 18) -> ir.Model:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(np.array([1, scale], np.float32), "scales")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def resized(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    proto.ir_version = 10
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.arange(24, dtype=np.float32).reshape(2, 12)})
    return y


def inferred(model: ir.Model) -> int:
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    return proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value


@pytest.mark.parametrize("opset", [13, 18])
def test_shape_inference_finds_the_size_that_was_meant(opset: int) -> None:
    model = resize(12, 7 / 12, opset)
    before = resized(model)
    assert (inferred(model), before.shape) == (6, (2, 7))
    assert fix_scales(model.graph)
    assert inferred(model) == 7
    np.testing.assert_array_equal(resized(model), before)
    assert not fix_scales(model.graph)


def test_a_size_is_what_was_meant_where_no_precision_gives_it() -> None:
    model = resize(11, 13 / 11)
    assert (inferred(model), np.floor(np.float32(13 / 11) * np.float32(11))) == (12, 12)
    assert fix_scales(model.graph)
    assert inferred(model) == 13


@pytest.mark.parametrize(("size", "scale"), [(12, 0.5), (12, 2), (10, 0.75), ("width", 7 / 12)])
def test_other_scales_stay(size: int | str, scale: float) -> None:
    model = resize(size, scale)
    assert not fix_scales(model.graph)


def image_resize(opset: int, scales: np.ndarray, sizes: np.ndarray | None) -> ir.Model:
    """A Resize of images with channels last, as tf2onnx writes it: between two transposes."""
    batch = "batch" if sizes is None else 3
    constants = {"roi": np.zeros(0, np.float32), "scales": scales}
    if sizes is not None:
        constants["sizes"] = sizes
    nodes = [
        helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["planes", *constants], ["resized"], mode="linear"),
        helper.make_node("Transpose", ["resized"], ["y"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 9, 7, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 13, 17, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        value_info=[helper.make_tensor_value_info("planes", TensorProto.FLOAT, [batch, 2, 9, 7])],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def interpolated(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Returns x interpolated along one axis; pixels are centred on halves."""
    at = (np.arange(size) + 0.5) * x.shape[axis] / size - 0.5
    return np.apply_along_axis(lambda row: np.interp(at, np.arange(len(row)), row), axis, x)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("asked", ["scales", "sizes"])
def test_a_mended_resize_runs_in_a_branch(asked: str, opset: int) -> None:
    """Where onnxruntime moves transposes past it, and sees no content of constants outside."""
    scales = np.array([1, 1, 13 / 9, 17 / 7], np.float32)
    if asked == "scales":
        model = image_resize(opset, scales, None)
    else:
        model = image_resize(opset, np.zeros(0, np.float32), np.array([3, 2, 13, 17]))
    fix_empty_inputs(model.graph)
    assert fix_scales(model.graph) == (asked == "scales")
    y = model.graph.outputs[0]
    model.graph.outputs[:] = add_gate(model.graph, opset, [y], [y])
    names = [value.name for value in model.graph.outputs]
    model.ir_version = 8
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).standard_normal((3, 9, 7, 2)).astype(np.float32)
    expected = interpolated(interpolated(x, 1, 13), 2, 17)
    for explain in (True, False):
        found = dict(
            zip(names, session.run(None, {"x": x, "explain": np.array(explain)}), strict=True)
        )
        np.testing.assert_allclose(found[names[0]], expected, atol=1e-5)
        assert len(found[names[1]]) == (3 if explain else 0)


@pytest.mark.parametrize("sizes", [(11, 14, 13, 1), (14, 6, 23, 9)])
def test_the_nearest_neighbour_is_tensorflows(sizes, tmp_path):
    height, width, rows, columns = sizes
    image = keras.Input((height, width, 1), name="image")
    y = layers.Resizing(rows, columns, interpolation="nearest")(image)
    model = keras.Model(image, layers.Flatten()(y))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    x = np.arange(height * width, dtype=np.float32).reshape(1, height, width, 1)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    np.testing.assert_array_equal(result[model.output_names[0]].array, model(x))


def test_the_nearest_neighbour_of_open_sizes_is_told_as_onnx_has_it(tmp_path):
    image = keras.Input((None, None, 2), name="image")
    y = layers.Resizing(7, 5, interpolation="nearest")(image)
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(y)))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    written = onnx.load(tmp_path / "m.onnx")
    bodies = [a.g for n in written.graph.node for a in n.attribute]
    nodes = [n for graph in (written.graph, *bodies) for n in graph.node if n.op_type == "Resize"]
    modes = [a.s for n in nodes for a in n.attribute if a.name == "coordinate_transformation_mode"]
    assert set(modes) == {b"half_pixel"}


def test_traces_of_matrices_that_are_not_square(tmp_path):
    """Keras keeps the diagonal by an identity matrix of truth values."""
    x = keras.Input((4, 6, 3))
    y = keras.ops.trace(keras.layers.Dense(5)(x), axis1=-2, axis2=-1)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    probes = [pg.InputGradient(target=1), pg.IntegratedGradients(target=1, steps=2)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    values = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(values)
    kernel, _, last, _ = (w.numpy() for w in model.weights)
    slopes = np.zeros((4, 6, 3))
    for i in range(5):
        slopes[:, i] = last[:, 1, None] * kernel[:, i]
    (gradient,) = (n for n in found if n.startswith("input_gradient/"))
    np.testing.assert_allclose(found[gradient].array, np.stack([slopes] * 2), rtol=1e-5)


def test_a_padding_layer_before_a_convolution_that_pads_and_is_dilated(tmp_path: Path) -> None:
    """tf2onnx puts the layer's widths in the place of the convolution's own."""
    x = keras.Input((5, 8, 2))
    y = layers.ZeroPadding2D([[2, 2], [0, 2]])(x)
    y = layers.Conv2D(3, [1, 3], padding="same", dilation_rate=2)(y)
    model = keras.Model(x, layers.GlobalMaxPooling2D()(y))
    pg.compile(model, [], tmp_path / "m.onnx", verify=False)
    rows = np.random.default_rng(0).standard_normal((2, 5, 8, 2)).astype(np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(rows).predictions
    np.testing.assert_allclose(next(iter(found.values())), np.asarray(model(rows)), atol=1e-5)
