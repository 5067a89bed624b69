"""Pictures in the graph: against Keras' own resizing, in onnxruntime and in OpenVINO."""

import itertools

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import ImageInput, resolved
from probegen.graph.core.builder import Builder
from probegen.graph.preprocessing import preprocessed
from probegen.sources.preprocessed_by_numpy import prepared

RNG = np.random.default_rng(0)
NHWC, NCHW = ("batch", "height", "width", "channel"), ("batch", "channel", "height", "width")
#: Sizes of what arrives: smaller, larger, either, the model's own, a single pixel, large.
SIZES = [(1, 13, 29), (2, 5, 4), (3, 40, 17), (2, 7, 11), (1, 1, 1), (1, 300, 201)]
WAYS = [
    (resize, antialias, fit)
    for resize, antialias, fit in itertools.product(
        ("nearest", "bilinear", "bicubic"), (False, True), ("stretch", "crop", "pad")
    )
    if not (antialias and resize == "nearest")
]


def spec_of(image, shape, axes=NHWC, dtype="float32"):
    how, arriving, layout = resolved(image, "x", dtype, shape, axes)
    return InputSpec("x", image.dtype, arriving, layout, preprocessing=how)


def model_of(spec, opset=18):
    sizes = [n if n is not None else f"size_{i}" for i, n in enumerate(spec.shape)]
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(spec.dtype)))
    x = ir.Value(name="x", shape=ir.Shape(sizes), type=kind)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": opset}, name="g")
    builder = Builder(graph, opset)
    ready = preprocessed(builder, x, spec)
    builder.attach()
    graph.outputs.append(ready)
    return ir.serde.serialize_model(ir.Model(graph, ir_version=9)).SerializeToString()


def by_onnxruntime(model):
    session = onnxruntime.InferenceSession(model)
    return lambda x: session.run(None, {"x": x})[0]


def by_openvino(model):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", hint)
    return lambda x: compiled({"x": x})[0]


def by_keras(x, to, resize, antialias, fit, fill=17.0):
    return keras.ops.image.resize(
        x.astype("float32"),
        to,
        interpolation=resize,
        antialias=antialias,
        crop_to_aspect_ratio=fit == "crop",
        pad_to_aspect_ratio=fit == "pad",
        fill_value=fill,
        data_format="channels_last",
    ).numpy()


def pictures(batch, height, width, channels=3):
    return RNG.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("resize", "antialias", "fit"), WAYS)
def test_resizing_is_that_of_keras(resize, antialias, fit):
    """To the last bit of one pixel or two; of more to the rounding of float32 sums of bytes."""
    image = ImageInput(resize=resize, antialias=antialias, fit=fit, fill=17.0)
    for to, opset in (((7, 11), 13), ((12, 5), 18)):
        spec = spec_of(image, (None, *to, 3))
        run = by_onnxruntime(model_of(spec, opset))
        for size in SIZES:
            x = pictures(*size)
            right = by_keras(x, to, resize, antialias, fit)
            limit = 0.0 if resize == "nearest" else 4e-4
            same = limit if antialias or resize == "bicubic" else 0.0
            np.testing.assert_allclose(run(x), right, atol=same, rtol=0, err_msg=str(size))
            np.testing.assert_allclose(prepared(x, spec), right, atol=limit, rtol=0)


@pytest.mark.parametrize(("resize", "antialias", "fit"), WAYS)
def test_openvino_gives_the_same_numbers(resize, antialias, fit):
    image = ImageInput(resize=resize, antialias=antialias, fit=fit, fill=17.0, layout="NCHW")
    model = model_of(spec_of(image, (None, 12, 5, 3)))
    first, second = by_onnxruntime(model), by_openvino(model)
    for size in SIZES:
        x = np.moveaxis(pictures(*size), -1, 1).copy()
        # OpenVINO joins products and sums of coordinates, which moves them by their rounding.
        np.testing.assert_allclose(second(x), first(x), atol=1e-2, rtol=0, err_msg=str(size))


@pytest.mark.parametrize("resize", ["nearest", "bilinear"])
def test_many_sizes(resize):
    """A centre on the edge of two pixels falls where TensorFlow's rounding puts it."""
    spec = spec_of(ImageInput(resize=resize), (None, 49, 30, 1))
    run, other = by_onnxruntime(model_of(spec)), by_openvino(model_of(spec))
    for size in range(1, 1500, 37):
        x = pictures(1, size, size // 2 + 1, 1)
        right = by_keras(x, (49, 30), resize, False, "stretch")
        np.testing.assert_array_equal(run(x), right, err_msg=str(size))
        # OpenVINO joins the product and the sum of a coordinate, which rounds once less.
        moved = 0.0 if resize == "nearest" else 0.05
        np.testing.assert_allclose(other(x), right, atol=moved, rtol=0, err_msg=str(size))
        limit = 0.0 if resize == "nearest" else 1e-4
        np.testing.assert_allclose(prepared(x, spec), right, atol=limit, rtol=0)


def test_float_pictures_of_a_fixed_size():
    spec = spec_of(ImageInput(dtype="float32", size=(9, 6), resize="bicubic"), (2, 4, 13, 2))
    x = RNG.normal(size=(2, 9, 6, 2)).astype("float32")
    right = by_keras(x, (4, 13), "bicubic", False, "stretch")
    np.testing.assert_allclose(by_onnxruntime(model_of(spec))(x), right, atol=1e-5)


@pytest.mark.parametrize("axes", [NHWC, NCHW])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_layouts_channels_and_numbers(axes, layout, dtype):
    """Blue, green, red from red, green, blue, alpha; a number for each channel in that order."""
    scale, mean, std = (0.5, 0.25, 0.125), (1.0, 2.0, 3.0), (4.0, 2.0, 1.0)
    image = ImageInput(
        size="model", layout=layout, channels=4, reverse_channels=True,
        scale=scale, mean=mean, std=std,
    )  # fmt: skip
    sizes = {"batch": None, "height": 3, "width": 4, "channel": 3}
    spec = spec_of(image, tuple(sizes[a] for a in axes), axes, dtype)
    x = pictures(2, 3, 4, 4)
    right = (x[..., 2::-1] * np.array(scale) - np.array(mean)) / np.array(std)
    right = right if axes == NHWC else np.moveaxis(right, -1, 1)
    arriving = x if layout == "NHWC" else np.moveaxis(x, -1, 1).copy()
    for made in (by_onnxruntime(model_of(spec))(arriving), prepared(arriving, spec)):
        assert made.dtype == dtype
        np.testing.assert_allclose(made, right, rtol=1e-3 if dtype == "float16" else 1e-6)


def test_grey_pictures_for_a_model_of_three_channels():
    spec = spec_of(ImageInput(channels=1, size="model"), (None, 3, 4, 3))
    x = pictures(2, 3, 4, 1)
    right = np.repeat(x.astype("float32"), 3, -1)
    np.testing.assert_array_equal(by_onnxruntime(model_of(spec))(x), right)


def test_antialiasing_is_pillows_but_for_its_rounding_to_bytes():
    from PIL import Image

    for resize, filtered in (
        ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC),
    ):
        spec = spec_of(ImageInput(resize=resize, antialias=True), (None, 7, 11, 1))
        x = pictures(1, 50, 33, 1)
        exact = Image.fromarray(x[0, ..., 0].astype(np.float32)).resize((11, 7), filtered)
        made = by_onnxruntime(model_of(spec))(x)[0, ..., 0]
        np.testing.assert_allclose(made, np.asarray(exact), atol=1e-3)
        rounded = np.asarray(Image.fromarray(x[0, ..., 0]).resize((11, 7), filtered))
        assert np.abs(np.clip(made, 0, 255) - rounded).max() <= 1.0
