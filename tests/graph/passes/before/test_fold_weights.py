"""Weights that stay out of the conversion: folded as they are put in, and nothing else differs."""

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.graph.passes.before.fold_weights import fold_weights
from tests.models import images

RNG = np.random.default_rng(4)


def graph_of(text, **weights):
    """A model of nodes in ONNX's text form over the input `x`, with weights; shapes inferred."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 3] x) => (float[2, 5] y) {{ {text} }}"""
    )
    model = ir.serde.deserialize_model(proto)
    for name, array in weights.items():
        nodes = model.graph.all_nodes()
        value = next(v for n in nodes for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.Tensor(array, name=name)
        value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
        model.graph.register_initializer(value)
    return ir.passes.common.ShapeInferencePass()(model).model


def run(model, x):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})[0]


W = RNG.standard_normal((5, 3)).astype(np.float32)
CASES = {
    "a transpose": ("t = Transpose<perm=[1, 0]>(w) y = MatMul(x, t)", {"w": W}, ["MatMul"]),
    "a chain": (
        "a = Reshape(w, s) b = Squeeze(a, k) t = Transpose<perm=[1, 0]>(b) y = MatMul(x, t)",
        {"w": W.reshape(15), "s": np.array([1, 5, 3]), "k": np.array([0])},
        ["MatMul"],
    ),
    "a cast": (
        "c = Cast<to=1>(w) t = Transpose<perm=[1, 0]>(c) y = MatMul(x, t)",
        {"w": W.astype(np.float16)},
        ["MatMul"],
    ),
    "a split": (
        "a, b = Split<axis=0>(w, s) t = Transpose<perm=[1, 0]>(a) k = MatMul(x, t) "
        "u = Transpose<perm=[1, 0]>(b) l = MatMul(x, u) y = Concat<axis=1>(k, l)",
        {"w": W, "s": np.array([2, 3])},
        ["MatMul", "MatMul", "Concat"],
    ),
    "two that make the same": (
        "t = Transpose<perm=[1, 0]>(w) a = MatMul(x, t) u = Transpose<perm=[1, 0]>(w) "
        "b = MatMul(x, u) y = Add(a, b)",
        {"w": W},
        ["MatMul", "MatMul", "Add"],
    ),
    "two that do not": (
        "t = Transpose<perm=[1, 0]>(w) a = MatMul(x, t) r = Reshape(w, s) b = MatMul(x, r) "
        "y = Add(a, b)",
        {"w": W, "s": np.array([3, 5])},
        ["Transpose", "MatMul", "Reshape", "MatMul", "Add"],
    ),
    "a number, which stays one": (
        "n = Squeeze(w, k) r = Range(z, n, o) s = ReduceSum(x, j) y = Mul(s, r)",
        {
            "w": np.array([5], np.float32),
            "k": np.array([0]),
            "z": np.float32(0),
            "o": np.float32(1),
            "j": np.array([1]),
        },
        ["Range", "ReduceSum", "Mul"],
    ),
    "what something else reads too": (
        "t = Transpose<perm=[1, 0]>(w) a = MatMul(x, t) b = MatMul(a, w) y = MatMul(b, t)",
        {"w": W},
        ["Transpose", "MatMul", "MatMul", "MatMul"],
    ),
    "what is no weight": (
        "t = Transpose<perm=[1, 0]>(x) b = MatMul(w, t) y = Transpose<perm=[1, 0]>(b)",
        {"w": W},
        ["Transpose", "MatMul", "Transpose"],
    ),
    "a cast to whole numbers": (
        "i = Cast<to=7>(w) f = Cast<to=1>(i) t = Transpose<perm=[1, 0]>(f) y = MatMul(x, t)",
        {"w": W},
        ["Cast", "Cast", "Transpose", "MatMul"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_folding(name):
    nodes, weights, left = CASES[name]
    model = graph_of(nodes, **weights)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    before = run(model, x)
    fold_weights(model)
    assert [n.op_type for n in model.graph] == left
    np.testing.assert_array_equal(run(model, x), before)


def test_in_the_body_of_a_loop():
    nodes = """
        z = MatMul (x, k)
        y = Loop (n, go, z) <body = step (int64 i, bool on, float[2, 5] h)
          => (bool on_next, float[2, 5] h_next) {
          on_next = Identity (on)
          left, right = Split <axis = 1> (w, s)
          t = Transpose <perm = [1, 0]> (left)
          a = MatMul (h, right)
          h_next = MatMul (a, t) }>"""
    weights = {"k": W.T, "n": np.array(2), "go": np.array(True), "s": np.array([3, 3])}
    model = graph_of(nodes, **weights, w=RNG.standard_normal((5, 6)).astype(np.float32))
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    before = run(model, x)
    fold_weights(model)
    kinds = [n.op_type for n in model.graph.all_nodes()]
    assert kinds == ["MatMul", "Loop", "Identity", "MatMul", "MatMul"]
    np.testing.assert_array_equal(run(model, x), before)


def test_an_output_is_not_folded_away():
    model = graph_of("t = Transpose<perm=[1, 0]>(w) y = Identity(t)", w=W[:, :2])
    fold_weights(model)
    fold_weights(model)
    assert [n.op_type for n in model.graph] == ["Identity"]
    model = graph_of("y = Transpose<perm=[1, 0]>(w)", w=W[:, :2])
    fold_weights(model)
    assert [n.op_type for n in model.graph] == ["Transpose"]


def test_a_weight_that_is_an_output_or_an_input_too_stays():
    for ends in ("outputs", "inputs"):
        model = graph_of("t = Transpose<perm=[1, 0]>(w) y = MatMul(x, t)", w=W)
        getattr(model.graph, ends).append(model.graph.initializers["w"])
        fold_weights(model)
        assert [n.op_type for n in model.graph] == ["Transpose", "MatMul"]
        assert "w" in model.graph.initializers


def many_kinds():
    """Each kind of kernel once: `[?, 11, 8, 4]` -> 3 classes."""
    keras.utils.set_random_seed(0)
    x = keras.Input((11, 8, 4), name="x")
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.SeparableConv2D(8, 2)(layers.DepthwiseConv2D((3, 2), depth_multiplier=2)(y))
    y = layers.Conv2DTranspose(5, 3, strides=2)(layers.Conv2D(12, 2, groups=4)(y))
    twice = layers.Conv2D(5, 1)
    y = layers.Conv2D(7, 3, dilation_rate=2, padding="same", activation="gelu")(twice(twice(y)))
    y = layers.Conv1D(5, 3, strides=2)(layers.Reshape((-1, 7))(y))
    y = layers.Dense(3, activation="softmax", name="scores")(layers.LSTM(4)(y))
    return keras.Model(x, y)


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from operators(attribute.g)


def test_a_model_comes_out_the_same(tmp_path, monkeypatch):
    model = many_kinds()
    pg.compile(model, pg.Saliency(target=1), tmp_path / "converted.onnx", verify=False)
    monkeypatch.setattr("probegen.sources.keras.to_onnx.lowering._MOST_CONVERTED", 0)
    monkeypatch.setattr("probegen.sources.keras.to_onnx.lowering._MEDIUM_WEIGHT", 1)
    pg.compile(model, pg.Saliency(target=1), tmp_path / "put_in.onnx", verify=False)
    protos = [onnx.load(tmp_path / f"{name}.onnx") for name in ("converted", "put_in")]
    assert sorted(operators(protos[0].graph)) == sorted(operators(protos[1].graph))
    stored = [sum(len(t.raw_data) for t in proto.graph.initializer) for proto in protos]
    assert stored[1] <= stored[0]
    x = images((11, 8, 4))
    one, other = (runtime.load(tmp_path / f"{n}.onnx").run(x) for n in ("converted", "put_in"))
    np.testing.assert_allclose(one["scores"].array, model(x), rtol=1e-4, atol=1e-6)
    for name, record in one.items():
        np.testing.assert_allclose(other[name].array, record.array, rtol=1e-5, atol=1e-7)
