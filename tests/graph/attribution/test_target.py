"""The seed of a target in ONNX, against its twin in numpy."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.artefact import seeds as by_numpy
from probegen.artefact.manifest import TargetSpec
from probegen.graph.attribution.target import choices, one_hot, seed
from probegen.graph.core.builder import Builder

VECTOR, SEQUENCE, MAPS = ("batch", 3), ("batch", 4, 3), ("batch", 2, 4, 3)
OPEN = ("batch", "time", "class")


def value(name, dtype, shape):
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def run(target, shape, scores, request=None):
    """Returns what the nodes say, and checks the type and the sizes that they claim."""
    inputs = [value("scores", ir.DataType.FLOAT, shape)]
    feeds = {"scores": scores}
    if request is not None:
        inputs.append(value("target", ir.DataType.INT32, ["batch"]))
        feeds["target"] = np.asarray(request, np.int32)
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 18}, name="g")
    builder = Builder(graph, 18)
    found = seed(builder, target, *inputs)
    assert found.dtype == ir.DataType.FLOAT
    return computed(builder, [found], feeds)[0]


def computed(builder, outputs, feeds):
    """Returns the values of what a builder wrote, each of the rank that it claims."""
    builder.attach()
    graph = builder.graph
    graph.outputs.extend(outputs)
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, feeds)
    assert [v.ndim for v in found] == [len(v.shape) for v in outputs]
    return found


def drawn(shape, batch, time=5):
    """Few numbers, so that the largest are ties; zeros and negative ones among them."""
    sizes = [{"batch": batch, "time": time, "class": 3}.get(n, n) for n in shape]
    return np.random.default_rng(batch).integers(-2, 2, sizes).astype(np.float32)


CASES = [
    ("argmax", None, VECTOR),
    ("argmax", None, SEQUENCE),
    ("argmax", None, MAPS),
    ("argmax", None, OPEN),
    ("argmax", None, ("batch",)),
    ("argmax", None, ("batch", 1)),
    ("callable", None, ("batch",)),
    ("callable", None, VECTOR),
    ("index", (0,), VECTOR),
    ("index", (2,), VECTOR),
    ("index", (-3,), VECTOR),
    ("index", (None,), VECTOR),
    ("index", (), ("batch",)),
    ("index", (None, 1), SEQUENCE),
    ("index", (3, None), SEQUENCE),
    ("index", (-1, -2), SEQUENCE),
    ("index", (1, None, 2), MAPS),
    ("index", (0, 3, 1), MAPS),
    ("index", (None, None, 2), MAPS),
    ("index", (None, None, None), MAPS),
    ("index", (4, None), OPEN),
    ("index", (-1, 1), OPEN),
]


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize(("mode", "index", "shape"), CASES)
def test_which_entries_are_summed_up(mode, index, shape, batch):
    target, scores = TargetSpec(mode, index), drawn(shape, batch)
    np.testing.assert_array_equal(run(target, shape, scores), by_numpy.seed(scores, target))


@pytest.mark.parametrize("shape", [VECTOR, SEQUENCE, MAPS, OPEN])
@pytest.mark.parametrize("request_", [[-1, 0, 2], [0, -1, 1], [2, 2, 0], [-1, -1, -1]])
def test_a_class_of_the_request(shape, request_):
    target, scores = TargetSpec("input"), drawn(shape, 3)
    expected = by_numpy.seed(scores, target, np.array(request_))
    np.testing.assert_array_equal(run(target, shape, scores, request_), expected)


CONTRASTS = [(2, "argmax"), ("runner_up", "argmax"), ("runner_up", 0), (0, 2)]


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("shape", [VECTOR, SEQUENCE, MAPS, OPEN])
@pytest.mark.parametrize("sides", CONTRASTS)
def test_contrasts(sides, shape, batch):
    target, scores = TargetSpec("contrast", chosen=sides), drawn(shape, batch)
    np.testing.assert_array_equal(run(target, shape, scores), by_numpy.seed(scores, target))


SEVERAL = [
    TargetSpec("top", count=1),
    TargetSpec("top", count=3),
    TargetSpec("list", count=2, chosen=(2, 0)),
    TargetSpec("all", count=3),
    TargetSpec("all"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("shape", [VECTOR, SEQUENCE, MAPS, OPEN])
@pytest.mark.parametrize("target", SEVERAL)
def test_several_classes(target, shape, batch, dtype):
    scores = drawn(shape, batch).astype(dtype)
    kind = ir.DataType.from_numpy(scores.dtype)
    graph = ir.Graph([value("scores", kind, shape)], [], nodes=[], opset_imports={"": 18}, name="g")
    builder = Builder(graph, 18)
    classes = choices(builder, target, graph.inputs[0])
    last = builder.op("Gather", classes, builder.const(np.int64(-1)), axis=0)
    last.shape = ir.Shape(list(classes.shape)[1:])
    found, row = computed(
        builder, [classes, one_hot(builder, last, graph.inputs[0])], {"scores": scores}
    )
    np.testing.assert_array_equal(found, by_numpy.choices(scores, target))
    np.testing.assert_array_equal(row, by_numpy.seeds(scores, target)[-1])
    assert row.dtype == dtype


OF_LAYER = [
    TargetSpec("argmax", layer="l"),
    TargetSpec("contrast", chosen=("runner_up", 0), layer="l"),
    TargetSpec("input", layer="l"),
]


@pytest.mark.parametrize("shape", [VECTOR, SEQUENCE, MAPS, OPEN])
@pytest.mark.parametrize("target", OF_LAYER, ids=lambda t: t.mode)
def test_channels_of_a_layer(target, shape):
    scores = drawn(shape, 3) + np.linspace(0, 0.1, 3, dtype=np.float32)
    asked = [-1, 0, 2] if target.mode == "input" else None
    found = run(target, shape, scores, asked)
    expected = by_numpy.seed(scores, target, None if asked is None else np.array(asked))
    np.testing.assert_array_equal(found, expected)
