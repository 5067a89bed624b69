"""Deletion and insertion against a plain loop over samples and positions."""

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime import metrics
from probegen.runtime.resize import resize
from tests import models
from tests.runtime.metrics.conftest import images


def area(scores, shares):
    return sum((a + b) / 2 * (v - u) for a, b, u, v in
               zip(scores, scores[1:], shares, shares[1:], strict=False))  # fmt: skip


def twin(score, x, heat, ground, per_step, insert):
    """One sample `[channel, height, width]`: replaces positions one after the other."""
    order = sorted(np.ndindex(heat.shape), key=lambda at: -heat[at])
    now, goal = (ground.copy(), x) if insert else (x.copy(), ground)
    scores, shares = [score(now)], [0.0]
    for start in range(0, len(order), per_step):
        for i, j in order[start : start + per_step]:
            now[:, i, j] = goal[:, i, j]
        scores.append(score(now))
        shares.append(min(start + per_step, len(order)) / len(order))
    return area(scores, shares)


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_plain_loop_gives_the_same(chosen, plain, batch, insert):
    x, classes = images(batch), np.array([3, 0, 2])[:batch]
    heat = chosen.run(x, target=classes)["input_gradient/image"].array.sum(1)
    ground = np.full_like(x[0], 0.25)
    expected = [
        twin(lambda v, c=c: plain(v[None])[0, c], x[i], heat[i], ground, 4, insert)
        for i, c in enumerate(classes)
    ]
    metric = metrics.insertion if insert else metrics.deletion
    name = "input_gradient/image"
    found = metric(chosen, x, name, baseline=0.25, step=4 / 35, target=classes)
    assert found.shape == (batch,)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_coarse_map_is_brought_to_the_input(keras_images):
    model, artefact = keras_images
    x = models.images((11, 8, 2))
    cam = artefact.run(x)["grad_cam/conv2"].array
    assert cam.shape[1:] != (11, 8)
    heat = np.stack([resize(row.astype(float), (11, 8)) for row in cam])
    curve = metrics.removal_curve(artefact, x, "grad_cam/conv2", baseline=0.0, step=0.25)
    order = np.argsort(-heat.reshape(len(x), -1), 1, kind="stable")
    for k, share in enumerate(curve.shares):
        changed = x.copy().reshape(len(x), 88, 2)
        np.put_along_axis(changed, order[:, : round(share * 88), None], 0.0, 1)
        expected = model.predict_on_batch(changed.reshape(x.shape))[:, 2]
        np.testing.assert_allclose(curve.scores[:, k], expected, rtol=1e-4)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_every_position_goes_once_and_steps_need_not_divide(chosen, plain):
    x = images(2)
    shares = metrics.removal_curve(chosen, x, "saliency/image", baseline=0.0, step=0.3).shares
    np.testing.assert_allclose(shares, [0, 10 / 35, 20 / 35, 30 / 35, 1])
    tiny = metrics.removal_curve(chosen, x, "saliency/image", baseline=0.0, step=1e-6)
    assert len(tiny.shares) == 36
    classes = plain(x).argmax(1)
    np.testing.assert_allclose(tiny.scores[:, 0], plain(x).max(1), rtol=1e-5)
    last = plain(np.zeros_like(x))[[0, 1], classes]
    np.testing.assert_allclose(tiny.scores[:, -1], last, rtol=1e-5)


def test_classes_stay_those_of_the_samples(highest, plain):
    """The best class of the baseline is another one, and is not what is followed."""
    x = images(8, seed=3)
    classes = plain(x).argmax(1)
    other = plain(np.zeros_like(x)).argmax(1)
    assert (classes != other).any()
    curve = metrics.removal_curve(highest, x, "saliency/image", baseline=0.0, step=0.5)
    expected = plain(np.zeros_like(x))[np.arange(8), classes]
    np.testing.assert_allclose(curve.scores[:, -1], expected, rtol=1e-5)


def test_the_blur_is_that_of_the_paper(chosen, plain):
    """A Gaussian of deviation 5 over 11 by 11 pixels, edges going on."""
    x = images(1)
    offsets = np.arange(-5, 6)
    weights = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / 25)
    weights /= weights.sum()
    padded = np.pad(x[0].astype(float), ((0, 0), (5, 5), (5, 5)), mode="edge")
    blurred = np.array([[[(padded[c, i : i + 11, j : j + 11] * weights).sum() for j in range(7)]
                         for i in range(5)] for c in range(2)])  # fmt: skip
    curve = metrics.removal_curve(chosen, x, "saliency/image", insert=True, target=1)
    np.testing.assert_allclose(curve.scores[0, 0], plain(blurred[None])[0, 1], rtol=1e-5)
    np.testing.assert_allclose(curve.scores[0, -1], plain(x)[0, 1], rtol=1e-5)


def test_the_best_order_is_better_than_the_worst(table):
    """Of a linear model, contributions in falling order delete fastest."""
    weights, artefact = table
    x = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    best = metrics.deletion(artefact, x, "integrated_gradients/row", step=1 / 6)
    parts = x * weights[:, 1]
    ordered = -np.sort(-parts, 1)
    left = parts.sum(1)[:, None] - np.concatenate([np.zeros((5, 1)), ordered.cumsum(1)], 1)
    np.testing.assert_allclose(best, ((left[:, 1:] + left[:, :-1]) / 2).mean(1), rtol=1e-4)
    slopes = metrics.deletion(artefact, x, "input_gradient/row", step=1 / 6)
    assert (best <= slopes + 1e-6).all()
    assert (best < slopes - 1e-3).any()


def test_tokens_are_replaced_by_an_id(words):
    model, artefact = words
    ids = models.tokens()
    name = artefact.manifest.explanations[0].name
    heat = np.linalg.norm(artefact.run(ids)[name].array.astype(float), axis=-1)
    curve = metrics.removal_curve(artefact, ids, name, baseline=5, step=0.34)
    changed = ids.copy()
    np.put_along_axis(changed, np.argsort(-heat, 1, kind="stable")[:, :3], 5, 1)
    expected = model.predict_on_batch(changed)[:, 1]
    np.testing.assert_allclose(curve.scores[:, 1], expected, rtol=1e-4)
    for baseline, says in (("blur", "no neighbours to blur with"), (0.5, "must be whole"),
                           (99, "out of the vocabulary")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            metrics.deletion(artefact, ids, name, baseline=baseline)


def test_what_does_not_fit_is_refused(chosen, highest, table):
    x = images(2)
    with pytest.raises(InputError, match=r"'saliency/imag' is no output.*'saliency/image'"):
        metrics.deletion(chosen, x, "saliency/imag")
    with pytest.raises(InputError, match=r"'scores' is no attribution"):
        metrics.deletion(chosen, x, "scores")
    with pytest.raises(InputError, match=r"step is 0; it must be a number above 0 and at most 1"):
        metrics.deletion(chosen, x, "saliency/image", step=0)
    for baseline in ("fog", np.zeros((3, 3)), np.nan, ["a"], [[1], [1, 2]]):
        with pytest.raises(InputError, match="baseline"):
            metrics.insertion(chosen, x, "saliency/image", baseline=baseline)
    with pytest.raises(InputError, match="it was fixed when the artefact was compiled"):
        metrics.deletion(highest, x, "saliency/image", target=1)
    with pytest.raises(InputError, match="is not finite"):
        metrics.deletion(chosen, np.full_like(x, np.nan), "saliency/image")
    with pytest.raises(InputError, match="no neighbours to blur with"):
        metrics.insertion(table[1], np.ones((1, 6)), "input_gradient/row", baseline="blur")


def test_a_score_that_is_no_number_has_no_area(tmp_path):
    """Shares of a sum that is 0 where all is replaced: the area was NaN without a word."""
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    shares (float[batch, 4] row) => (float[batch, 4] y)
    { total = ReduceL1 <keepdims = 1, noop_with_empty_axes = 0> (row, axis) y = Div (row, total) }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    pg.compile(proto, pg.InputGradient(target=1), tmp_path / "m.onnx", verify=False)
    artefact, x = runtime.load(tmp_path / "m.onnx"), np.ones((2, 4), np.float32)
    for metric in (metrics.deletion, metrics.insertion):
        said = "score of sample 0 is nan where 4 of 4 positions of 'row'.*baseline="
        with pytest.raises(InputError, match=said):
            metric(artefact, x, "input_gradient/row", baseline=0.0, step=0.25)
    assert np.isfinite(metrics.deletion(artefact, x, "input_gradient/row", baseline=0.5)).all()
