"""Pictures of attention, text, series and tables: the right ones, with the right numbers."""

import datetime

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from probegen.runtime.plot import record_view
from probegen.runtime.plot.resize import resize
from probegen.runtime.plot.style import colour_map
from probegen.runtime.plot.text import highlighted
from tests.runtime.figures import axes_of, images_of, texts_of
from tests.runtime.support import result_of

RNG = np.random.default_rng(5)
TOKENS = ("batch", "time")
SERIES = ("batch", "time", "feature")
TABLE = ("batch", "feature")


# -- attention -----------------------------------------------------------------------------------


def attention(array, axes=("batch", "head", "query", "key"), **inputs):
    ids = RNG.integers(10, 99, (1, array.shape[-1])).astype(np.int32)
    given = inputs or {"tokens": (ids, TOKENS, {"vocabulary": 99})}
    return result_of(given, {"it": (array, "attention", axes, {"layer": "mha"})})["it"]


def test_heads_with_mean_and_tokens():
    weights = RNG.random((1, 3, 4, 4))
    figure = attention(weights).plot(tokens=["a", "$b$", "c d", "e"])
    drawn = images_of(figure)
    np.testing.assert_allclose(drawn[0], weights[0].mean(0), atol=1e-6)
    np.testing.assert_allclose(drawn[1:4], weights[0], atol=1e-6)
    texts = texts_of(figure)
    assert {"mean of 3 heads", "head 0", "head 2", "a", r"\$b\$", "c d", "e"} <= set(texts)


def test_tokens_stand_at_their_rows():
    weights = RNG.random((1, 4, 4))
    figure = attention(weights, ("batch", "query", "key")).plot(tokens=list("wxyz"))
    figure.draw_without_rendering()
    tokens = set("wxyz")
    rows = [t for t in figure.findobj(Text) if t.get_text() in tokens and t.get_ha() == "right"]
    heights = {t.get_text(): t.get_window_extent().y0 for t in rows}
    assert sorted(heights, key=heights.get, reverse=True) == list("wxyz")


def test_padding_is_left_out():
    weights = RNG.random((1, 2, 5, 5))
    figure = attention(weights).plot(tokens=["a", "b", "c"])
    np.testing.assert_allclose(images_of(figure)[1], weights[0, 0, :3, :3], atol=1e-6)


def test_token_ids_stand_for_themselves():
    weights = RNG.random((1, 2, 4, 4))
    record = attention(weights)
    ids = record.run.inputs["tokens"][0]
    assert {str(i) for i in ids} <= set(texts_of(record.plot()))


def test_cross_attention_is_not_square():
    weights = RNG.random((1, 2, 3, 6))
    figure = attention(
        weights,
        source=(RNG.integers(0, 9, (1, 6)), TOKENS, {"vocabulary": 9}),
        target=(RNG.integers(0, 9, (1, 3)), TOKENS, {"vocabulary": 9}),
    ).plot(tokens=list("abcdef"), query_tokens=list("xyz"))
    assert images_of(figure)[0].shape == (3, 6)
    assert set("abcdefxyz") <= set(texts_of(figure))


def test_long_sequences_thin_their_ticks():
    weights = RNG.random((1, 1, 200, 200))
    figure = attention(weights).plot(tokens=[f"t{i}" for i in range(200)])
    assert 10 < sum(t.startswith("t") for t in texts_of(figure)) < 80


def test_one_query_is_drawn_along_the_tokens():
    record = attention(RNG.random((1, 4)), ("batch", "key"))
    figure = record.plot(tokens=list("wxyz"))
    assert len(figure.findobj(FancyBboxPatch)) == 4


# -- text, series, tables ------------------------------------------------------------------------


def test_highlighted_text():
    values = np.array([[0.0, 2.0, 1.0, 0.5]])
    ids = np.array([[4, 8, 15, 16]], np.int32)
    result = result_of(
        {"tokens": (ids, TOKENS, {"vocabulary": 42})},
        {"it": (values, "saliency", TOKENS, {"layer": "embedding"})},
    )
    figure = result["it"].plot(tokens={4: "the", 8: "very", 15: "best "})
    texts = texts_of(figure)
    assert [t for t in texts if t in ("the", "very", "best\u2423", "16")] == [
        "the", "very", "best\u2423", "16",
    ]  # fmt: skip
    boxes = figure.findobj(FancyBboxPatch)
    expected = colour_map("YlOrBr")(values[0] / 2)[:, :3]
    np.testing.assert_allclose([b.get_facecolor()[:3] for b in boxes], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "note", "join"),
    [
        ("input_gradient", "Euclidean norm", lambda v: np.linalg.norm(v, axis=-1)),
        ("integrated_gradients", "sum", lambda v: v.sum(-1)),
    ],
)
def test_embedding_axis_is_joined(kind, note, join):
    values = RNG.normal(size=(1, 3, 7))
    result = result_of(
        {"tokens": (np.array([[1, 2, 3]]), TOKENS, {"vocabulary": 9})},
        {"it": (values, kind, ("batch", "time", "embedding"), {"layer": "embedding"})},
    )

    text = highlighted(record_view(result["it"], 0, {}))
    np.testing.assert_allclose(text.values, join(values[0]), rtol=1e-5)
    assert f"{note} over 7 dimensions" in texts_of(result["it"].plot())


def test_tokens_by_sample_and_by_function():
    ids = np.array([[1, 2], [3, 4]])
    result = result_of(
        {"tokens": (ids, TOKENS, {"vocabulary": 9})},
        {"it": (RNG.random((2, 2)), "saliency", TOKENS, {"layer": "embedding"})},
    )
    assert {"c", "d"} <= set(texts_of(result["it"].plot(1, tokens=[["a", "b"], ["c", "d"]])))
    figure = result["it"].plot(1, tokens=lambda row: [f"<{i}>" for i in row])
    assert {"<3>", "<4>"} <= set(texts_of(figure))


def series(array, axes=SERIES, features=1, kind="input_gradient"):
    x = np.cumsum(RNG.normal(size=(1, 12, features)), 1).astype(np.float32)
    result = result_of({"rate": (x, SERIES, {})}, {"it": (array, kind, axes, {"input": "rate"})})
    return x, result["it"]


def test_series_with_attribution_beneath():
    heat = RNG.normal(size=(1, 12, 1))
    x, record = series(heat)
    line, bars = axes_of(record.plot(time=range(1900, 1912)))
    np.testing.assert_allclose(line.lines[0].get_ydata(), x[0, :, 0], rtol=1e-6)
    np.testing.assert_allclose([p.get_height() for p in bars.patches], heat[0, :, 0], rtol=1e-5)
    centres = [p.get_x() + p.get_width() / 2 for p in bars.patches]
    np.testing.assert_allclose(centres, range(1900, 1912))
    np.testing.assert_allclose(line.get_xlim(), bars.get_xlim())


def test_several_features_are_small_multiples():
    heat = RNG.normal(size=(1, 12, 7)) * np.array([1, 9, 2, 8, 3, 7, 4])
    _, record = series(heat, features=7)
    figure = record.plot(feature_names=list("abcdefg"))
    names = [ax.get_ylabel() for ax in axes_of(figure)][::2]
    kept = np.sort(np.argsort(-np.abs(heat[0]).sum(0))[:5])
    assert names == [list("abcdefg")[i] for i in kept]
    assert "showing 5 of 7 features with the largest attributions" in texts_of(figure)


def test_attribution_without_feature_axis_stands_once():
    _, record = series(RNG.random((1, 12)), TOKENS, features=3, kind="saliency")
    assert len(axes_of(record.plot())) == 4


def test_shorter_attribution_is_brought_to_the_series():
    heat = RNG.random((1, 4))
    _, record = series(heat, TOKENS, kind="grad_cam")
    bars = axes_of(record.plot())[1]
    np.testing.assert_allclose(
        [p.get_height() for p in bars.patches], resize(heat[0], (12,)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (np.arange("2020-01", "2021-01", dtype="datetime64[M]"), {"Apr", "Jul"}),
        ([datetime.date(2020, 1, 1 + i) for i in range(12)], {"05", "09"}),
        ([f"week {i}" for i in range(12)], {"week 0", "week 4"}),
        (np.linspace(0, 1, 12), {"0.2", "0.8"}),
        (range(1900, 1912), {"1900", "1904"}),
    ],
)
def test_times_of_any_kind(time, expected):
    _, record = series(RNG.normal(size=(1, 12, 1)))
    texts = set(texts_of(record.plot(time=time)))
    assert expected <= texts, texts


def test_tabular_is_sorted_and_capped():
    values = RNG.normal(size=(1, 30))
    x = RNG.normal(size=(1, 30))
    result = result_of(
        {"row": (x, TABLE, {})},
        {"it": (values, "integrated_gradients", TABLE, {"input": "row"})},
    )
    figure = result["it"].plot(feature_names=[f"f{i}" for i in range(30)])
    (ax,) = axes_of(figure)
    order = np.argsort(-np.abs(values[0]))[:20]
    np.testing.assert_allclose([p.get_width() for p in ax.patches], values[0][order], rtol=1e-6)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[0] == f"f{order[0]} = " + f"{x[0, order[0]]:.3g}".replace("-", "\u2212")
    assert "showing the 20 largest of 30 features" in texts_of(figure)
