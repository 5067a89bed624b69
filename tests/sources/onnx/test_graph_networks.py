"""Networks over the nodes and edges of one graph: no batch, any number of both."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from tests.sources.onnx.support import add_weights, parse

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4)).astype(np.float32)
V = RNG.normal(size=(4, 2)).astype(np.float32)
#: Node 1 gets three messages, node 4 none; an edge stands there twice.
EDGES = np.array([[0, 2, 3, 0, 1, 1], [1, 1, 1, 2, 3, 3]])
NODES = RNG.normal(size=(5, 3)).astype(np.float32)
AXES = {"x": "node,feature", "edges": "end,edge", "y": "node,class"}


def model(reduction):
    """One round of messages: `relu(x W)` of the sources, met at the targets, and `V` behind."""
    body = f"""
      h0 = MatMul(x, W) h = Relu(h0)
      source = Gather <axis = 0> (edges, zero) target = Gather <axis = 0> (edges, one)
      messages = Gather(h, source)
      column = Unsqueeze(target, last) sizes = Shape(messages) places = Expand(column, sizes)
      nothing = Sub(h, h)
      met = ScatterElements <axis = 0{reduction}> (nothing, places, messages)
      both = Add(h, met) y = MatMul(both, V)"""
    text = f"g (float[nodes, 3] x, int64[2, edges] edges) => (float[nodes, 2] y) {{ {body} }}"
    numbers = {"zero": np.int64(0), "one": np.int64(1), "last": np.int64([1])}
    return add_weights(parse(text), W=W, V=V, **numbers)


def scores(x, met):
    h = np.maximum(x @ W.astype(np.float64), 0)
    gathered = np.zeros_like(h)
    for source, target in EDGES.T:
        gathered[target] = h[source] + (gathered[target] if met == "add" else 0)
    return (h + gathered) @ V


@pytest.fixture(scope="module", params=["add", "none"])
def explained(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / f"{request.param}.onnx"
    asked = {"target": (None, 1)}
    probes = [pg.InputGradient(**asked), pg.FeatureAblation(**asked), pg.LRP(**asked)]
    probes.append(pg.DeepLIFT(completeness=True, **asked))
    reduction = ', reduction = "add"' if request.param == "add" else ""
    samples = {"x": NODES, "edges": EDGES}
    pg.compile(model(reduction), probes, path, inputs=AXES, samples=samples)
    return request.param, runtime.load(path).run(samples)


def test_the_gradient_is_that_of_the_messages_which_count(explained):
    met, result = explained
    x, right = NODES.astype(np.float64), np.zeros(NODES.shape)
    for at in np.ndindex(*NODES.shape):
        step = np.zeros(x.shape)
        step[at] = 1e-6
        right[at] = (scores(x + step, met) - scores(x - step, met))[:, 1].sum() / 2e-6
    np.testing.assert_allclose(result["input_gradient/x"].array, right, rtol=1e-4, atol=1e-5)


def test_nodes_are_hidden_with_all_their_features(explained):
    met, result = explained
    x = NODES.astype(np.float64)
    hidden = [scores(np.where(np.arange(5)[:, None] == i, 0, x), met) for i in range(5)]
    right = [(scores(x, met) - y)[:, 1].sum() for y in hidden]
    np.testing.assert_allclose(result["feature_ablation/x"].array, right, rtol=1e-4, atol=1e-5)


def test_differences_and_relevance_add_up_to_the_score(explained):
    met, result = explained
    score = scores(NODES.astype(np.float64), met)[:, 1].sum()
    assert abs(result["completeness/deep_lift/x"].array).max() < 1e-4
    np.testing.assert_allclose(result["deep_lift/x"].array.sum(), score, rtol=1e-4)
    np.testing.assert_allclose(result["lrp/x"].array.sum(), score, rtol=1e-3)


def test_nodes_that_are_taken_for_samples_are_refused_with_what_to_say(tmp_path):
    samples = {"x": NODES, "edges": EDGES}
    with pytest.raises(VerificationError, match=r"inputs={'x': 'node,feature'"):
        pg.compile(
            model(', reduction = "add"'), [pg.InputGradient()], tmp_path / "a.onnx", samples=samples
        )
