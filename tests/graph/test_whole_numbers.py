"""Beside explanations a quantised model keeps the kernels of whole numbers of the plain file."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.whole_numbers import read_own_floats
from tests.sources.onnx.support import add_weights, hard, parse, run


def quantised(layers: str, kind: str = "uint8", **arrays: Any) -> onnx.ModelProto:
    """Returns x [N, 7] -> Gemm -> one function -> Gemm -> another function, all of it in pairs."""
    rng = np.random.default_rng(3)
    zero = 120 if kind == "uint8" else -8
    first, last = layers.split()
    return add_weights(
        parse(f"""
            net (float[N,7] x) => (float[N,5] y) {{
              xq = QuantizeLinear(x, sx, zx)  xd = DequantizeLinear(xq, sx, zx)
              w1 = DequantizeLinear(w1q, sw, zw)
              a = Gemm(xd, w1)
              aq = QuantizeLinear(a, sa, zx)  ad = DequantizeLinear(aq, sa, zx)
              b = {first}(ad)
              bq = QuantizeLinear(b, sb, zb)  bd = DequantizeLinear(bq, sb, zb)
              w2 = DequantizeLinear(w2q, sw, zw)
              c = Gemm(bd, w2)
              cq = QuantizeLinear(c, sa, zx)  cd = DequantizeLinear(cq, sa, zx)
              d = {last}(cd)
              dq = QuantizeLinear(d, sb, zb)  y = DequantizeLinear(dq, sb, zb) }}"""),
        **{
            "w1q": rng.integers(-127, 128, (7, 16), dtype=np.int8),
            "w2q": rng.integers(-127, 128, (16, 5), dtype=np.int8),
            "sx": np.float32(0.03),
            "sa": np.float32(0.04),
            "sb": np.float32(1 / 255),
            "sw": np.float32(0.003),
            "zx": np.array(zero, kind),
            "zb": np.array(0 if kind == "uint8" else -128, kind),
            "zw": np.int8(0),
        },
        **arrays,
    )


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_predictions_are_the_plain_file_s_in_bits(kind, tmp_path):
    """Unfused, two thirds of these samples were one step away."""
    model = quantised("Sigmoid Softmax", kind)
    x = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    expected = run(model, {"x": x})["y"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    unfused = onnxruntime.InferenceSession(model.SerializeToString(), options)
    assert (unfused.run(None, {"x": x})[0] != expected).any()
    probes = [pg.InputGradient(target="top:2"), pg.IntegratedGradients(steps=2, target=1)]
    for gate in (True, False):
        path = tmp_path / f"{gate}.onnx"
        pg.compile(model, [*probes, pg.Activations("*")], path, gate=gate)
        artefact = runtime.load(path)
        for explain in (True, False) if gate else (True,):
            result = artefact.run(x, explain=explain)
            np.testing.assert_array_equal(result["y"].array, expected)
        best = np.argsort(-expected, axis=1, kind="stable")[:, :2]
        classes = artefact.run(x)["input_gradient/x/classes"].array
        np.testing.assert_array_equal(classes, best)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_points_of_a_path_come_from_the_same_kernels(kind, tmp_path):
    """The last quantisation of a loop's body read the floats of the gradient.

    Where kernels of whole numbers cut sums off, as on x86 processors without VNNI, its gradient was
    then taken at another number than the file has at that point.
    """
    path = tmp_path / "m.onnx"
    model = quantised("Sigmoid Softmax", kind)
    probe = pg.IntegratedGradients(steps=2, target=1, logits=False)
    pg.compile(model, probe, path, gate=False)
    (loop,) = [n for n in ir.load(path).graph if n.op_type == "Loop"]
    body = loop.attributes["body"].as_graph()
    found = [n for n in body if n.op_type == "QuantizeLinear"]
    assert len(found) == 5 - 1  # the last one of the file passes slopes as they are
    assert all(node.outputs[0].dtype == ir.DataType.UINT8 for node in found)
    for node in found[1:]:  # the first reads the points, as the gradient does
        assert [use.node for use in node.inputs[0].uses()] == [node]


def test_what_is_no_prediction_reads_floats_of_its_own():
    """Whole numbers are shared; weights, and what stands before any of them, are not copied."""
    model = ir.from_proto(quantised("Relu Tanh"))
    graph = model.graph
    values = {v.name: v for node in graph for v in node.outputs}
    probe = ir.node("Add", [values["a"], values["bd"]], name="probe")  # broadcast: no shapes here
    graph.append(probe)
    graph.outputs.extend([values["c"], values["cq"]])
    before = Counter(n.op_type for n in graph)
    read_own_floats(graph, [values["y"]])
    added = Counter(n.op_type for n in graph)
    added.subtract(before)
    assert {k: n for k, n in added.items() if n} == {"Gemm": 2, "DequantizeLinear": 2}
    assert all(v is not values["a"] and v is not values["bd"] for v in probe.inputs)
    for name in ("a", "b", "d"):  # their quantisation alone
        assert [u.node.op_type for u in values[name].uses()] == ["QuantizeLinear"]
    assert [v.name for v in graph.outputs] == ["y", "c", "cq"]
    assert graph.outputs[1] is not values["c"]
    assert graph.outputs[2] is values["cq"]
    of_probe = next(v for v in probe.inputs if v.producer().op_type == "DequantizeLinear")
    assert of_probe.producer().inputs[0] is values["bq"]
    # Nothing joins the two again.
    assert of_probe.producer().attributes["axis"].as_int() == 0


def test_signed_numbers_become_unsigned_where_a_pair_has_no_second_reader():
    model = add_weights(
        parse("""
            net (float[N,6] x) => (float[N,6] y) {
              q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
              r = Neg(d)
              t = QuantizeLinear(r, s, z)  e = DequantizeLinear(t, s, z)
              m = Mul(e, e)
              p = QuantizeLinear(m, s, z)  y = DequantizeLinear(p, s, z) }"""),
        s=np.float32(0.02),
        z=np.int8(-5),
    )
    changed = ir.from_proto(model)
    values = {v.name: v for node in changed.graph for v in node.outputs}
    read_own_floats(changed.graph, [values["y"]])
    zeros = {
        node.name or node.outputs[0].name: node.inputs[2].const_value.numpy()
        for node in changed.graph
        if node.op_type == "QuantizeLinear"
    }
    assert {name: (str(z.dtype), int(z)) for name, z in zeros.items()} == {
        "q": ("uint8", 123),
        "t": ("int8", -5),
        "p": ("uint8", 123),
    }
    feed = {"x": 3 * hard(5, 6)}
    np.testing.assert_array_equal(run(changed, feed)["y"], run(model, feed)["y"])
