"""DeepSHAP: the mean of DeepLIFT over a background; DeepLIFT from stored baselines."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from tests import models
from tests.methods.test_deep_lift import dense
from tests.methods.test_guided_backprop import SPELLED, network

BACKGROUND = np.random.default_rng(11).normal(size=(4, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["relu", "gelu_in_pieces"])
def test_it_is_the_mean_over_the_background(tmp_path, name):
    middle, function = SPELLED[name]
    path = tmp_path / "m.onnx"
    probes = [
        pg.DeepSHAP(BACKGROUND, target=2),
        pg.DeepLIFT(BACKGROUND[1], target=2, name="one"),
        pg.DeepLIFT(BACKGROUND[:2], target=2, name="two"),
    ]
    report = pg.compile(network(middle), probes, path).report
    assert "numpy" in report["deep_shap/row"].witness
    art = runtime.load(path)
    for count in (1, 3):
        rows = models.images((5,), seed=count, count=count)
        each = [dense(rows, function, np.broadcast_to(row, rows.shape), 2) for row in BACKGROUND]
        found = art.run(rows)
        for output, expected in (
            ("deep_shap/row", np.mean(each, axis=0)),
            ("one", each[1]),
            ("two", (each[0] + each[1]) / 2),
        ):
            np.testing.assert_allclose(found[output].array, expected, rtol=5e-4, atol=5e-5)


def test_the_sum_is_the_score_less_the_mean_score_of_the_background(tmp_path):
    model, path = models.nested(), tmp_path / "m.onnx"
    background = models.images((10, 7, 3), seed=9, count=3)
    pg.compile(model, pg.DeepSHAP(background, target=1), path)
    images = models.images((10, 7, 3), count=2)
    found = runtime.load(path).run(images)["deep_shap/image"].array
    own, there = (model.predict_on_batch(x)[:, 1] for x in (images, background))
    total = found.reshape(2, -1).astype(float).sum(1)
    np.testing.assert_allclose(total, own - there.mean(), rtol=1e-4, atol=1e-5)


def test_the_graph_does_not_grow_with_the_background(tmp_path):
    sizes = []
    for rows in (20, 60):
        path = tmp_path / f"{rows}.onnx"
        background = np.zeros((rows, 5), np.float32)
        pg.compile(network("y = Relu(x)"), pg.DeepSHAP(background), path, verify=False)
        sizes.append(path.stat().st_size - 4 * background.size)
    assert abs(sizes[1] - sizes[0]) < 600


@pytest.mark.parametrize(
    ("background", "message"),
    [(BACKGROUND[:, :4], "deep_shap|background"), (BACKGROUND[0], "background")],
)
def test_a_background_of_another_shape_is_refused(tmp_path, background, message):
    with pytest.raises(InstrumentError, match=message):
        pg.compile(network("y = Relu(x)"), pg.DeepSHAP(background), tmp_path / "m.onnx")


def test_a_number_is_no_background():
    with pytest.raises(SpecError, match="background= takes an array of samples"):
        pg.DeepSHAP(0.0)
