"""Graphs are opened in onnxruntime whatever the size of their weights, and left as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

import probegen as pg
from probegen.graph import external_data, running
from probegen.graph.running import open_graph
from probegen.sources.onnx import loading

#: What was given apart: name -> content, for each session.
Given = list[dict[str, np.ndarray]]

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[N, 5] x, bool c) => (float[N, 3] y)
<float[5, 3] w>
{
    y = If (c) <
        then_branch = a () => (float[N, 3] p) <float[3] t> { m = MatMul(x, w)  p = Add(m, t) },
        else_branch = b () => (float[N, 3] q) <float[5, 3] t> { q = MatMul(x, t) }
    >
}
"""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Lets a message hold next to nothing; returns what is given apart from messages."""
    given = []

    def taken(model: ir.Model) -> dict[str, np.ndarray]:
        given.append(external_data.take_out_weights(model))
        return given[-1]

    monkeypatch.setattr(external_data, "PROTOBUF_LIMIT", external_data._ROOM + 20)
    monkeypatch.setattr(external_data, "_LARGE", 4)
    monkeypatch.setattr(running, "take_out_weights", taken)
    return given


def weighted() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Two branches that call different weights by one name."""
    rng = np.random.default_rng(3)
    arrays = {
        "w": rng.normal(size=(5, 3)).astype(np.float32),
        "t of a": rng.normal(size=3).astype(np.float32),
        "t of b": rng.normal(size=(5, 3)).astype(np.float32),
    }
    model = onnx.parser.parse_model(TEXT)
    branches = [attribute.g for attribute in model.graph.node[0].attribute]
    for graph, (name, array) in zip([model.graph, *branches], arrays.items(), strict=True):
        del graph.initializer[:]
        graph.initializer.append(onnx.numpy_helper.from_array(array, name[:1]))
    return model, arrays


def test_weights_that_no_message_holds_are_given_apart(
    limited: Given,
) -> None:
    proto, arrays = weighted()
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    session = open_graph(model)
    (given,) = limited
    assert sorted(a.shape for a in given.values()) == [(3,), (5, 3), (5, 3)]
    x = np.random.default_rng(4).normal(size=(2, 5)).astype(np.float32)
    for chosen, right in (
        (True, x @ arrays["w"] + arrays["t of a"]),
        (False, x @ arrays["t of b"]),
    ):
        (found,) = session.run(None, {"x": x, "c": np.array(chosen)})
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kind", ["a graph", "a message"])
def test_a_model_in_memory_that_no_message_holds(
    limited: Given, monkeypatch: pytest.MonkeyPatch, tmp_path, kind: str
) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N, 5] x) => (float[N, 3] y)'
        "{ h = MatMul(x, w)  y = Tanh(h) }"
    )
    weight = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    whole = proto.SerializeToString(deterministic=True)
    source = proto
    if kind == "a graph":
        source = ir.from_proto(proto)
    else:
        monkeypatch.setattr(loading, "_serialised", lambda _: None)
    pg.compile(source, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    monkeypatch.undo()
    assert proto.SerializeToString(deterministic=True) == whole
    assert limited
    assert all("w" in given for given in limited)
    x = np.random.default_rng(4).normal(size=(2, 5)).astype(np.float32)
    found = pg.runtime.load(tmp_path / "m.onnx").run(x)
    np.testing.assert_allclose(found["y"].array, np.tanh(x @ weight), rtol=1e-5, atol=1e-6)
    slope = (1 - np.tanh(x @ weight[:, 1]) ** 2)[:, None] * weight[:, 1]
    np.testing.assert_allclose(found["input_gradient/x"].array, slope, rtol=1e-5, atol=1e-6)


def test_threads_of_the_compilers_sessions_sleep_while_they_wait(tmp_path, monkeypatch):
    """All of them: of constants, of the references and of the artefact that is verified."""
    told = []
    opened = onnxruntime.InferenceSession.__init__

    def noting(self: Any, model: Any, sess_options: Any = None, **options: Any) -> None:
        key = "session.intra_op.allow_spinning"
        told.append(sess_options is not None and sess_options.get_session_config_entry(key))
        opened(self, model, sess_options, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", noting)
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[N, 5] x) => (float[N, 2] y)
        <int64[2] sizes = {-1, 5}, float[5, 2] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}>
        { one = Neg(sizes)  two = Neg(one)  h = Reshape(x, two)  t = Tanh(h)  y = MatMul(t, w) }
    """)
    pg.compile(model, [pg.Saliency(target=1)], tmp_path / "m.onnx")
    assert len(told) > 3
    assert set(told) == {"0"}


@pytest.mark.parametrize("read", [2**28, 0], ids=["read", "left in their file"])
def test_weights_in_a_file_that_the_optimiser_folds(monkeypatch, tmp_path, read) -> None:
    monkeypatch.setattr(running, "_READ", read)
    monkeypatch.setattr(external_data, "_LARGE", 20)
    rng = np.random.default_rng(5)
    arrays = {"w": rng.normal(size=(4, 3, 1, 2)), "b": rng.normal(size=4)}
    arrays |= {name: rng.uniform(0.5, 2, size=4) for name in ("scale", "shift", "mean", "var")}
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 18]>
      g (float[N, 3, 5, 4] x) => (float[N, 4, 5, 3] y) {
        h = Conv(x, w, b)  n = BatchNormalization(h, scale, shift, mean, var)  y = Relu(n) }""")
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    x = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    (right,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    place = tmp_path / "m.onnx"
    onnx.save(proto, place, save_as_external_data=True, location="m.data", size_threshold=0)
    model = ir.load(place)
    (found,) = open_graph(model).run(None, {"x": x})
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)
    assert all(
        isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values()
    )


def test_a_transposed_sum_of_float16_that_two_read() -> None:
    """onnxruntime 1.32 ends the process while it blocks channels."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
      g (float16[N,7,3] x, float16[3,2] w) => (float16[7,N,2] y, float16[7,N,3] z)
      <float16 c = {15360}> {
        a = Add(x, c)  t = Transpose<perm = [1, 0, 2]>(a)  z = Relu(t)  y = MatMul(t, w)
      }"""
    x, w = np.full((2, 7, 3), 0.5, np.float16), np.ones((3, 2), np.float16)
    session = open_graph(ir.from_proto(onnx.parser.parse_model(text)))
    y, z = session.run(None, {"x": x, "w": w})
    np.testing.assert_array_equal(y, np.full((7, 2, 2), 4.5))
    np.testing.assert_array_equal(z, np.full((7, 2, 3), 1.5))
