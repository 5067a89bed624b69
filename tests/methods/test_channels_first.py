"""Methods say the same of a model whose channels come first, turned round: it is one function."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from tests import models

SHAPES = {2: (13, 10, 3), 3: (7, 6, 5, 2)}
LAST = 6


def network(axes, data_format):
    """A classifier of images or scans; its weights do not depend on the layout."""
    keras.utils.set_random_seed(1)
    shape, given = SHAPES[axes], {"data_format": data_format}
    if data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    convolution = getattr(layers, f"Conv{axes}D")
    x = image = keras.Input(shape, name="image")
    x = convolution(5, 2, activation="relu", bias_initializer="normal", **given)(x)
    x = getattr(layers, f"AveragePooling{axes}D")((2, 1, 2)[:axes], **given)(x)
    x = convolution(LAST, 2, activation="relu", name="last", **given)(x)
    x = getattr(layers, f"GlobalAveragePooling{axes}D")(**given)(x)
    return keras.Model(image, layers.Dense(4, activation="softmax", name="scores")(x))


def probes(axes, turned):
    """Probes of the methods of images, with fields that hold arrays or differ from the usual.

    Args:
        axes: how many axes of positions there are.
        turned: brings arrays whose channels are last to the model's layout.
    """
    samples = models.images(SHAPES[axes], seed=3, count=3)
    groups = np.arange(np.prod(SHAPES[axes][:-1])).reshape(SHAPES[axes][:-1]) // 50
    several, one = turned(samples), turned(samples[:1])[0]
    vectors = np.random.default_rng(0).normal(size=(2, LAST))
    return [
        pg.InputGradient(target="all"),
        pg.Saliency(target="top:2"),
        pg.GradientXInput(target=pg.contrast("argmax", "runner_up")),
        pg.GradCAM(upsample=True, target=[2, 0]),
        pg.GradCAMPlusPlus(target="input"),
        pg.HiResCAM(upsample=True),
        pg.LayerCAM(target=1),
        pg.XGradCAM(target="all"),
        pg.EigenCAM(upsample=True, centre=True),
        pg.ScoreCAM(target="top:2", chunk=2),
        pg.ReciproCAM(target=1),
        pg.ConceptSensitivity("last", vectors, target="all"),
        pg.IntegratedGradients(3, several, target="all", completeness=True),
        pg.IntegratedGradients(3, "blur:2", rule="trapezoid", name="blurred"),
        pg.ExpectedGradients(several, samples=4, target=2),
        pg.Occlusion((3, 4, 2)[:axes], stride=2, target="all", chunk=3),
        pg.RISE(masks=7, cells=3, keep=0.6, target=2),
        pg.FeatureAblation(groups, target="top:2"),
        pg.KernelSHAP(groups, one),
        pg.KernelSHAP("input", 0.3, samples=30, max_groups=4, name="asked"),
        pg.LIME("grid:2", several, samples=12, target=1),
        pg.GuidedBackprop(target="all"),
        pg.Deconvnet(target=[1, 3]),
        pg.DeepLIFT(one, target="input"),
        pg.DeepSHAP(several, target="all"),
        pg.LRP(composite="epsilon_gamma_box", low=-4.0, high=4.0, target="all"),
        pg.LRP("zplus", wrt="last", name="within"),
    ]


@pytest.mark.parametrize("axes", SHAPES)
def test_what_channels_first_say_is_turned_round(tmp_path, axes):
    x = models.images(SHAPES[axes], count=3)
    asked = {
        "target": np.array([1, -1, 3]),
        "groups": np.random.default_rng(1).integers(0, 4, x.shape[:-1]).astype(np.int32),
    }
    found = {}
    for layout in ("channels_last", "channels_first"):

        def turned(array, layout=layout):
            return array if layout == "channels_last" else np.moveaxis(array, -1, 1)

        path = tmp_path / f"{layout}.onnx"
        pg.compile(network(axes, layout), probes(axes, turned), path, verify=False)
        found[layout] = runtime.load(path).run({"image": turned(x)}, **asked)
    last, first = found.values()
    for name in last:
        spec, right = last[name].spec, last[name].array
        if spec.name.startswith("completeness/"):  # next to nothing, of which rounding is left
            continue
        order = [first[name].spec.axes.index(axis) for axis in spec.axes]
        got = np.transpose(first[name].array, order)
        assert got.shape == right.shape, name
        assert np.linalg.norm(got - right) <= 1e-4 * np.linalg.norm(right), name
        assert np.any(right), name
