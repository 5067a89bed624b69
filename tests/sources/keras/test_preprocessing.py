"""Pictures preprocessed by TensorFlow: against Keras' own resizing and against numpy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import ImageInput, resolved
from probegen.runtime.resize import over_picture
from probegen.sources.keras import preprocessing
from probegen.sources.preprocessed_by_numpy import prepared

NHWC, NCHW = ("batch", "height", "width", "channel"), ("batch", "channel", "height", "width")
#: Smaller and larger than what the model takes, either, its own size, a single pixel.
SIZES = [(1, 13, 29), (2, 5, 4), (2, 40, 17), (1, 7, 11), (1, 1, 1)]
WAYS = [
    (resize, antialias, fit)
    for resize, antialias, fit in itertools.product(
        ("nearest", "bilinear", "bicubic"), (False, True), ("stretch", "crop", "pad")
    )
    if not (antialias and resize == "nearest")
]


def spec_of(image, axes=NHWC, size=(7, 11)):
    sizes = {"batch": None, "height": size[0], "width": size[1], "channel": 3}
    how, arriving, layout = resolved(image, "x", "float32", [sizes[a] for a in axes], axes)
    return InputSpec("x", image.dtype, arriving, layout, preprocessing=how)


def traced(function, spec):
    """As a SavedModel runs it: a graph of open sizes."""
    return tf.function(function).get_concrete_function(tf.TensorSpec(spec.shape, spec.dtype))


def pictures(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("resize", "antialias", "fit"), WAYS)
def test_every_way_is_that_of_keras_and_of_numpy(resize, antialias, fit):
    spec = spec_of(ImageInput(resize=resize, antialias=antialias, fit=fit, fill=17.5))
    made = traced(lambda x: preprocessing.prepared(x, spec), spec)
    assert made.structured_outputs.shape.as_list() == [None, 7, 11, 3]
    for size in SIZES:
        x = pictures(*size, 3)
        by_keras = keras.ops.image.resize(
            x.astype("float32"),
            (7, 11),
            interpolation=resize,
            antialias=antialias,
            crop_to_aspect_ratio=fit == "crop",
            pad_to_aspect_ratio=fit == "pad",
            fill_value=17.5,
            data_format="channels_last",
        ).numpy()
        found = made(tf.constant(x)).numpy()
        np.testing.assert_allclose(found, by_keras, rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(found, prepared(x, spec), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "axes", "channels"),
    [
        (ImageInput(preset="caffe"), NHWC, 3),
        (ImageInput(preset="torch", layout="NCHW", fit="crop"), NHWC, 3),
        (ImageInput(scale=1 / 255, mean=0.5, std=(1.0, 2.0, 3.0), channels=4), NCHW, 4),
        (ImageInput(scale=1 / 255, channels=1, dtype="float32", layout="NCHW"), NCHW, 1),
        (ImageInput(size="model", preset="tf", reverse_channels=True), NHWC, 3),
    ],
)
def test_layouts_channels_and_units(image, axes, channels):
    spec = spec_of(image, axes)
    height, width = (7, 11) if image.size == "model" else (20, 9)
    x = np.moveaxis(pictures(2, height, width, channels), -1, spec.axes.index("channel"))
    x = np.ascontiguousarray(x).astype(image.dtype) - (0.25 if image.dtype == "float32" else 0)
    x = x.astype(image.dtype)
    found = traced(lambda value: preprocessing.prepared(value, spec), spec)(tf.constant(x))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found.numpy(), prepared(x, spec), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_maps_over_pictures(fit):
    spec = spec_of(ImageInput(fit=fit, layout="NCHW", attributions="input"))
    heat = np.random.default_rng(3).normal(size=(2, 4, 7, 11)).astype(np.float32)
    axes = ("batch", "class", "height", "width")
    made = traced(lambda x: preprocessing.over_picture(tf.constant(heat), axes, x, spec), spec)
    for height, width in ((13, 29), (5, 4), (40, 17), (1, 1)):
        found = made(tf.constant(pictures(2, 3, height, width))).numpy()
        right = over_picture(np.moveaxis(heat, (2, 3), (0, 1)), (height, width), spec.preprocessing)
        np.testing.assert_allclose(found, np.moveaxis(right, (0, 1), (2, 3)), atol=1e-5)
