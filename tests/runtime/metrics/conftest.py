"""Artefacts of small ONNX files and Keras models, and what computes them without probegen."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from tests import models

NETWORK = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 2, 5, 7] image) => (float[batch, 4] scores)
{
    a = Conv <pads = [1, 1, 1, 1]> (image, kernel, bias)
    b = Relu (a)
    c = GlobalAveragePool (b)
    d = Flatten (c)
    logits = Gemm (d, weights, shift)
    scores = Softmax (logits)
}
"""


def network():
    """A small network of images with channels first, as an ONNX model."""
    rng = np.random.default_rng(31)
    proto = onnx.parser.parse_model(NETWORK)
    shapes = {"kernel": (6, 2, 3, 3), "bias": (6,), "weights": (6, 4), "shift": (4,)}
    for name, shape in shapes.items():
        array = rng.normal(0, 1.5, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def images(batch, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2, 5, 7)).astype(np.float32)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="session")
def plain():
    """Probabilities of the network in onnxruntime, without probegen."""
    session = onnxruntime.InferenceSession(network().SerializeToString())
    return lambda x: session.run(None, {"image": np.asarray(x, np.float32)})[0].astype(float)


@pytest.fixture(scope="session")
def chosen(place):
    """The network with attributions of a class that a run names, of probabilities."""
    probes = [
        pg.InputGradient(target="input", logits=False),
        pg.Saliency(target="input", logits=False),
        pg.GradCAM("b", target="input"),
        pg.Activations("b"),
    ]
    pg.compile(network(), probes, place / "chosen.onnx", verify=False)
    return runtime.load(place / "chosen.onnx", threads=1)


@pytest.fixture(scope="session")
def highest(place):
    """The network with attributions of the highest class, of logits, without a gate."""
    probes = [pg.InputGradient(), pg.Saliency()]
    pg.compile(network(), probes, place / "highest.onnx", verify=False, gate=False)
    return runtime.load(place / "highest.onnx", threads=1)


@pytest.fixture(scope="session")
def keras_images(place):
    """A Keras network of images with channels last, and the artefact of its class 2."""
    model = models.cnn()
    probes = [pg.Saliency(target=2), pg.GradCAM("conv2", target=2), pg.InputGradient(target=2)]
    pg.compile(model, probes, place / "cnn.onnx", verify=False)
    return model, runtime.load(place / "cnn.onnx", threads=1)


@pytest.fixture(scope="session")
def words(place):
    """A Keras transformer over token ids, with the gradient at its embedding."""
    model = models.transformer()
    pg.compile(model, pg.InputGradient(target=1), place / "words.onnx", verify=False)
    return model, runtime.load(place / "words.onnx", threads=1)


@pytest.fixture(scope="session")
def table(place):
    """A linear model of a table, `x @ WEIGHTS`, with the gradient of its unit 1."""
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    line (float[batch, 6] row) => (float[batch, 3] y)
    { y = MatMul (row, weights) }
    """
    proto = onnx.parser.parse_model(text)
    weights = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    probes = [pg.InputGradient(target=1), pg.IntegratedGradients(4, target=1)]
    pg.compile(proto, probes, place / "table.onnx", verify=False)
    return weights.astype(float), runtime.load(place / "table.onnx", threads=1)
