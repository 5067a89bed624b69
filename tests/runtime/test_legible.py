"""Every family of pictures is legible: no text is cut or overlaps, and nothing ever fails."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from probegen.artefact.manifest import KINDS_OF_SCHEMA_1, TargetSpec
from tests.runtime.support import IMAGE, result_of

RNG = np.random.default_rng(11)
WORDS = ["the", "film", "was", ",", "against", "all", "odds", ",", "an", "utterly", "wonderful"]
WORDS += ["piece", "of", "$work$", "!"]
COUNT = len(WORDS)
TIME = ("batch", "time")
NAMES = tuple(f"a rather long class name {i}" for i in range(12))


def drawn_texts(figure, monkeypatch):
    """Draws the figure; returns each piece of text with its place in pixels."""
    drawn = {}

    def draw(text, renderer, *arguments, original=Text.draw):
        original(text, renderer, *arguments)
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(renderer)
            if box.width > 0:
                drawn[id(text)] = (text.get_text(), box)

    monkeypatch.setattr(Text, "draw", draw)
    figure.savefig(io.BytesIO(), format="png")
    return list(drawn.values())


def assert_legible(figure, monkeypatch):
    texts = drawn_texts(figure, monkeypatch)
    width, height = figure.bbox.size
    assert texts
    for text, box in texts:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
        assert inside, f"{text!r} at {box} leaves the figure of {width} x {height}"
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) < 3, f"{one!r} at {a} overlaps {other!r} at {b}"


def image_case(kind, axes, shape, channels=3, values=lambda v: v**3, **spec):
    x = RNG.random((1, 12, 16, channels)).astype(np.float32)
    scores = RNG.dirichlet(np.ones(12), 1)
    of = TargetSpec("index", (3,), "class", True, 12)
    return result_of(
        {"image": (x, IMAGE, {})},
        {
            "class": (scores, "prediction", ("batch", "class"), {}),
            "it": (values(RNG.normal(size=(1, *shape))), kind, axes, {"target": of, **spec}),
        },
        class_names=NAMES,
    )


def text_case(kind, axes, shape):
    ids = RNG.integers(0, 99, (1, COUNT)).astype(np.int32)
    return result_of(
        {"tokens": (ids, TIME, {"vocabulary": 99})},
        {"it": (RNG.random((1, *shape)), kind, axes, {"layer": "blocks/block_1/layer"})},
    )


def series_case(kind, axes, shape, features=1):
    x = RNG.normal(size=(1, 60, features)).cumsum(1)
    return result_of(
        {"a rather long name of an input": (x, (*TIME, "feature"), {})},
        {"it": (RNG.normal(size=(1, *shape)), kind, axes, {})},
    )


HEADS = ("batch", "head", "query", "key")
UNITS = ("batch", "unit")
VOLUME = ("batch", "depth", *IMAGE[1:])
CASES = {
    "top classes": (image_case("prediction", ("batch", "class"), (12,)), {}),
    "saliency": (image_case("saliency", IMAGE[:3], (12, 16)), {}),
    "gradient": (image_case("input_gradient", IMAGE, (12, 16, 3), 6), {}),
    "grad-cam": (image_case("grad_cam", IMAGE[:3], (2, 3), 1, layer="a/very/long/path" * 5), {}),
    "one map": (image_case("activation", IMAGE, (6, 9, 1)), {}),
    "five maps": (image_case("activation", IMAGE, (6, 9, 5), layer="conv"), {}),
    "relu maps": (image_case("activation", IMAGE, (6, 9, 5), values=np.abs, layer="conv"), {}),
    "many maps": (image_case("activation", IMAGE, (6, 6, 200), layer="conv"), {}),
    "256 maps": (image_case("activation", IMAGE, (3, 3, 256)), {"max_panels": 256}),
    "flat maps": (image_case("activation", IMAGE, (1, 40, 8), layer="conv"), {}),
    "tall maps": (image_case("activation", IMAGE, (40, 1, 8), layer="conv"), {}),
    "units": (image_case("activation", UNITS, (32,)), {}),
    "many units": (image_case("activation", UNITS, (2048,)), {}),
    "volume": (image_case("activation", VOLUME, (5, 6, 7, 3)), {}),
    "film": (image_case("saliency", ("batch", "time", *IMAGE[1:]), (9, 6, 7, 1)), {}),
    "label map": (image_case("prediction", (*IMAGE[:3], "class"), (9, 9, 12)), {}),
    "heads": (text_case("attention", HEADS, (5, COUNT, COUNT)), {"tokens": WORDS}),
    "twelve heads": (text_case("attention", HEADS, (12, COUNT, COUNT)), {"tokens": WORDS}),
    "one head": (text_case("attention", ("batch", *HEADS[2:]), (COUNT,) * 2), {"tokens": WORDS}),
    "spelt out": (text_case("attention", HEADS, (2, 4, 4)), {"tokens": ["\U00012000" * 3] * 4}),
    "positions": (text_case("attention", HEADS, (2, 128, 128)), {}),
    "cross": (text_case("attention", HEADS, (3, 4, 60)), {}),
    "text": (text_case("saliency", TIME, (COUNT,)), {"tokens": WORDS}),
    "embedding": (text_case("input_gradient", (*TIME, "embedding"), (COUNT, 8)), {}),
    "letters": (text_case("saliency", TIME, (COUNT,)), {"tokens": [w[0] for w in WORDS]}),
    "channels over tokens": (
        text_case("activation", (*TIME, "channel"), (COUNT, 40)), {"tokens": WORDS},
    ),
    "series": (series_case("input_gradient", (*TIME, "feature"), (60, 1)), {}),
    "years": (series_case("saliency", TIME, (60,)), {"time": range(1900, 1960)}),
    "months": (
        series_case("saliency", TIME, (60,)),
        {"time": np.arange("2015-01", "2020-01", dtype="datetime64[M]")},
    ),
    "many features": (series_case("input_gradient", (*TIME, "feature"), (60, 8), 8), {}),
    "long names": (
        series_case("gradient_x_input", (*TIME, "feature"), (60, 2), 2),
        {"feature_names": ["temperature [\u00b0C]", "name of a feature [m/s]"]},
    ),
    "long method": (
        series_case("guided_backprop", (*TIME, "feature"), (60, 2), 2),
        {"feature_names": ["name of a feature", "another long name of one [m/s]"]},
    ),
    "forecast": (series_case("prediction", ("batch", "step", "unit"), (24, 3)), {}),
    "one number": (series_case("prediction", UNITS, (1,)), {}),
    "anything": (series_case("activation", ("batch", *"abcd"), (2, 3, 4, 5)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_legible(name, monkeypatch):
    result, options = CASES[name]
    assert_legible(result["it"].plot(**options), monkeypatch)


def test_overview_is_legible(monkeypatch):
    x = RNG.random((1, 12, 16, 3)).astype(np.float32)
    outputs = {
        "class": (RNG.dirichlet(np.ones(12), 1), "prediction", ("batch", "class"), {}),
        "maps": (RNG.random((1, 6, 8, 30)), "activation", IMAGE, {"layer": "conv"}),
        "heat": (RNG.random((1, 12, 16)), "saliency", IMAGE[:3], {"input": "image"}),
        "heads": (RNG.random((1, 2, 9, 9)), "attention", HEADS, {"layer": "mha"}),
        "units": (RNG.normal(size=(1, 20)), "activation", UNITS, {"layer": "dense"}),
    }
    result = result_of({"image": (x, IMAGE, {})}, outputs, class_names=NAMES)
    assert_legible(result.plot(max_outputs=4), monkeypatch)


AXES = (*IMAGE[1:], "time", "feature", "unit", "head", "query", "key", "depth", "class", "odd")
VALUES = (
    lambda shape: np.random.default_rng(0).normal(size=shape),
    np.zeros,
    lambda shape: np.full(shape, np.nan),
    lambda shape: np.where(np.random.default_rng(1).random(shape) < 0.5, np.inf, -1e30),
    lambda shape: np.random.default_rng(2).random(shape) * 1e-30,
    lambda shape: np.full(shape, -7.0),
)
INPUTS = {
    "image": (np.ones((2, 3, 4, 2), np.float32), IMAGE, {}),
    "tokens": (np.ones((2, 3), np.int32), TIME, {"vocabulary": 9}),
    "series": (np.full((2, 3, 2), np.nan, np.float32), (*TIME, "feature"), {}),
    "row": (np.ones((2, 3), np.float32), ("batch", "feature"), {}),
}


@pytest.mark.filterwarnings("error")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_record_fails(data):
    kind = data.draw(st.sampled_from(sorted(KINDS_OF_SCHEMA_1)))
    axes = data.draw(st.lists(st.sampled_from(AXES), max_size=5))
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=len(axes), max_size=len(axes)))
    values = data.draw(st.sampled_from(VALUES))((2, *sizes))
    fed = data.draw(st.sampled_from(sorted(INPUTS)))
    result = result_of(
        {fed: INPUTS[fed]}, {"it": (values, kind, ("batch", *axes), {})}, class_names=("a", "b")
    )
    figure = result["it"].plot(1)
    figure.draw_without_rendering()
    assert any("it" in t.get_text() for t in figure.findobj(Text))


@pytest.mark.parametrize("kind", sorted(KINDS_OF_SCHEMA_1))
def test_output_without_batch_axis(kind):
    fed = {"row": INPUTS["row"]}
    result = result_of(fed, {"it": (np.ones((3, 4)), kind, ("time", "feature"), {})})
    result["it"].plot(1).draw_without_rendering()
