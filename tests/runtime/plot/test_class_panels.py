"""Attributions of several classes: a panel each, named and on one scale."""

import numpy as np
import pytest
from matplotlib.image import AxesImage

from probegen.runtime.plot import record_view
from probegen.runtime.plot.choose import PLOTS
from tests.runtime.figures import axes_of, image_result, says, texts_of
from tests.runtime.support import IMAGE, result_of
from tests.runtime.test_legible import assert_legible

RNG = np.random.default_rng(23)


def several(axes, array, x, x_axes, names=("ant", "bee", "cat"), **more):
    return result_of(
        {"x": (x, x_axes, more.pop("of", {}))},
        {"it": (array, "integrated_gradients", ("batch", "class", *axes), {"input": "x", **more})},
        class_names=names,
    )["it"]


def which(record):
    view = record_view(record, 0, {})
    return next(plot.what for plot in PLOTS if plot.fits(view))


@pytest.mark.parametrize("shape", [(6, 9), (3, 5), (6, 9, 3)])
def test_a_panel_a_class_over_the_image(shape, monkeypatch):
    axes = IMAGE[: 1 + len(shape)]
    record = image_result(
        RNG.normal(size=(2, 3, *shape)), "integrated_gradients", ("batch", "class", *axes[1:])
    )["it"]
    assert which(record) == "attribution of classes to an image"
    figure = record.plot(1)
    tiles = [i for i in figure.findobj(AxesImage) if i.get_array().shape == (6, 9, 3)]
    assert len(tiles) == 4
    assert {"input", "ant", "bee", "cat"} <= set(texts_of(figure))
    assert_legible(figure, monkeypatch)


def test_the_scale_is_one():
    array = np.zeros((1, 2, 6, 9), np.float32)
    array[0, 0, 0, 0], array[0, 1, 5, 5] = 4.0, 1.0
    record = several(("height", "width"), array, np.zeros((1, 6, 9, 3)), IMAGE)
    strong, weak = (i.get_array() for i in record.plot().findobj(AxesImage)[1:])
    assert np.ptp(strong[0, 0]) > 2 * np.ptp(weak[5, 5])


def test_a_panel_a_class_of_a_table_a_series_and_a_text(monkeypatch):
    table = several(("feature",), RNG.normal(size=(1, 3, 5)), np.ones((1, 5)), ("batch", "feature"))
    series = several(
        ("time", "feature"), RNG.normal(size=(1, 3, 7, 2)), RNG.normal(size=(1, 7, 2)),
        ("batch", "time", "feature"),
    )  # fmt: skip
    text = several(
        ("time",), RNG.normal(size=(1, 3, 4)), np.array([[3, 1, 4, 1]], np.int32),
        ("batch", "time"), of={"vocabulary": 9},
    )  # fmt: skip
    for record in (table, series, text):
        assert which(record) == "attribution of several classes"
        figure = record.plot()
        assert {"ant", "bee", "cat"} <= set(texts_of(figure))
        assert_legible(figure, monkeypatch)
    bars = [ax for ax in axes_of(table.plot()) if ax.containers]
    assert len(bars) == 3
    for ax, row in zip(bars, table.array[0], strict=True):
        widths = [bar.get_width() for bar in ax.containers[0]]
        np.testing.assert_allclose(widths, row[np.argsort(-np.abs(row))], rtol=1e-6)


def test_classes_without_names_and_too_many():
    array = RNG.normal(size=(1, 30, 4))
    record = several(("feature",), array, np.ones((1, 4)), ("batch", "feature"), names=None)
    figure = record.plot(max_panels=5)
    assert says(figure, "class 0")
    assert says(figure, "showing 5 of 30 classes")
    numbers = several((), RNG.normal(size=(1, 3)), np.ones((1, 4)), ("batch", "feature"))
    assert {"ant", "bee", "cat"} <= set(texts_of(numbers.plot()))
