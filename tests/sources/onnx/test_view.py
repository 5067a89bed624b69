"""Planning's view of an ONNX graph: points and their roles, scores, ends, what flows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError
from probegen.plan.making import make_plan
from probegen.plan.plan import TensorRef
from probegen.sources import open_source
from tests.sources.onnx.support import add_weights, parse


def _weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _view(text: str, opset: int = 18, **weights):
    return open_source(add_weights(parse(text, opset), **weights)).view


@pytest.fixture(scope="module")
def network():
    """Two convolutions, a head, and probabilities; names with scopes, as exporters write them."""
    model = add_weights(
        parse(
            """
            g (float[N,3,9,7] image) => (float[N,5] probabilities, int64[N] label) {
              a = Conv(image, w)
              b = Relu(a)
              c = Conv(b, v)
              d = Relu(c)
              pool = GlobalAveragePool(d)
              flat = Flatten(pool)
              logits = Gemm(flat, m)
              probabilities = Softmax(logits)
              label = ArgMax<axis=1, keepdims=0>(probabilities)
            }"""
        ),
        w=_weights(4, 3, 3, 3),
        v=_weights(6, 4, 3, 3),
        m=_weights(6, 5),
    )
    names = ("layer1/Conv", "layer1/Relu", "layer2/Conv", "layer2/Relu", "GlobalAveragePool")
    for node, name in zip(model.graph.node, names, strict=False):
        node.name = f"/model/{name}"
    return model


def test_points(network) -> None:
    points = {p.path: p for p in pg.inspect(network)}
    assert points["image"].roles == ("input",)
    assert points["image"].probes == ("gradient",)
    conv = points["model/layer1/Conv"]
    assert (conv.class_name, conv.role, conv.shape) == ("Conv", "convolution", (None, 4, 7, 5))
    assert conv.probes == ("activation", "gradient", "grad_cam")
    pool = points["model/GlobalAveragePool"]
    assert pool.probes == ("activation", "gradient")  # one position is no map
    roles = {p.class_name: p.roles for p in points.values()}
    assert roles["Softmax"] == ("output", "activation")
    assert roles["Gemm"] == ("dense",)
    assert "ArgMax" not in roles  # whole numbers


def test_selectors(network) -> None:
    view = open_source(network).view
    plan = make_plan(view, [pg.Activations("model/layer*/Conv"), pg.Activations("type:Relu")], None)
    assert [o.layer for o in plan.manifest.explanations] == [
        *("model/layer1/Conv", "model/layer2/Conv", "model/layer1/Relu", "model/layer2/Relu")
    ]


def test_the_last_map(network) -> None:
    plan = make_plan(open_source(network).view, [pg.GradCAM(output="probabilities")], None)
    (output,) = plan.manifest.explanations
    assert (output.layer, output.axes) == ("model/layer2/Relu", ("batch", "height", "width"))


def test_the_last_map_before_the_scores_themselves() -> None:
    text = """g (float[N,3,7,5] x) => (float[N,5,3,2] y) {
        c = Conv(x, v) f = Relu(c) s = Conv(f, w) y = Transpose<perm = [0, 2, 3, 1]>(s) }"""
    view = _view(text, v=_weights(4, 3, 3, 3), w=_weights(2, 4, 1, 1))
    (found,) = make_plan(view, [pg.GradCAM()], None).manifest.explanations
    assert found.layer == "f"


def test_scores_before_a_softmax(network) -> None:
    view = open_source(network).view
    assert [view.has_scores(i) for i in range(2)] == [True, False]
    for logits, name in ((True, "logits"), (False, "probabilities")):
        probe = pg.Saliency(output="probabilities", logits=logits)
        (group,) = make_plan(view, [probe], None).groups
        assert view.end(group.target).name == name


@pytest.mark.parametrize(
    ("body", "has"),
    [
        ("y = Sigmoid(x)", True),
        ("s = Softmax(x) y = Identity(s)", True),
        ("s = Softmax(x) y = Cast<to=1>(s)", True),
        ("s = Softmax(x) y = Add(s, s)", False),
        ("y = Tanh(x)", False),
        ("y = Softmax(fixed)", False),  # of nothing that is fed
    ],
)
def test_which_outputs_have_scores(body: str, has: bool) -> None:
    more = "float[2,5] z" if "fixed" in body else "float[N,5] z"
    text = f"g (float[N,5] x) => (float[N,5] y, {more}) {{ {body} z = Relu(x) }}"
    if "fixed" in body:
        text = text.replace("float[N,5] y, float[2,5] z", "float[2,5] y, float[N,5] z")
    assert _view(text, fixed=_weights(2, 5)).has_scores(0) is has


@pytest.mark.parametrize(
    ("body", "has"),
    [
        ("s = Sigmoid(x) y = Squeeze(s, one)", True),
        ("s = Sigmoid(x) y = Reshape(s, row)", True),
        ("s = Softmax<axis=-1>(x) y = Squeeze(s, one)", True),
        ("s = Softmax<axis=1>(x) y = Reshape(s, row)", False),  # which classes, behind that?
    ],
)
def test_scores_behind_reshapes(body: str, has: bool) -> None:
    constants = {"one": np.array([1]), "row": np.array([0, 5])}
    view = _view(f"g (float[N,1,5] x) => (float[N,5] y) {{ {body} }}", **constants)
    assert view.has_scores(0) is has


def test_the_score_of_one_probability_a_sample(tmp_path) -> None:
    """`torch.sigmoid(head(x)).squeeze(1)`: the gradient is that of the score, no flattened one."""
    text = """g (float[N,4] x) => (float[N] y) {
      s = MatMul(x, w)  p = Sigmoid(s)  y = Squeeze(p, one) }"""
    weights = _weights(4, 1)
    model = add_weights(parse(text, 18), w=weights, one=np.array([1]))
    pg.compile(
        model,
        [pg.InputGradient(), pg.InputGradient(logits=False, name="of_p")],
        tmp_path / "m.onnx",
    )
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    expected = np.broadcast_to(weights[:, 0], (3, 4))
    np.testing.assert_allclose(result["input_gradient/x"].array, expected, rtol=1e-5)
    p = result["y"].array[:, None]
    np.testing.assert_allclose(result["of_p"].array, p * (1 - p) * expected, rtol=1e-4)


def test_what_flows_and_what_stops_it() -> None:
    view = _view(
        """
        g (float[N,5] x) => (float[N,5] y) {
          r = Round(x)
          s = Floor(x)
          h = ArgMax<axis=1>(r)
          f = Cast<to=1>(h)
          t = Sin(x)
          y = Add(f, t)
        }"""
    )
    (group,) = make_plan(view, [pg.Saliency()], None).groups
    end = view.end(group.target)
    paths = {p.layer.outputs[0].name: p.path for p in view.points if p.role != "input"}
    assert view.flows(TensorRef(None), end)
    assert view.flows(TensorRef(paths["t"]), end)
    assert not view.flows(TensorRef(paths["r"]), end)
    assert ("ArgMax", next(n.name for n in view.graph if n.op_type == "ArgMax")) in view.blocked_at(
        TensorRef(paths["r"]), end
    )


def test_random_numbers_are_refused() -> None:
    view = _view(
        """
        g (float[N,5] x) => (float[N,5] y, float[N,5] z) {
          r = RandomNormalLike(x)
          y = Add(x, r)
          z = Relu(x)
        }"""
    )
    with pytest.raises(InstrumentError, match="'y' is drawn at random, by RandomNormalLike"):
        make_plan(view, [pg.Saliency(output="z")], None)


def test_towers_have_a_map_each() -> None:
    view = _view(
        """
        g (float[N,3,9,7] left, float[N,3,9,7] right) => (float[N,4] y) {
          a = Conv(left, w)
          b = Conv(right, w)
          p = GlobalMaxPool(a)
          q = GlobalMaxPool(b)
          s = Sub(p, q)
          y = Flatten(s)
        }""",
        w=_weights(4, 3, 3, 2),
    )
    plan = make_plan(view, [pg.GradCAM(target=1)], None)
    assert [o.layer for o in plan.manifest.explanations] == ["a", "b"] or [
        o.shape for o in plan.manifest.explanations
    ] == [(None, 7, 6)] * 2
    assert [o.input for o in plan.manifest.explanations] == ["left", "right"]


def test_maps_of_one_channel_and_of_tokens() -> None:
    view = _view(
        """
        g (float[N,3,9,7] x) => (float[N,1,4,3] y) {
          a = Conv(x, w)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
          y = Conv(p, one)
        }""",
        w=_weights(4, 3, 2, 2),
        one=_weights(1, 4, 1, 1),
    )
    (output,) = make_plan(view, [pg.GradCAM(target=(0, 1, 2))], None).manifest.explanations
    assert output.shape == (None, 8, 6)  # a map of one channel weighs nothing


TURNED = """g (float[N,2,6,5] x) => (float[N,6,5,3] y) {
  a = Conv(x, w)  p = %s(a)  y = Transpose<perm=[0,2,3,1]>(p) }"""


@pytest.mark.parametrize("function", ["Softmax<axis=1>", "Sigmoid"])
def test_scores_before_a_transposed_softmax(tmp_path, function) -> None:
    """A segmentation network as tf2onnx writes it: the scores have channels first."""
    kernel = _weights(3, 2, 1, 1)
    model = add_weights(parse(TURNED % function, 18), w=kernel)
    view = open_source(model).view
    assert view.has_scores(0)
    assert [p.class_name for p in view.points] == ["Input", "Conv", function[:7], "Transpose"]
    pg.compile(model, [pg.GradientXInput(2), pg.Occlusion(1, target=2)], tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 5)).astype(np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    # The score of class 2 is linear in x: what each element gives is its product with the kernel.
    expected = x * kernel[2, :, 0, 0][:, None, None]
    found = result["gradient_x_input/x"].array
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    hidden = result["occlusion/x"].array
    np.testing.assert_allclose(hidden, expected.sum(1), rtol=1e-4, atol=1e-5)


def test_scores_that_nobody_asks_for_are_not_turned(tmp_path) -> None:
    model = add_weights(parse(TURNED % "Softmax<axis=1>", 18), w=_weights(3, 2, 1, 1))
    pg.compile(model, [], tmp_path / "m.onnx")
    nodes = [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]
    assert nodes == ["Conv", "Softmax", "Transpose"]
