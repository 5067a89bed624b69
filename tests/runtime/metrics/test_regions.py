"""Metrics of scores that are sums over positions, which a region of the request may weigh."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime import metrics

SEGMENTS = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 2, 5, 7] image) => (float[batch, 3, 5, 7] segments)
{
    a = Conv <pads = [1, 1, 1, 1]> (image, kernel)
    b = Tanh (a)
    segments = Conv (b, mix)
}
"""
TARGETS = ("argmax", 1, "input", pg.contrast(2, 0))


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(7)
    proto = onnx.parser.parse_model(SEGMENTS)
    for name, shape in {"kernel": (4, 2, 3, 3), "mix": (3, 4, 1, 1)}.items():
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: Any) -> runtime.Artefact:
    place = tmp_path_factory.mktemp("regions")
    probes = [
        pg.InputGradient(target=t, region="input", name=f"weighed/{i}", logits=False)
        for i, t in enumerate(TARGETS)
    ]
    whole = [
        pg.InputGradient(target=t, name=f"whole/{i}", logits=False) for i, t in enumerate(TARGETS)
    ]
    pg.compile(network(), [*probes, *whole], place / "m.onnx")
    return runtime.load(place / "m.onnx", threads=1)


def score(segments: np.ndarray, first: np.ndarray, target: Any, asked: Any, region: Any) -> Any:
    """The score of changed samples, with the classes that the samples as they are decide for."""
    best = first.argmax(1)
    if target == "argmax":
        picked = np.take_along_axis(segments, best[:, None], 1)[:, 0]
    elif target == "input":
        classes = np.where(np.asarray(asked)[:, None, None] < 0, best, asked[:, None, None])
        picked = np.take_along_axis(segments, classes[:, None], 1)[:, 0]
    elif isinstance(target, int):
        picked = segments[:, target]
    else:
        picked = segments[:, 2] - segments[:, 0]
    return (picked * region).sum((1, 2))


@pytest.mark.parametrize("place", range(len(TARGETS)))
def test_the_score_is_weighed_by_the_region_of_the_request(
    artefact: runtime.Artefact, place: int
) -> None:
    rng = np.random.default_rng(place)
    x = rng.normal(size=(3, 2, 5, 7)).astype(np.float32)
    region = rng.normal(size=(3, 5, 7)).astype(np.float32)
    region[1] = region[1] > 0.5
    asked = np.array([2, -1, 0], np.int32)
    session = onnxruntime.InferenceSession(network().SerializeToString())
    plain = lambda v: session.run(None, {"image": v})[0].astype(float)  # noqa: E731
    first = plain(x)
    for name, weights in ((f"weighed/{place}", region), (f"whole/{place}", np.ones((3, 5, 7)))):
        request = {"target": asked, "region": region}
        curve = metrics.removal_curve(artefact, x, name, baseline=0.25, step=0.4, **request)
        heat = artefact.run(x, **request)[name].array.astype(float).sum(1).reshape(3, -1)
        order = np.argsort(-heat, 1, kind="stable")
        for k, share in enumerate(curve.shares):
            changed = x.copy().reshape(3, 2, 35)
            for row in range(3):
                changed[row][:, order[row, : round(share * 35)]] = 0.25
            expected = score(plain(changed.reshape(x.shape)), first, TARGETS[place], asked, weights)
            np.testing.assert_allclose(curve.scores[:, k], expected, rtol=1e-4, atol=1e-4)


def test_a_region_of_another_shape_is_refused(artefact: runtime.Artefact) -> None:
    x = np.zeros((1, 2, 5, 7), np.float32)
    with pytest.raises(InputError, match="region"):
        metrics.deletion(artefact, x, "weighed/1", region=np.ones((4, 7)))
