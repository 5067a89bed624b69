"""Attributions of several classes at once: a loop over them, each slice that of the one class."""

import collections

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.artefact.manifest import TargetSpec
from probegen.graph.attribution import Explained, write_attributions
from probegen.graph.core.builder import Builder
from probegen.graph.shape_inference import infer_shapes
from probegen.methods.input_gradient import InputGradient
from probegen.methods.integrated_gradients import IntegratedGradients
from probegen.methods.saliency import Saliency

#: `scores = relu(x A) B`, and a convolution of weights that is the same for all classes.
TEXT = """<ir_version: 9, opset_import: ["" : 18]>
  g (float[batch, 5, 4] x) => (float[batch, 6] scores)
  <float[4, 3] a = {%s}, float[15, 6] b = {%s}, int64[2] form = {0, 15}>
  {
    hidden = MatMul(x, a)
    bent = Softplus(hidden)
    rectified = Relu(hidden)
    both = Mul(bent, rectified)
    flat = Reshape(both, form)
    scores = MatMul(flat, b)
  }"""
RNG = np.random.default_rng(0)
A = RNG.integers(-3, 4, (4, 3)).astype(np.float32) / 2
B = RNG.integers(-3, 4, (15, 6)).astype(np.float32) / 4
AXES = ("batch", "time", "feature")


def model_of(text=TEXT):
    """Returns the model with the types and sizes of its values."""
    model = ir.from_onnx_text(text % (_listed(A), _listed(B)))
    infer_shapes(model)
    return model


def written(target, probes):
    """Returns a session and the node counts of a model with attributions of `x`."""
    model = model_of()
    builder = Builder(model.graph, 18)
    scores = model.graph.outputs[0]
    classes = "classes" if target.mode == "top" else None
    wanted = [
        Explained(name, model.graph.inputs[0], probe, AXES, classes=classes)
        for name, probe in probes.items()
    ]
    request = None
    if target.mode == "input":
        request = ir.Value(
            name="target", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"])
        )
        model.graph.inputs.append(request)
    found = write_attributions(builder, target, scores, wanted, request)
    builder.attach()
    for name, value in found.items():
        copy = ir.node("Identity", [value])
        copy.outputs[0].name, copy.outputs[0].type = name, value.type
        copy.outputs[0].shape = value.shape
        model.graph.append(copy)
        model.graph.outputs.append(copy.outputs[0])
    proto = ir.to_proto(model).SerializeToString()
    counts = collections.Counter(node.op_type for node in model.graph.all_nodes())
    shapes = {v.name: tuple(v.shape) for v in model.graph.outputs}
    return onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"]), counts, shapes


def run(session, x, **more):
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x, **more}), strict=True))


def _listed(array):
    return ", ".join(map(repr, array.reshape(-1).tolist()))


PROBES = {"gradient": InputGradient(), "map": Saliency()}
ALL = {**PROBES, "path": IntegratedGradients(steps=3)}
X = {batch: np.random.default_rng(batch).normal(size=(batch, 5, 4)).astype("f") for batch in (2, 5)}


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("probes", [PROBES, ALL], ids=["gradients", "with_a_path"])
@pytest.mark.parametrize(
    "target",
    [
        TargetSpec("top", count=4),
        TargetSpec("list", count=2, chosen=(5, 2)),
        TargetSpec("all", count=6),
        TargetSpec("all"),
    ],
    ids=lambda t: f"{t.mode}{t.count}",
)
def test_each_slice_is_what_the_class_has_alone(target, probes, batch):
    several = run(written(target, probes)[0], X[batch])
    alone, _, _ = written(TargetSpec("input"), probes)
    scores = several["scores"]
    order = np.argsort(-scores, axis=1, kind="stable")
    entries = {"top": order[:, :4].T, "list": [[5], [2]], "all": np.arange(6)[:, None]}
    for place, classes in enumerate(entries[target.mode]):
        asked = np.broadcast_to(classes, (batch,)).astype(np.int32)
        expected = run(alone, X[batch], target=asked)
        for name in probes:
            np.testing.assert_allclose(
                several[name][:, place], expected[name], rtol=1e-5, atol=1e-6
            )
    if target.mode == "top":
        assert several["classes"].dtype == np.int32
        np.testing.assert_array_equal(several["classes"], order[:, :4])


def test_equal_scores_stand_in_the_order_of_their_classes():
    session, _, _ = written(TargetSpec("top", count=6), PROBES)
    found = run(session, np.zeros((2, 5, 4), np.float32))
    np.testing.assert_array_equal(found["scores"], np.zeros((2, 6)))
    np.testing.assert_array_equal(found["classes"], [range(6)] * 2)


def test_the_graph_does_not_grow_with_the_classes():
    few, many = (written(TargetSpec("top", count=k), PROBES)[1] for k in (1, 6))
    assert few == many
    assert few["Scan"] == 1
    assert few["MatMul"] + few["Gemm"] == 4  # two forward, two in the body of the loop
    nested = written(TargetSpec("all", count=6), ALL)[1]
    assert nested["Loop"] == 1  # a Scan in a Scan is too much for OpenVINO
    assert nested["Scan"] == 1


def test_sizes_are_told():
    _, _, shapes = written(TargetSpec("top", count=4), PROBES)
    assert shapes["gradient"][1:] == (4, 5, 4)
    assert shapes["map"][1:] == (4, 5)
    assert shapes["classes"][1:] == (4,)


def test_without_a_batch_the_classes_come_first():
    model = model_of()
    builder = Builder(model.graph, 18)
    one = Explained("g", model.graph.inputs[0], InputGradient(), AXES, classes_at=0)
    found = write_attributions(
        builder, TargetSpec("all", count=6), model.graph.outputs[0], [one], None
    )
    assert found["g"].shape[0] == 6


def test_what_is_the_same_for_all_classes_is_computed_once():
    """The masks stay in the body, products of weights alone do not."""
    text = TEXT.replace(
        "flat = Reshape", "turned = Transpose <perm = [1, 0]> (c)\n    flat = Reshape"
    )
    text = text.replace("scores = MatMul(flat, b)", "scores = MatMul(flat, turned)")
    text = text.replace("float[15, 6] b", "float[6, 15] c")
    model = model_of(text)
    builder = Builder(model.graph, 18)
    one = Explained("g", model.graph.inputs[0], InputGradient(), AXES)
    write_attributions(builder, TargetSpec("all", count=6), model.graph.outputs[0], [one], None)
    scan = next(n for n in builder.nodes if n.op_type == "Scan")
    inside = collections.Counter(n.op_type for n in scan.attributes["body"].as_graph())
    outside = collections.Counter(n.op_type for n in builder.nodes)
    assert inside["Transpose"] == 0
    assert outside["Transpose"] >= 2  # of the weights, and of the result
