"""Plots go by what the manifest says of an output, also of methods that nobody here knows."""

import json

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.image import AxesImage
from matplotlib.patches import FancyBboxPatch

from probegen import runtime
from probegen.artefact.manifest import Manifest
from probegen.runtime.plot import choose, record_view
from probegen.runtime.plot.charts import draw_text
from probegen.runtime.plot.choose import PLOTS, Plot
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import (
    DIVERGING,
    HEAT,
    NEGATIVE,
    POSITIVE,
    UNSIGNED,
    WARM,
    colour_map,
)
from probegen.runtime.result import Result
from probegen.runtime.run import Run
from tests.runtime.figures import axes_of, texts_of, titled
from tests.runtime.support import IMAGE, result_of
from tests.runtime.test_legible import assert_legible

RNG = np.random.default_rng(17)
SERIES = ("batch", "time", "feature")
NEWER = {
    "title": "Newer method",
    "unit": "share of the score",
    "paper": "Somebody et al. 2031",
    "draw": "map",
}


def newer(array, axes, x, x_axes, sign="signed", **more):
    """A result with the record `newer_method/x`, of a kind that nothing here knows."""
    return result_of(
        {"x": (x, x_axes, more.pop("of", {}))},
        {"newer_method/x": (array, "newer_method", axes, {**NEWER, "sign": sign, **more})},
    )["newer_method/x"]


def which(record):
    view = record_view(record, 0, {})
    return next(plot.what for plot in PLOTS if plot.fits(view))


def colours_of(figure):
    return {i.get_cmap().name for i in figure.findobj(AxesImage) if i.get_array().ndim == 2}


def image_map(sign, **more):
    x = RNG.random((2, 6, 9, 3))
    return newer(np.abs(RNG.normal(size=(2, 6, 9))) + 0.1, IMAGE[:3], x, IMAGE, sign, **more)


@pytest.mark.parametrize(
    ("sign", "colours"), [("signed", DIVERGING), ("never negative", HEAT), ("any", HEAT)]
)
def test_a_map_over_an_image(sign, colours):
    """The sample has no number below zero; whether it could have is what the manifest says."""
    record = image_map(sign, layer="conv")
    assert which(record) == "attribution to an image"
    figure = record.plot()
    assert colours_of(figure) == {colour_map(colours).name}
    drawn = titled(figure, "Newer method").images[0]
    np.testing.assert_allclose(drawn.get_array(), record.array[0], rtol=1e-6)
    low, high = drawn.get_clim()
    assert low == (-high if sign == "signed" else 0)
    texts = texts_of(figure)
    assert "Newer method: conv" in texts
    assert "unit: share of the score" in texts


def test_numbers_below_zero_are_shown_where_the_sign_is_any():
    array = RNG.normal(size=(1, 6, 9))
    record = newer(array, IMAGE[:3], RNG.random((1, 6, 9, 3)), IMAGE, "any")
    assert colours_of(record.plot()) == {colour_map(DIVERGING).name}


@pytest.mark.parametrize("offset", [20.0, -20.0])
def test_numbers_far_from_a_zero_that_says_nothing(offset):
    """As means of scores are: they go from the lowest to the highest, so that all is seen."""
    array = RNG.random((1, 6, 9)) + offset
    record = newer(array, IMAGE[:3], RNG.random((1, 6, 9, 3)), IMAGE, "any")
    figure = record.plot()
    assert colours_of(figure) == {colour_map(HEAT).name}
    low, high = titled(figure, "Newer method").images[0].get_clim()
    assert (low, high) == pytest.approx((array.min(), array.max()), abs=1e-4)
    signed = newer(array, IMAGE[:3], RNG.random((1, 6, 9, 3)), IMAGE, "signed")
    assert colours_of(signed.plot()) == {colour_map(DIVERGING).name}


def test_a_volume_and_a_film():
    for first, what in (("depth", "attribution to a volume"), ("time", "attribution to a film")):
        axes = ("batch", first, *IMAGE[1:])
        x, array = RNG.random((1, 4, 6, 5, 2)), RNG.normal(size=(1, 4, 6, 5, 2))
        record = newer(array, axes, x, axes)
        assert which(record) == what
        bars = [mesh for mesh in record.plot().findobj() if type(mesh).__name__ == "QuadMesh"]
        assert [bar.get_cmap().name for bar in bars] == [colour_map(DIVERGING).name]


def test_a_series():
    x, array = RNG.normal(size=(1, 11, 1)), np.abs(RNG.normal(size=(1, 11, 1)))
    for sign, colour in (("signed", POSITIVE), ("never negative", UNSIGNED)):
        record = newer(array, SERIES, x, SERIES, sign)
        assert which(record) == "attribution to a series"
        line, bars = axes_of(record.plot())
        np.testing.assert_allclose(line.lines[0].get_ydata(), x[0, :, 0])
        np.testing.assert_allclose([p.get_height() for p in bars.patches], array[0, :, 0], 1e-6)
        assert {hex_of(p) for p in bars.patches} == {colour}
        assert bars.get_ylabel() == "newer method"


def hex_of(patch):
    return "#" + "".join(f"{round(255 * c):02x}" for c in patch.get_facecolor()[:3])


def norm(values):
    return np.linalg.norm(values, axis=-1)


@pytest.mark.parametrize(
    ("sign", "unit", "note", "join", "colours"),
    [
        ("signed", "score", "sum over 7 dim", lambda v: v.sum(-1), DIVERGING),
        (
            "signed",
            "score per unit of input",
            "Euclidean",
            lambda v: np.linalg.norm(v, axis=-1),
            WARM,
        ),
        ("never negative", "", "Euclidean", norm, WARM),
    ],
)
def test_tokens(sign, unit, note, join, colours):
    array = RNG.normal(size=(1, 5, 7))
    record = newer(
        array, ("batch", "time", "embedding"), np.array([[3, 1, 4, 1, 5]], np.int32),
        ("batch", "time"), sign, of={"vocabulary": 9}, unit=unit,
    )  # fmt: skip
    assert which(record) == "attribution to tokens"
    figure = record.plot(tokens=list("abcde"))
    boxes = np.array([b.get_facecolor()[:3] for b in figure.findobj(FancyBboxPatch)])
    values = join(array[0])
    limit = np.abs(values).max()
    low = -limit if colours == DIVERGING else 0.0
    expected = colour_map(colours)((values - low) / (limit - low))[:, :3]
    np.testing.assert_allclose(boxes, expected, atol=5e-3)
    assert note in " ".join(texts_of(figure))


def test_features():
    array = np.array([[0.5, 0.25, 2.0, 1.0]])
    for sign, colour in (("signed", POSITIVE), ("never negative", UNSIGNED)):
        record = newer(array, ("batch", "feature"), np.ones((1, 4)), ("batch", "feature"), sign)
        assert which(record) == "attribution to features"
        (ax,) = axes_of(record.plot())
        (bars,) = [c for c in ax.containers if isinstance(c, BarContainer)]
        np.testing.assert_allclose([b.get_width() for b in bars], [2.0, 1.0, 0.5, 0.25])
        assert {hex_of(b) for b in bars} == {colour}
    record = newer(-array, ("batch", "feature"), np.ones((1, 4)), ("batch", "feature"))
    (ax,) = axes_of(record.plot())
    assert {hex_of(b) for b in ax.containers[0]} == {NEGATIVE}


@pytest.mark.parametrize(
    ("draw", "axes", "what"),
    [
        ("attention", ("head", "query", "key"), "attention of heads"),
        ("attention", ("key",), "attention of one query"),
        ("activation", ("height", "width", "channel"), "maps"),
        ("activation", ("time", "height", "width"), "maps over time"),
        ("activation", ("depth", "height", "width", "channel"), "volumes"),
        ("activation", ("time", "channel"), "channels over time"),
        ("activation", ("time",), "a number a step"),
        ("activation", ("unit",), "a vector"),
        ("activation", ("a", "b", "c"), "anything else"),
        ("map", ("height", "width", "odd"), "anything else"),
        ("map", ("unit", "unit"), "two axes of one name"),
    ],
)
def test_other_drawings_of_a_kind_that_is_not_known(draw, axes, what):
    sizes = (3, 4, 5, 2)[: len(axes)]
    record = newer(
        RNG.random((1, *sizes)), ("batch", *axes), np.ones((1, 3)), ("batch", "unit"), draw=draw
    )
    assert which(record) == what
    assert any(t.startswith("Newer method: ") for t in texts_of(record.plot()))


def test_all_zero_says_what_it_means():
    zeros = np.zeros((1, 6, 9))
    x = RNG.random((1, 6, 9, 3))
    cam = newer(zeros, IMAGE[:3], x, IMAGE, "never negative", layer="conv", unit="weighted sum")
    said = " ".join(" ".join(texts_of(cam.plot())).split())
    assert "nothing at this layer speaks for the target (Newer method leaves out" in said
    slope = newer(zeros, IMAGE[:3], x, IMAGE, "never negative", unit="score per unit of input")
    assert "the target does not react" in " ".join(texts_of(slope.plot()))


def test_long_words_of_a_kind_that_is_not_known(monkeypatch):
    words = {"title": "A newer method with a name of many words", "unit": "parts of a share " * 4}
    x = RNG.normal(size=(1, 30, 2))
    for record in (
        image_map("signed", layer="conv", **words),
        newer(RNG.normal(size=x.shape), SERIES, x, SERIES, **words),
        newer(RNG.normal(size=(1, 6)), SERIES[::2], np.ones((1, 6)), SERIES[::2], **words),
    ):
        assert_legible(record.plot(), monkeypatch)


def test_it_is_saved_reported_and_read_again(tmp_path):
    result = result_of(
        {"x": (RNG.random((2, 6, 9, 3)), IMAGE, {})},
        {
            "y": (RNG.random((2, 3)), "prediction", ("batch", "class"), {}),
            "newer_method/x": (
                RNG.random((2, 6, 9)),
                "newer_method",
                IMAGE[:3],
                {**NEWER, "sign": "any"},
            ),
        },
    )
    page = result.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<td data-label="Kind">Newer method</td>' in page
    back = runtime.read_npz(result.to_npz(tmp_path / "r.npz"))
    assert back["newer_method/x"].spec == result["newer_method/x"].spec


def test_results_of_schema_1_are_drawn_as_before():
    """Their manifests say the kind alone; what it means is filled in."""
    result = image_map("any").run.manifest
    told = json.loads(result.to_json())
    told["outputs"][0] |= {"kind": "saliency", "name": "saliency/x"}
    for name in ("title", "unit", "sign", "paper", "draw"):
        del told["outputs"][0][name]
    earlier = Manifest.from_json(json.dumps({**told, "schema": 1}))
    x, array = RNG.random((1, 6, 9, 3)), np.abs(RNG.normal(size=(1, 6, 9)))
    drawn = Result(Run(earlier, {"x": x}, None, "m.onnx"), {"saliency/x": array})["saliency/x"]
    figure = drawn.plot()
    assert colours_of(figure) == {colour_map(HEAT).name}
    assert "Saliency: saliency/x" in texts_of(figure)
    np.testing.assert_allclose(titled(figure, "Saliency").images[0].get_array(), array[0])


def test_a_new_plot_is_one_line(monkeypatch):
    def fits(view):
        return view.spec.is_attribution and view.axes == ("tea", "leaf")

    def plan(view):
        return Picture(view.title, 4.0, 1.0, draw_text(f"{view.array.sum():.1f} leaves"))

    def record():
        return newer(
            np.ones((1, 2, 3)), ("batch", "tea", "leaf"), np.ones((1, 3)), ("batch", "unit")
        )

    assert "6.0 leaves" not in texts_of(record().plot())
    monkeypatch.setattr(choose, "PLOTS", (Plot("tea leaves", fits, plan), *PLOTS))
    assert "6.0 leaves" in texts_of(record().plot())
