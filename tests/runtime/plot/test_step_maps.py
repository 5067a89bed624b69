"""Attributions of each step of the output: the right numbers, at the right place, once."""

import numpy as np
import pytest

from probegen.artefact.manifest import Padding, TargetSpec
from tests.runtime.figures import images_of, says, texts_of
from tests.runtime.support import result_of
from tests.runtime.test_report import Page

RNG = np.random.default_rng(17)
TARGET = TargetSpec("index", (None, 2), "y", classes=3, step=1)
SERIES = ("batch", "time", "feature")
TOKENS = ("batch", "time")


def record_of(array, axes, source, sign="signed", unit="score", kind="it"):
    """A result with the record `it`, of a prediction of as many steps."""
    y = np.zeros((1, array.shape[1], 3))
    more = {"input": "x", "target": TARGET, "sign": sign, "draw": "map", "unit": unit}
    return result_of(
        {"x": source},
        {
            "y": (y, "prediction", ("batch", "step", "class"), {}),
            "it": (array, kind, ("batch", *axes), more),
        },
    )


def test_a_map_for_each_of_a_few_features_on_one_scale():
    array = RNG.normal(size=(1, 4, 6, 2)) * [1.0, 5.0]
    x = RNG.normal(size=(1, 6, 2))
    figure = record_of(array, ("step", "time", "feature"), (x, SERIES, {}))["it"].plot(
        feature_names=["wind", "load"],
        time={"x": list("abcdef"), "y": ["one", "two", "six", "ten"]},
    )
    maps = [i for i in images_of(figure) if i.shape == (4, 6)]
    np.testing.assert_allclose(maps, np.moveaxis(array[0], 2, 0), atol=1e-6)
    ends = {
        im.get_clim()
        for im in figure.findobj()
        if hasattr(im, "get_clim") and im.get_array() is not None and im.get_array().shape == (4, 6)
    }
    assert len(ends) == 1
    assert {"wind", "load", *"abcdef", "one", "ten"} <= set(texts_of(figure))


def test_times_of_the_output_of_each_sample():
    x = (RNG.normal(size=(1, 6, 2)), SERIES, {})
    result = record_of(RNG.normal(size=(1, 4, 6, 2)), ("step", "time", "feature"), x)
    figure = result["it"].plot(time={"y": [["one", "two", "six", "ten"]]})
    assert {"one", "two", "six", "ten"} <= set(texts_of(figure))


@pytest.mark.parametrize(
    ("unit", "note", "joined"),
    [
        ("score", "sum over 7", lambda a: a.sum(-1)),
        ("score per unit of input", "Euclidean norm over 7", lambda a: np.linalg.norm(a, axis=-1)),
    ],
)
@pytest.mark.parametrize("last", ["feature", "embedding"])
def test_many_features_are_joined(unit, note, joined, last):
    array = RNG.normal(size=(1, 3, 5, 7))
    x = (RNG.normal(size=(1, 5, 7)), SERIES, {})
    figure = record_of(array, ("step", "time", last), x, unit=unit)["it"].plot()
    drawn = [i for i in images_of(figure) if i.shape == (3, 5)]
    np.testing.assert_allclose(drawn, [joined(array[0])], atol=1e-5)
    assert says(figure, note)


def test_tokens_words_and_padding():
    ids = np.array([[5, 6, 7, 0]], np.int32)
    told = {"vocabulary": 9, "padding": Padding("x", (0.0,))}
    array = RNG.normal(size=(1, 4, 4))
    record = record_of(array, ("step", "time"), (ids, TOKENS, told))["it"]
    words = ["un", "##do", "it", "[PAD]"]
    figure = record.plot(tokens=words)
    drawn = np.ma.masked_invalid(images_of(figure)[0])
    np.testing.assert_allclose(drawn[:, :3], array[0, :, :3], atol=1e-6)
    assert drawn.mask[:, 3].all()
    assert texts_of(figure).count("##do") == 2  # the output has a step for each token
    assert says(figure, "1 of 4 positions are padding, grey")
    figure = record.plot(tokens={"x": words, "y": list("WXYZ")}, whole_words=True)
    drawn = images_of(figure)[0]
    np.testing.assert_allclose(drawn[:, 0], array[0, :, :2].sum(1), atol=1e-6)
    assert {"undo", *"WXYZ"} <= set(texts_of(figure))


def test_features_of_a_row_and_one_figure_in_a_report(tmp_path):
    array = RNG.normal(size=(1, 6, 2))
    result = record_of(array, ("step", "feature"), (np.ones((1, 2)), ("batch", "feature"), {}))
    figure = result["it"].plot(feature_names=["wind", "load"])
    np.testing.assert_allclose(images_of(figure)[0], array[0], atol=1e-6)
    assert {"wind", "load"} <= set(texts_of(figure))
    page = Page(result.to_html(tmp_path / "r.html"))
    assert len(page.all("figure")) == 2
    np.testing.assert_allclose(result["it"].of_step(3).array, array[:, 3], atol=1e-6)
