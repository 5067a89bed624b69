"""Normalisations of groups by one operator: every method that has rules of its own for it."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests.sources.onnx.support import add_weights, parse, run

EPSILON, STABILISER, BASELINE, GROUPS = 0.02, 1e-4, 0.4, 3
rng = np.random.default_rng(6)
KERNEL, HEAD = rng.normal(size=(6, 2, 1, 2)), rng.normal(size=(6, 2))
OF_GROUPS = rng.normal(loc=0.5, size=(2, GROUPS))


def network(opset):
    """`[?, 2, 3, 4] -> [?, 2]`; up to opset 20 a group has one scale, later each channel has."""
    scale, shift = OF_GROUPS if opset < 21 else np.repeat(OF_GROUPS, 2, 1)
    text = f"""net (float[n, 2, 3, 4] x) => (float[n, 2] y) {{
        a = Conv(x, kernel)
        b = GroupNormalization<num_groups = {GROUPS}, epsilon = {EPSILON}>(a, scale, shift)
        r = Relu(b)  p = GlobalAveragePool(r)  f = Flatten(p)  y = MatMul(f, head) }}"""
    weights = {"kernel": KERNEL, "head": HEAD, "scale": scale, "shift": shift}
    given = {name: np.asarray(values, np.float32) for name, values in weights.items()}
    return add_weights(parse(text, opset), **given)


def forward(x):
    """What the convolution and the normalisation give, one over the deviation, and the scale."""
    a = np.stack([x[..., :-1], x[..., 1:]], -1)
    a = np.einsum("nchwk,ock->nohw", a, KERNEL[:, :, 0])
    grouped = a.reshape(len(x), GROUPS, -1)
    inverse = 1 / np.sqrt(grouped.var(-1, keepdims=True) + EPSILON)
    scale, shift = (v.reshape(1, GROUPS, 1) for v in OF_GROUPS)
    b = (grouped - grouped.mean(-1, keepdims=True)) * inverse * scale + shift
    return a, b.reshape(a.shape), inverse, scale


def back(g):
    """Through the convolution."""
    found = np.zeros((len(g), 2, 3, 4))
    for k in range(2):
        found[..., k : k + 3] += np.einsum("nohw,oc->nchw", g, KERNEL[:, :, 0, k])
    return found


def samples(count):
    x = np.random.default_rng(count).normal(size=(count, 2, 3, 4)).astype(np.float32)
    x[0] = 0.0
    return x


@pytest.mark.parametrize("opset", [18, 21])
def test_gradients_guided_backpropagation_and_relevance_by_hand(tmp_path, opset):
    model = network(opset)
    probes = [pg.InputGradient(target=1), pg.GuidedBackprop(target=1)]
    pg.compile(model, [*probes, pg.LRP(target=1, epsilon=STABILISER)], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (2, 5):
        x = samples(count)
        found = artefact.run(x)
        np.testing.assert_allclose(found["y"].array, run(model, {"x": x})["y"], rtol=1e-4)
        a, b, inverse, scale = forward(x.astype(np.float64))
        passed = np.broadcast_to(HEAD[:, 1].reshape(1, 6, 1, 1) / 9, b.shape) * (b > 0)
        n = a.reshape(count, GROUPS, -1) - a.reshape(count, GROUPS, -1).mean(-1, keepdims=True)
        n = n * inverse
        for kind, arrived in (("input_gradient", passed), ("guided_backprop", passed.clip(0))):
            g = arrived.reshape(n.shape) * scale
            mean = g.mean(-1, keepdims=True) + n * (g * n).mean(-1, keepdims=True)
            expected = back(((g - mean) * inverse).reshape(a.shape))
            got = found[f"{kind}/x"].array
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4, err_msg=kind)
        y = np.maximum(b, 0).mean((2, 3)) @ HEAD[:, 1]
        relevance = np.maximum(b, 0) * passed * away(y, y)[:, None, None, None]
        weight = (relevance / (b + np.where(b >= 0, STABILISER, -STABILISER))).reshape(n.shape)
        weight = weight * scale * inverse
        weight = (weight - weight.mean(-1, keepdims=True)).reshape(a.shape)
        expected = x * back(away(a, a) * weight)
        got = found["lrp/x"].array
        np.testing.assert_allclose(got, expected, rtol=5e-3, atol=1e-3 * np.abs(expected).max())


def away(z, of):
    """What is left of z where it is divided by `of`, stabilised, and multiplied by that again."""
    return z / (of + np.where(of >= 0, STABILISER, -STABILISER))


@pytest.mark.parametrize("opset", [18, 21])
def test_deep_lift_is_complete(tmp_path, opset):
    model = network(opset)
    exported = pg.compile(model, pg.DeepLIFT(BASELINE, target=1), tmp_path / "m.onnx")
    assert "numpy on the forward graph" in exported.report["deep_lift/x"].witness
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (2, 5):
        x = samples(count)
        own, there = (run(model, {"x": v})["y"][:, 1] for v in (x, np.full_like(x, BASELINE)))
        found = artefact.run(x)["deep_lift/x"].array.reshape(count, -1).sum(1)
        np.testing.assert_allclose(found, own - there, rtol=1e-3, atol=1e-4)
