"""What a user says of arriving pictures, and what is refused before anything is written."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.artefact.preprocessing import ImageInput, resolved
from probegen.errors import ManifestError, SpecError

NHWC = ("batch", "height", "width", "channel")
NCHW = ("batch", "channel", "height", "width")


def of(image, shape=(None, 24, 31, 3), axes=NHWC, dtype="float32"):
    return resolved(image, "photo", dtype, shape, axes)


def test_any_size_is_brought_to_the_models():
    how, shape, axes = of(ImageInput())
    assert (shape, axes) == ((None, None, None, 3), NHWC)
    assert (how.resize, how.size, how.channels) == ("bilinear", (24, 31), (0, 1, 2))


def test_what_arrives_may_lie_otherwise_than_what_the_model_takes():
    how, shape, axes = of(ImageInput(size=(5, 8)), (None, 3, 24, 31), NCHW)
    assert (shape, axes, how.axes) == ((None, 5, 8, 3), NHWC, NCHW)


@pytest.mark.parametrize("image", [ImageInput(size="model"), ImageInput(size=[24, 31])])
def test_what_has_the_models_size_is_not_resized(image):
    how, shape, _ = of(image)
    assert how.resize is None
    assert shape == (None, 24, 31, 3)


def test_presets_are_those_of_keras():
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3)).astype("float64")
    for mode in ("tf", "caffe", "torch"):
        how, _, _ = of(ImageInput(preset=mode))
        ours = (x[..., list(how.channels)] * how.scale - how.mean) / how.std
        theirs = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)
        np.testing.assert_allclose(ours, theirs, atol=1e-12, err_msg=mode)


def test_a_preset_of_blue_green_red_is_turned_again_for_what_arrives_so():
    assert of(ImageInput(preset="caffe"))[0].channels == (2, 1, 0)
    assert of(ImageInput(preset="caffe", reverse_channels=True))[0].channels == (0, 1, 2)


def test_grey_becomes_three_and_alpha_goes():
    grey, shape, _ = of(ImageInput(channels=1))
    assert (grey.channels, shape[-1]) == ((0, 0, 0), 1)
    alpha, shape, _ = of(ImageInput(channels=4, reverse_channels=True))
    assert (alpha.channels, shape[-1]) == ((2, 1, 0), 4)


@pytest.mark.parametrize(
    ("size", "fit", "window"),
    [
        ((48, 62), "crop", ((0, 48), (0, 62))),
        ((48, 90), "crop", ((0, 48), (14, 62))),
        ((90, 62), "pad", ((0, 90), (-27, 116))),
        ((7, 90), "pad", ((-31, 69), (0, 90))),
        ((7, 90), "stretch", ((0, 7), (0, 90))),
    ],
)
def test_which_part_the_model_sees(size, fit, window):
    assert of(ImageInput(fit=fit))[0].window(*size) == window


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"dtype": "int64"}, "dtype= takes 'uint8' or 'float32'"),
        ({"size": "all"}, "size= takes 'any', 'model' or a pair"),
        ({"size": (5, 0)}, "size= takes"),
        ({"size": np.array([5, 7])}, "size= takes 'any', 'model' or a pair"),
        ({"dtype": np.array(["uint8", "float32"])}, "dtype= takes 'uint8' or 'float32'"),
        ({"size": (5, True)}, "size= takes"),
        ({"resize": "area"}, "resize= takes 'nearest' or 'bilinear' or 'bicubic'"),
        ({"resize": "bilinaer"}, "Did you mean 'bilinear'"),
        ({"resize": "nearest", "antialias": True}, "single pixels"),
        ({"antialias": 1}, "antialias= takes True or False"),
        ({"fit": "letterbox"}, "fit= takes 'stretch' or 'crop' or 'pad'"),
        ({"fill": float("nan")}, "fill= takes a number"),
        ({"preset": "imagenet"}, "preset= takes 'tf' or 'caffe' or 'torch'"),
        ({"preset": "tf", "mean": 1.0}, "leave mean out"),
        ({"std": (1.0, 0.0, 1.0)}, "std= takes numbers other than 0"),
        ({"scale": "1/255"}, "scale= takes a number"),
        ({"layout": "CHW"}, "layout= takes 'NHWC' or 'NCHW'"),
        ({"channels": 0}, "channels= takes"),
        ({"to": 224}, "to= takes a pair"),
        ({"attributions": "pixels"}, "attributions= takes 'model' or 'input'"),
    ],
)
def test_values_that_are_none(fields, told):
    with pytest.raises(SpecError, match=told.replace("(", r"\(")):
        ImageInput(**fields)


@pytest.mark.parametrize(
    ("fields", "own", "told"),
    [
        ({}, {"shape": (None, 9), "axes": ("batch", "feature")}, "takes \\[batch, feature\\]"),
        ({}, {"dtype": "uint8"}, "Leave preprocess= .* out"),
        ({}, {"shape": (None, None, None, 3)}, "say to=\\(height, width\\)"),
        ({}, {"shape": (None, 4, 5, None)}, "how many channels"),
        ({"to": (5, 6)}, {}, "takes 24x31; leave to= out"),
        ({"to": (5, 6), "size": "model"}, {"shape": (None, None, None, 3)}, "no meaning"),
        ({"channels": 3}, {"shape": (None, 4, 5, 1)}, "converted before"),
        ({"preset": "torch"}, {"shape": (None, 4, 5, 1)}, "preset='torch' has 3 numbers"),
        ({"mean": (1.0, 2.0)}, {}, "mean= has 2 numbers"),
    ],
)
def test_what_does_not_fit_the_model(fields, own, told):
    with pytest.raises(SpecError, match=told):
        of(ImageInput(**fields), **own)


def manifest():
    how, shape, axes = of(ImageInput(preset="torch", fit="pad"))
    photo = InputSpec("photo", "uint8", shape, axes, preprocessing=how)
    return Manifest(
        (photo,), (OutputSpec("y", "prediction", "float32", (None, 4), ("batch", "class")),)
    )


def test_the_manifest_keeps_it():
    assert Manifest.from_json(manifest().to_json()) == manifest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": ["batch", "height", "width", "depth"]},
        {"shape": [None, 24, 0, 3]},
        {"shape": [None, None, 31, 3]},
        {"resize": "area"},
        {"fit": "letterbox"},
        {"channels": [0, 1, 3]},
        {"channels": [0, 1]},
        {"mean": [1.0, 2.0]},
        {"std": [0.0]},
        {"colour": "red"},
    ],
)
def test_a_damaged_one_is_refused(wrong):
    data = json.loads(manifest().to_json())
    data["inputs"][0]["preprocessing"].update(wrong)
    with pytest.raises(ManifestError, match="damaged"):
        Manifest.from_json(json.dumps(data))


def test_every_field_of_the_users_says_something():
    """A field that changes nothing would be a promise that is not kept."""
    usual = of(ImageInput(fit="pad"))
    changed = {
        "dtype": None,
        "size": (4, 4),
        "resize": "bicubic",
        "antialias": True,
        "fit": "crop",
        "fill": 3.0,
        "preset": "caffe",
        "scale": 2.0,
        "mean": 2.0,
        "std": 2.0,
        "layout": "NCHW",
        "channels": 1,
        "reverse_channels": True,
        "to": None,
        "attributions": "input",
    }
    assert set(changed) == {f.name for f in dataclasses.fields(ImageInput)}
    for name, value in changed.items():
        if value is not None:  # dtype is the input's, to is for open sizes
            assert of(dataclasses.replace(ImageInput(fit="pad"), **{name: value})) != usual, name
