"""DeepLIFT and LRP of pictures that are sampled at places which change, and of single extrema."""

import itertools

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import UnsupportedOpsError
from tests.sources.onnx.support import add_weights, parse, run

BASELINE = 0.3
rng = np.random.default_rng(4)
KERNEL, PLACES = rng.normal(size=(3, 2, 2, 2)), 0.4 * rng.normal(size=(2, 2, 3, 3))
HEAD = rng.normal(size=(3, 2))


def deformed(mode, padding, opset=20):
    """`[?, 2, 5, 6] -> [?, 2]`: the places of a picture are made of the picture itself."""
    text = f"""net (float[n, 2, 5, 6] x) => (float[n, 2] y) {{
        a = Conv<pads = [1, 1, 1, 1]>(x, places)  b = Tanh(a)
        at = Transpose<perm = [0, 2, 3, 1]>(b)
        s = GridSample<mode = "{mode}", padding_mode = "{padding}">(x, at)
        c = Conv(s, kernel)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)
        y = MatMul(f, head) }}"""
    weights = {"places": PLACES, "kernel": KERNEL, "head": HEAD}
    return add_weights(
        parse(text, opset), **{k: np.asarray(v, np.float32) for k, v in weights.items()}
    )


def rows(count, shape=(2, 5, 6)):
    drawn = np.random.default_rng(count).normal(size=(count, *shape)).astype(np.float32)
    drawn[0] = 0.0
    return drawn


@pytest.mark.parametrize(
    ("mode", "padding", "opset"),
    [("linear", "zeros", 20), ("bicubic", "border", 16), ("nearest", "reflection", 20)],
)
def test_completeness_where_places_are_made_of_the_picture(tmp_path, mode, padding, opset):
    model = deformed(mode, padding, opset)
    exported = pg.compile(model, pg.DeepLIFT(BASELINE, target=1), tmp_path / "m.onnx")
    assert "numpy on the forward graph" in exported.report["deep_lift/x"].witness
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (1, 5):
        x = rows(count)
        own, there = (run(model, {"x": v})["y"][:, 1] for v in (x, np.full_like(x, BASELINE)))
        found = artefact.run(x)["deep_lift/x"].array.reshape(count, -1)
        np.testing.assert_allclose(found.sum(1), own - there, rtol=1e-3, atol=1e-4)


def test_pictures_and_places_in_space_by_owens_value(tmp_path):
    """Two inputs, three coordinates: every order of the two, and of the coordinates in it."""
    text = """net (float[n, 1, 3, 4, 5] x, float[n, 2, 1, 2, 3] at) => (float[n, 4] y) {
        s = GridSample<padding_mode = "border">(x, at)  y = Flatten(s) }"""
    model = parse(text, 20)
    pg.compile(model, pg.DeepLIFT(BASELINE, target=2), tmp_path / "m.onnx")
    x = rows(3, (1, 3, 4, 5))
    at = np.random.default_rng(2).uniform(-0.9, 0.9, (3, 2, 1, 2, 3)).astype(np.float32)
    found = runtime.load(tmp_path / "m.onnx").run({"x": x, "at": at})

    def score(x, at):
        return run(model, {"x": x, "at": at})["y"][:, 2]

    x0, at0 = np.full_like(x, BASELINE), np.full_like(at, BASELINE)
    of_places, of_picture = np.zeros((3, 2, 1, 2, 3)), 0
    for picture, order in itertools.product((x, x0), itertools.permutations(range(3))):
        now = at0.copy()
        for axis in order:
            before = score(picture, now)
            now[..., axis] = at[..., axis]  # the score reads one place alone
            of_places[:, 1, 0, 0, axis] += (score(picture, now) - before) / 12
    for places in (at, at0):
        of_picture = of_picture + (score(x, places) - score(x0, places)) / 2
    got = found["deep_lift/at"].array
    np.testing.assert_allclose(got, of_places, rtol=1e-3, atol=1e-4)
    total = found["deep_lift/x"].array.reshape(3, -1).sum(1)
    np.testing.assert_allclose(total, of_picture, rtol=1e-3, atol=1e-4)


def test_relevance_goes_to_the_pixels_that_are_sampled_and_places_have_none(tmp_path):
    """Without biases it is conserved; each pixel has its share in the sum that a sample is."""
    text = """net (float[n, 1, 1, 4] x) => (float[n, 2] y) {
        a = MatMul(x, places)  b = Tanh(a)  at = Reshape(b, form)
        s = GridSample<align_corners = 1>(x, at)  f = Flatten(s)  y = MatMul(f, head) }"""
    weights = np.random.default_rng(8).normal(size=(4, 4)).astype(np.float32)
    weights[:, 1::2] = 0.0  # all samples lie in the one row of pixels
    head = np.array([[1.0, 0.5], [-2.0, 0.7]], np.float32)
    model = add_weights(parse(text, 20), places=weights, head=head, form=np.array([0, 1, 2, 2]))
    pg.compile(model, pg.LRP(target=1, epsilon=1e-6), tmp_path / "m.onnx")
    x = rows(4, (1, 1, 4))
    found = runtime.load(tmp_path / "m.onnx").run(x)["lrp/x"].array
    expected = np.zeros_like(found, np.float64)
    for n, row in enumerate(x.reshape(4, 4).astype(np.float64)):
        places = (np.tanh(row @ weights).reshape(2, 2)[:, 0] + 1) / 2 * 3
        for place, weight in zip(places, head[:, 1], strict=True):
            left = min(int(place), 2)
            for pixel, share in ((left, left + 1 - place), (left + 1, place - left)):
                expected[n, 0, 0, pixel] += weight * share * row[pixel]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("largest", [0, 1])
def test_the_one_largest_of_top_k_is_a_maximum(tmp_path, largest):
    text = f"""net (float[n, 5] x) => (float[n, 2] y) {{
        m = MatMul(x, matrix)  v, i = TopK<axis = 1, largest = {largest}>(m, one)
        y = MatMul(v, head) }}"""
    matrix = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)
    head = np.array([[1.5, -0.5]], np.float32)
    model = add_weights(parse(text), matrix=matrix, head=head, one=np.array([1]))
    pg.compile(model, pg.DeepLIFT(BASELINE, target=0), tmp_path / "m.onnx")
    x = rows(6, (5,))
    found = runtime.load(tmp_path / "m.onnx").run(x)["deep_lift/x"].array
    for row, got in zip(x.astype(np.float64), found, strict=True):
        here, there = row @ matrix, np.full(5, BASELINE) @ matrix
        sign = 1 if largest else -1
        i, j = np.argmax(sign * here), np.argmax(sign * there)
        change = here[i] - there[j]
        k = i if sign * change > 0 else j
        expected = 1.5 * change / (here[k] - there[k]) * matrix[:, k] * (row - BASELINE)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_several_of_top_k_are_refused_with_what_works(tmp_path):
    text = "net (float[n, 5] x) => (float[n, 2] y) { y, i = TopK<axis = 1>(x, two) }"
    model = add_weights(parse(text), two=np.array([2]))
    with pytest.raises(UnsupportedOpsError, match=r"TopK: it sorts .* integrated gradients"):
        pg.compile(model, pg.DeepLIFT(target=0), tmp_path / "m.onnx")


def test_a_spatial_transformer_of_open_batch(tmp_path):
    """Sizes of the places are read of the picture; against differences of the plain file."""
    text = """net (float[n, 2, 5, 6] x) => (float[n, 2] y) {
        p = GlobalAveragePool(x)  f = Flatten(p)  t = MatMul(f, turns)  u = Add(t, still)
        theta = Reshape(u, form)  size = Shape(x)  at = AffineGrid(theta, size)
        s = GridSample(x, at)  c = Conv(s, kernel)  r = Relu(c)  q = GlobalAveragePool(r)
        v = Flatten(q)  y = MatMul(v, head) }"""
    draw = np.random.default_rng(9)
    weights = {"turns": 0.2 * draw.normal(size=(2, 6)), "kernel": KERNEL, "head": HEAD}
    weights["still"] = np.array([0.9, 0.05, 0.02, -0.04, 0.8, 0.03])
    given = {name: np.asarray(v, np.float32) for name, v in weights.items()}
    model = add_weights(parse(text, 20), form=np.array([0, 2, 3]), **given)
    probes = [pg.InputGradient(target=1), pg.DeepLIFT(BASELINE, target=1), pg.LRP(target=1)]
    pg.compile(model, [*probes, pg.GuidedBackprop(target=1)], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (1, 4):
        x = rows(count)[-1:] if count == 1 else rows(count)[1:]
        found = artefact.run(x)
        own, there = (run(model, {"x": v})["y"][:, 1] for v in (x, np.full_like(x, BASELINE)))
        lifted = found["deep_lift/x"].array.reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(lifted, own - there, rtol=1e-3, atol=1e-4)
        way = draw.normal(size=x.shape).astype(np.float32)
        ends = (run(model, {"x": x + sign * 1e-2 * way})["y"][:, 1] for sign in (1, -1))
        slope = np.subtract(*ends) / 2e-2
        told = (found["input_gradient/x"].array * way).reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(told, slope, rtol=0.1, atol=0.02)
