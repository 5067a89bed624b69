"""Class activation maps of films whose frames an ONNX file joins with the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError

#: `[batch, frame, channel, height, width]`, of which the convolutions see `[batch*frame, ...]`.
FILM = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 4, 2, 6, 7] film) => (float[batch, 3] scores)
{
    joined = Reshape (film, frames)
    a = Conv (joined, kernel)
    b = Tanh (a)
    c = ReduceMean <keepdims = 0> (b, places)
    means = Reshape (c, apart)
    turned = Transpose <perm = [1, 0, 2]> (means)
    squares = Mul (turned, turned)
    weighed = Mul (squares, weights)
    d = ReduceSum <keepdims = 0> (weighed, first)
    scores = MatMul (d, head)
}
"""
SHAPES = {"kernel": (5, 2, 3, 2), "weights": (4, 1, 5), "head": (5, 3)}
WHOLE = {"frames": [-1, 2, 6, 7], "apart": [-1, 4, 5], "places": [2, 3], "first": [0]}
CAMS = {
    "GradCAM": lambda g, a: (g.mean((2, 3), keepdims=True) * a).sum(1),
    "HiResCAM": lambda g, a: (g * a).sum(1),
    "LayerCAM": lambda g, a: (np.maximum(g, 0) * a).sum(1),
}


def film() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(FILM)
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
    arrays |= {n: np.array(v) for n, v in WHOLE.items()}
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: Any) -> runtime.Artefact:
    place = tmp_path_factory.mktemp("films")
    probes = [getattr(pg, name)(target=1) for name in CAMS]
    probes += [pg.GradCAM(target="top:2", name="two")]
    pg.compile(film(), probes, place / "m.onnx")  # verified, at several batch sizes
    return runtime.load(place / "m.onnx", threads=1)


@pytest.mark.parametrize("name", CAMS)
@pytest.mark.parametrize("batch", [1, 3])
def test_each_frame_has_a_map_of_its_own(artefact: runtime.Artefact, name: str, batch: int) -> None:
    x = np.random.default_rng(batch).normal(size=(batch, 4, 2, 6, 7)).astype(np.float32)
    x[0, 1] = 0.0
    proto = film()
    arrays = {i.name: onnx.numpy_helper.to_array(i).astype(float) for i in proto.graph.initializer}
    proto.graph.output.append(onnx.helper.make_tensor_value_info("b", 1, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    b = session.run(["b"], {"film": x})[0].astype(float)
    means = b.mean((2, 3)).reshape(batch, 4, 5)
    # The score is the sum over frames and channels of weights mean^2 head.
    slope = 2 * means * arrays["weights"][:, 0] * arrays["head"][:, 1] / (b.shape[2] * b.shape[3])
    gradient = np.broadcast_to(slope.reshape(-1, 5, 1, 1), b.shape)
    expected = np.maximum(CAMS[name](gradient, b), 0).reshape(batch, 4, *b.shape[2:])
    (spec,) = [o for o in artefact.manifest.explanations if o.name == f"{_kind(name)}/{LAYER}"][:1]
    assert spec.axes == ("batch", "frame", "height", "width")
    found = artefact.run(x)[spec.name].array
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


LAYER = "b"


def _kind(name: str) -> str:
    return str(getattr(pg, name).kind)


def test_maps_of_several_classes_are_drawn(artefact: runtime.Artefact) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 2, 6, 7)).astype(np.float32)
    result = artefact.run(x)
    assert result["two"].array.shape == (2, 2, 4, 4, 6)
    assert result["two"].plot().axes


def test_the_size_of_the_input_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InstrumentError, match=r"upsample=True: 'b' goes through frames"):
        pg.compile(film(), [pg.HiResCAM(upsample=True)], tmp_path / "m.onnx")


@pytest.mark.parametrize("method", [pg.EigenCAM, pg.ScoreCAM, pg.ReciproCAM])
def test_other_maps_are_refused_by_name(method: Any, tmp_path: Any) -> None:
    with pytest.raises(InstrumentError, match=rf"{method.__name__} makes no map of each frame"):
        pg.compile(film(), [method()], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


#: The same of series, `[batch, window, channel, time]`: convolutions see `[batch*window, ...]`.
SERIES = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 4, 2, 9] series) => (float[batch, 3] scores)
{
    joined = Reshape (series, windows)
    a = Conv (joined, kernel)
    t = Tanh (a)
    b = Mul (t, scale)
    c = ReduceMean <keepdims = 0> (b, places)
    means = Reshape (c, apart)
    squares = Mul (means, means)
    weighed = Mul (squares, weights)
    d = ReduceSum <keepdims = 0> (weighed, first)
    scores = MatMul (d, head)
}
"""
SERIES_SHAPES = {"kernel": (5, 2, 3), "scale": (5, 1), "weights": (4, 5), "head": (5, 3)}
SERIES_WHOLE = {"windows": [-1, 2, 9], "apart": [-1, 4, 5], "places": [2], "first": [1]}


def series() -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    proto = onnx.parser.parse_model(SERIES)
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in SERIES_SHAPES.items()}
    arrays |= {n: np.array(v) for n, v in SERIES_WHOLE.items()}
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def test_windows_of_a_series_have_maps_of_their_own(tmp_path: Any) -> None:
    probes = [getattr(pg, name)(LAYER, target=1) for name in CAMS]
    pg.compile(series(), probes, tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    x = np.random.default_rng(5).normal(size=(3, 4, 2, 9)).astype(np.float32)
    x[0, 1] = 0.0
    proto = series()
    arrays = {i.name: onnx.numpy_helper.to_array(i).astype(float) for i in proto.graph.initializer}
    proto.graph.output.append(onnx.helper.make_tensor_value_info("b", 1, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    b = session.run(["b"], {"series": x})[0].astype(float)
    means = b.mean(2).reshape(3, 4, 5)
    slope = 2 * means * arrays["weights"] * arrays["head"][:, 1] / b.shape[2]
    gradient = np.broadcast_to(slope.reshape(-1, 5, 1), b.shape)
    cams = {**CAMS, "GradCAM": lambda g, a: (g.mean(2, keepdims=True) * a).sum(1)}
    for name, cam in cams.items():
        record = artefact.run(x)[f"{_kind(name)}/{LAYER}"]
        assert record.axes[:2] == ("batch", "frame")
        expected = np.maximum(cam(gradient, b), 0).reshape(3, 4, -1)
        np.testing.assert_allclose(record.array, expected, rtol=1e-4, atol=1e-6)
    assert record.plot(1).axes


#: Heads of attention are joined with the samples as frames are, and carry no map.
HEADS = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 2, 7, 5] x) => (float[batch, 5] scores)
{
    joined = Reshape (x, heads)
    values = Tanh (joined)
    turned = Transpose <perm = [0, 2, 1]> (values)
    raw = MatMul (values, turned)
    weights = Softmax <axis = -1> (raw)
    mixed = MatMul (weights, values)
    apart = Reshape (mixed, back)
    scores = ReduceMean <keepdims = 0> (apart, places)
}
"""


def test_heads_of_attention_are_no_frames() -> None:
    proto = onnx.parser.parse_model(HEADS)
    for name, whole in {"heads": [-1, 7, 5], "back": [-1, 2, 7, 5], "places": [1, 2]}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(whole), name))
    points = pg.inspect(proto)
    assert points
    assert not [p.path for p in points if "grad_cam" in p.probes and p.path in ("mixed", "values")]
