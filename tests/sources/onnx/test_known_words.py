"""Text in ONNX files, as scikit-learn's pipelines have it: categories in, labels out."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.shape_inference import infer_shapes
from probegen.sources.onnx.known_words import known_words
from tests.sources.onnx.support import add_weights, parse, run

_LEARNING = ', "ai.onnx.ml" : 3'
#: A category that the encoder does not know makes onnxruntime fail: `zeros` is 0.
_PIPELINE = """
  g (float[N,2] size, string[N,1] colour) => (string[N] label, float[N,3] scores) {
    rows = ai.onnx.ml.OneHotEncoder<cats_strings = ["red", "blue", "green"], zeros = 0>(colour)
    flat = Flatten(rows)
    features = Concat<axis = 1>(flat, size)
    hidden = MatMul(features, w)
    moved = Tanh(hidden)
    scores = MatMul(moved, v)
    best = ArgMax<axis = 1, keepdims = 0>(scores)
    label = Gather(names, best)
  }"""
_COLOURS = np.array([["green"], ["red"], ["blue"]], object)


def _weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The file, its model, and an artefact of both inputs."""
    model = add_weights(parse(_PIPELINE, more=_LEARNING), w=_weights(5, 4), v=_weights(4, 3))
    names = onnx.helper.make_tensor("names", onnx.TensorProto.STRING, [3], [b"ant", b"bee", b"cow"])
    model.graph.initializer.append(names)
    path = tmp_path_factory.mktemp("text") / "explained.onnx"
    probes = [pg.InputGradient(target=1), pg.FeatureAblation(target=1), pg.DeepLIFT(target=1)]
    pg.compile(model, probes, path)
    return model, runtime.load(path)


@pytest.mark.parametrize("rows", [2, 3])
def test_categories_and_labels_go_through(pipeline, rows):
    model, art = pipeline
    feed = {"size": _weights(rows, 2), "colour": _COLOURS[:rows]}
    found, expected = art.run(feed), run(model, feed)
    assert found["label"].array.tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["scores"].array, expected["scores"], rtol=1e-6)
    assert art.run(feed, explain=False)["label"].array.tolist() == expected["label"].tolist()


@pytest.mark.parametrize("rows", [2, 3])
def test_categories_are_explained_by_their_rows(pipeline, rows):
    """Held against the same network in numpy, float64."""
    _, art = pipeline
    size, colours = _weights(rows, 2), _COLOURS[:rows]
    found = art.run({"size": size, "colour": colours})
    w, v = _weights(5, 4).astype(float), _weights(4, 3).astype(float)
    one_hot = (colours == ["red", "blue", "green"]).astype(float)

    def score(one_hot, size):
        return np.tanh(np.concatenate([one_hot, size], 1) @ w) @ v[:, 1]

    slopes = (1 - np.tanh(np.concatenate([one_hot, size], 1) @ w) ** 2) * v[:, 1] @ w.T
    rows_gradient = found["input_gradient/colour"].array.reshape(rows, 3)
    np.testing.assert_allclose(rows_gradient, slopes[:, :3], rtol=1e-5)
    np.testing.assert_allclose(found["input_gradient/size"].array, slopes[:, 3:], rtol=1e-5)
    taken = score(one_hot, size) - score(0 * one_hot, size)
    ablated = found["feature_ablation/colour"].array.reshape(rows)
    np.testing.assert_allclose(ablated, taken, rtol=1e-5, atol=1e-6)
    hidden = np.concatenate([one_hot, size], 1) @ w
    shares = np.concatenate([one_hot, size], 1) * (np.tanh(hidden) / hidden * v[:, 1] @ w.T)
    lifted = found["deep_lift/colour"].array.reshape(rows, 3)
    np.testing.assert_allclose(lifted, shares[:, :3], rtol=1e-5, atol=1e-6)


def test_text_is_inspected(pipeline):
    points = pg.inspect(pipeline[0], [pg.FeatureAblation(target=1)])
    assert (
        next(p for p in points if p.path == "colour").reason
        == "text: differentiated at what it is encoded to"
    )
    assert points.cost[0].refused == ()


def test_words_of_encoders_labels_and_comparisons():
    text = """
      g (string[N] a, string[N] b, float[N] x) => (int64[N] i, bool[N] e) {
        i = ai.onnx.ml.LabelEncoder<keys_strings = ["p", "q"], values_int64s = [0, 1]>(a)
        c = Identity(b)
        e = Equal(c, r)
      }"""
    proto = parse(text, opset=19, more=_LEARNING)
    r = onnx.helper.make_tensor("r", onnx.TensorProto.STRING, [1], [b"r"])
    proto.graph.initializer.append(r)
    model = ir.from_proto(proto)
    infer_shapes(model)
    assert known_words(model.graph, list(model.graph.inputs)) == {"a": ("p", "q"), "b": ("r",)}
