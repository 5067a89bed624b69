"""Pictures of attention, text, series and tables: the right ones, with the right numbers."""

import datetime

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from probegen.artefact.manifest import Padding, TargetSpec
from probegen.errors import InputError
from probegen.runtime.plot import record_view
from probegen.runtime.plot.plots.token_boxes import highlighted
from probegen.runtime.plot.style import colour_map
from probegen.runtime.resize import resize
from tests.runtime.figures import axes_of, images_of, says, texts_of
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


@pytest.mark.parametrize(
    ("axes", "shape", "names", "drawn"),
    [
        # One query: heads stand down, or layers; the mean of heads where both are there.
        (("head", "key"), (3, 4), {"head 0", "head 2"}, lambda w: [w]),
        (("layer", "key"), (2, 4), {"one", "two"}, lambda w: [w]),
        (("layer", "query", "key"), (2, 4, 4), {"one", "two"}, list),
        (("layer", "head", "query", "key"), (2, 3, 4, 4), {"one"}, lambda w: list(w.mean(1))),
        # In each step of a loop.
        (("time", "key"), (5, 4), {"time 0", "time 4"}, lambda w: [w]),
        (("time", "key", "query"), (3, 4, 2), {"time 0"}, lambda w: list(w.transpose(0, 2, 1))),
    ],
)
def test_attention_with_other_axes(axes, shape, names, drawn):
    weights = RNG.random((1, *shape))
    ids = RNG.integers(10, 99, (1, 4)).astype(np.int32)
    layers = {"layers": ["enc/one/mha", "enc/two/mha"]} if "layer" in axes else {}
    result = result_of(
        {"tokens": (ids, TOKENS, {"vocabulary": 99})},
        {"it": (weights, "attention", ("batch", *axes), {"detail": layers})},
    )
    figure = result["it"].plot(tokens=list("wxyz"))
    maps = images_of(figure)
    assert len(maps) == len(drawn(weights[0]))
    for image, expected in zip(maps, drawn(weights[0]), strict=True):
        np.testing.assert_allclose(image, expected, atol=1e-6)
    assert {*names, *"wxyz"} <= set(texts_of(figure))


def test_the_largest_weights_stand_at_their_keys():
    ids = RNG.integers(10, 99, (1, 5)).astype(np.int32)
    axes = ("batch", "query", "rank")
    weights, keys = [[[0.6, 0.2], [0.5, 0.4]]], [[[3, 0], [1, 2]]]
    result = result_of(
        {"tokens": (ids, TOKENS, {"vocabulary": 99})},
        {
            "it": (weights, "attention", axes, {"detail": {"reduce": "heads,top:2"}}),
            "it/keys": (keys, "keys", axes, {"draw": "beside"}),
        },
    )
    figure = result["it"].plot(tokens=list("vwxyz"))
    expected = [[0.2, 0, 0, 0.6, 0], [0, 0.5, 0.4, 0, 0]]
    np.testing.assert_allclose(images_of(figure)[0], expected, atol=1e-6)
    assert says(figure, "the 2 largest of each row alone")


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
    assert says(result["it"].plot(), f"{note} over 7 dimensions")


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
    assert says(figure, "showing 5 of 7 features with the largest attributions")


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


@pytest.mark.parametrize("unit", ["h", "D", "M", "Y"])
@pytest.mark.parametrize("apart", [1, 3, 7])
@pytest.mark.filterwarnings("error")
def test_dates_of_any_distance_are_labelled(unit, apart):
    """Matplotlib warns where it finds no distance between ticks that suits a range of dates."""
    _, record = series(RNG.normal(size=(1, 12, 1)))
    time = np.datetime64("1999-10", unit) + apart * np.arange(12)
    ax = axes_of(record.plot(time=time))[-1]
    ticks = [t for t in ax.get_xticks() if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    assert 2 <= len(ticks) <= 7


def test_an_input_is_called_by_its_name_where_two_share_an_embedding():
    ids = np.array([[1, 2, 3]])
    inputs = {name: (ids, ("batch", "time"), {"vocabulary": 9}) for name in ("left", "right")}
    outputs = {
        f"saliency/{name}": (
            RNG.random((1, 3)), "saliency", ("batch", "time"), {"input": name, "layer": "letters"}
        )
        for name in inputs
    }  # fmt: skip
    result = result_of(inputs, outputs)
    for name in inputs:
        assert any(name in text for text in texts_of(result[f"saliency/{name}"].plot()))
    whole = {"look_up": outputs["saliency/left"]}
    assert says(result_of(inputs, whole)["look_up"].plot(), "letters")


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
    assert says(figure, "showing the 20 largest of 30 features")


# -- labels belong to inputs ---------------------------------------------------------------------


def two_inputs():
    """Four numbers, and ids that are looked up as embeddings of four."""
    return result_of(
        {
            "numbers": (RNG.normal(size=(1, 4)), ("batch", "feature"), {}),
            "ids": (np.array([[3, 1, 2]], np.int32), TOKENS, {"vocabulary": 9}),
        },
        {
            "n": (RNG.normal(size=(1, 4)), "saliency", ("batch", "feature"), {"input": "numbers"}),
            "e": (RNG.normal(size=(1, 4)), "saliency", ("batch", "embedding"), {"input": "ids"}),
        },
    )


def test_feature_names_are_of_the_input_that_has_features():
    names = ["age", "height", "weight", "pulse"]
    result = two_inputs()
    for given in (names, {"numbers": names}):
        assert any(
            t.startswith("pulse = ") for t in texts_of(result["n"].plot(feature_names=given))
        )
        said = " ".join(texts_of(result["e"].plot(feature_names=given)))
        assert not any(name in said for name in names)
        assert "embedding 3" in said


def test_feature_names_that_could_be_of_two_inputs():
    axes = ("batch", "feature")
    result = result_of(
        {"a": (np.ones((1, 2)), axes, {}), "b": (np.ones((1, 2)), axes, {})},
        {n: (np.ones((1, 2)), "saliency", axes, {"input": n[1:]}) for n in ("sa", "sb")},
    )
    with pytest.raises(InputError, match=r"several inputs have.*feature_names=\{'a': \[...\]\}"):
        result["sa"].plot(feature_names=["x", "y"])
    names = {"a": ["x", "y"], "b": ["u", "v"]}
    assert "x = 1" in texts_of(result["sa"].plot(feature_names=names))
    assert "v = 1" in texts_of(result["sb"].plot(feature_names=names))
    with pytest.raises(InputError, match=r"3 entries for the input 'b', which has 2 features"):
        result["sa"].plot(feature_names={"b": ["x", "y", "z"]})
    with pytest.raises(InputError, match="no input or output"):
        result["sa"].plot(feature_names={"c": ["x", "y"]})


def translation(source=9, target=7):
    """Self-attention of an encoder and a decoder, and the attention between them."""
    axes = ("batch", "query", "key")
    maps = {"encoder": (source, source), "decoder": (target, target), "cross": (target, source)}
    return result_of(
        {
            "source": (RNG.integers(0, 9, (1, source)), TOKENS, {"vocabulary": 9}),
            "target": (RNG.integers(0, 9, (1, target)), TOKENS, {"vocabulary": 9}),
        },
        {n: (RNG.random((1, *s)), "attention", axes, {"layer": n}) for n, s in maps.items()},
    )


def test_tokens_are_written_along_their_own_sequence():
    result = translation()
    words = {"tokens": list("abcdefghi"), "query_tokens": list("TUVWXYZ")}
    shown = {name: texts_of(result[name].plot(**words)) for name in result}
    assert set("abcdefghi") <= set(shown["encoder"])
    assert not set("TUVWXYZ") & set(shown["encoder"])
    assert images_of(result["encoder"].plot(**words))[0].shape == (9, 9)
    assert shown["decoder"].count("T") == 2
    assert not set("abcdefghi") & set(shown["decoder"])
    assert set("abcdefghiTUVWXYZ") <= set(shown["cross"])


def test_tokens_of_two_sequences_of_one_length():
    result = translation(target=9)
    words = {"tokens": list("abcdefghi"), "query_tokens": list("RSTUVWXYZ")}
    assert not set("abcdefghiRSTUVWXYZ") & set(texts_of(result["encoder"].plot(**words)))
    named = {
        "tokens": {"cross": words["tokens"], "decoder": words["query_tokens"]},
        "query_tokens": {"cross": words["query_tokens"]},
    }
    assert set("abcdefghiRSTUVWXYZ") <= set(texts_of(result["cross"].plot(**named)))
    assert texts_of(result["decoder"].plot(**named)).count("R") == 2


def test_masks_and_segments_are_no_tokens():
    ids = np.array([[5, 6, 7]], np.int32)
    result = result_of(
        {
            "mask": (np.ones((1, 3), np.int32), TOKENS, {}),
            "words": (ids, TOKENS, {"vocabulary": 99}),
        },
        {"it": (RNG.random((1, 3, 3)), "attention", ("batch", "query", "key"), {"layer": "a"})},
    )
    assert {"5", "6", "7"} <= set(texts_of(result["it"].plot()))


# -- many steps ----------------------------------------------------------------------------------


def test_the_largest_of_many_steps_is_drawn():
    size = 10021
    x, heat = RNG.normal(size=(1, size, 1)), np.full((1, size, 1), 1e-3)
    heat[0, 7777, 0], heat[0, 123, 0] = 4.0, -3.0
    result = result_of(
        {"x": (x, SERIES, {})}, {"it": (heat, "input_gradient", SERIES, {"input": "x"})}
    )
    _, bars = axes_of(result["it"].plot())
    edges = [step.get_data().edges for step in bars.patches]
    values = [step.get_data().values for step in bars.patches]
    assert max(v.max() for v in values) == 4.0
    assert min(v.min() for v in values) == -3.0
    top = int(np.argmax(values[0]))
    assert edges[0][top] <= 7777 <= edges[0][top + 1]
    assert len(values[0]) <= 900


def test_the_strongest_of_many_columns_and_of_a_wide_map_is_drawn():
    wide = np.zeros((1, 3, 5000))
    wide[0, 1, 4321] = -2.0
    axes = ("batch", "channel", "time")
    result = result_of(
        {"x": (np.zeros((1, 5000, 3)), SERIES, {})}, {"it": (wide, "activation", axes, {})}
    )
    (shown,) = [i for i in images_of(result["it"].plot()) if i.shape[0] == 3]
    assert shown.shape[1] <= 900
    assert shown.min() == -2.0


def test_long_text_is_shown_where_it_is_strongest():
    ids = np.arange(1000, dtype=np.int32)[None]
    heat = np.zeros((1, 1000))
    heat[0, 900] = 1.0
    result = result_of(
        {"x": (ids, TOKENS, {"vocabulary": 1000})},
        {"it": (heat, "saliency", TOKENS, {"input": "x"})},
    )
    text = highlighted(record_view(result["it"], 0, {}))
    assert "900" in text.tokens
    assert len(text.tokens) == 400
    assert any("where the strongest are" in note for note in text.notes)


# -- what cannot be seen -------------------------------------------------------------------------


def test_heat_of_tokens_starts_at_zero():
    ids = np.array([[1, 2, 3]], np.int32)
    result = result_of(
        {"x": (ids, TOKENS, {"vocabulary": 9})},
        {"it": (np.array([[3.0, 3.49, 3.2]]), "saliency", TOKENS, {"input": "x"})},
    )
    scale = highlighted(record_view(result["it"], 0, {})).scale
    assert (scale.low, scale.high) == (0.0, pytest.approx(3.49))


def test_nothing_to_see_is_said():
    target = TargetSpec("argmax", output="y", logits=True)
    result = result_of(
        {"x": (np.ones((1, 6, 5, 3)), ("batch", "height", "width", "channel"), {})},
        {
            "cam": (
                np.zeros((1, 6, 5)), "grad_cam", ("batch", "height", "width"),
                {"layer": "conv", "input": "x", "target": target},
            ),
            "s": (
                np.full((1, 6, 5), np.nan), "saliency", ("batch", "height", "width"),
                {"input": "x", "target": target},
            ),
        },
    )  # fmt: skip
    said = " ".join(" ".join(texts_of(result["cam"].plot())).split())
    assert "all zero: nothing at this layer speaks for the target" in said
    assert "of the logit" in said
    assert "30 of 30 values are not finite" in " ".join(texts_of(result["s"].plot()))


# -- padding ---------------------------------------------------------------------------------------


def test_padded_tokens_are_left_out_and_count_for_nothing():
    ids = np.array([[7, 8, 0, 9, 0], [0, 0, 0, 0, 0]], np.int32)
    told = {"vocabulary": 99, "padding": Padding("ids", (0.0,))}
    array = np.array([[0.5, -1.0, 100.0, 0.25, -100.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    record = result_of({"ids": (ids, TOKENS, told)}, {"it": (array, "dot", TOKENS, spec)})["it"]
    text = highlighted(record_view(record, 0, {}))
    assert text.tokens == ["7", "8", "9"]
    np.testing.assert_array_equal(text.values, [0.5, -1.0, 0.25])
    assert text.scale.high == -text.scale.low == 1.0
    assert says(record.plot(), "2 of 5 positions are padding, left out")
    # Nothing but padding: there is nothing to leave it out of.
    assert highlighted(record_view(record, 1, {})).tokens == ["0"] * 5
    outputs = {"it": (np.zeros((2, 5)), "dot", TOKENS, spec)}
    blank = result_of({"ids": (ids, TOKENS, told)}, outputs)["it"]
    assert says(blank.plot(sample=1), "nothing but padding was fed")
    assert says(blank.plot(sample=0), "the target does not react")


def test_pieces_are_joined_on_request_and_padding_stays_out():
    tokens = [["un", "##break", "##able", "glass", "x"]]
    told = {"vocabulary": 99, "padding": Padding("ids", (0.0,))}
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    array = np.array([[1.0, -3.0, 0.5, 2.0, 100.0]])
    weights = RNG.dirichlet(np.ones(5), (1, 2, 5))
    result = result_of(
        {"ids": (np.array([[7, 8, 9, 5, 0]], np.int32), TOKENS, told)},
        {
            "it": (array, "dot", TOKENS, spec),
            "heads": (weights, "attention", ("batch", "head", "query", "key"), {}),
        },
    )
    text = highlighted(record_view(result["it"], 0, {"tokens": tokens, "whole_words": True}))
    assert text.tokens == ["unbreakable", "glass"]
    np.testing.assert_allclose(text.values, [-1.5, 2.0])
    assert says(result["it"].plot(tokens=tokens, whole_words=True), "pieces joined into words: sum")
    drawn = images_of(result["heads"].plot(tokens=tokens, whole_words=True))[1]
    rows = np.stack([weights[0, 0, :3].mean(0), *weights[0, 0, 3:]])
    expected = np.column_stack([rows[:, :3].sum(1), rows[:, 3:]])
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    np.testing.assert_allclose(drawn.sum(1), 1, atol=1e-5)


def test_samples_below_each_other_have_one_scale():
    ids = np.array([[4, 8], [15, 16], [23, 42]], np.int32)
    array = np.array([[1.0, -2.0], [0.5, 0.5], [8.0, 0.0]])
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    result = result_of(
        {"ids": (ids, TOKENS, {"vocabulary": 99})}, {"it": (array, "dot", TOKENS, spec)}
    )
    figure = result["it"].plot(sample=[2, 0])
    boxes = [b.get_facecolor()[:3] for b in figure.findobj(FancyBboxPatch)]
    expected = colour_map("RdBu_r")((np.array([8.0, 0.0, 1.0, -2.0]) + 8) / 16)[:, :3]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)
    titles = [t for t in texts_of(figure) if t.startswith("Sample")]
    assert [t.split(" ")[1] for t in titles] == ["2", "0"]
    assert says(figure, "one scale for all samples")
    assert len(result.plot(sample=(0, 1, 2)).findobj(FancyBboxPatch)) == 6
    for wrong, says_ in (([], "empty list"), ([0, 3], "there is no sample 3"), ("0", "'0'")):
        with pytest.raises(InputError, match=says_):
            result["it"].plot(sample=wrong)


def test_a_mask_that_is_fed_tells_padding():
    ids = np.array([[7, 8, 3]], np.int32)
    inputs = {
        "ids": (ids, TOKENS, {"vocabulary": 99, "padding": Padding("mask", (0.0,))}),
        "mask": (np.array([[[True], [False], [True]]]), ("batch", "axis_1", "feature"), {}),
    }
    spec = {"input": "ids", "sign": "signed", "draw": "map"}
    record = result_of(inputs, {"it": (np.ones((1, 3)), "dot", TOKENS, spec)})["it"]
    assert highlighted(record_view(record, 0, {})).tokens == ["7", "3"]


def test_padded_steps_of_a_series_have_no_bars():
    series = RNG.normal(size=(1, 6, 2)).astype(np.float32)
    series[0, 4:] = -1.0
    series[0, 1, 0] = -1.0  # one feature alone is no padding
    array = np.array([[1.0, -2.0, 0.5, 0.25, 50.0, -60.0]])
    told = {"padding": Padding("series", (-1.0,))}
    spec = {"input": "series", "sign": "signed", "draw": "map"}
    inputs = {"series": (series, SERIES, told)}
    record = result_of(inputs, {"it": (array, "dot", TOKENS, spec)})["it"]
    figure = record.plot()
    heights = [[p.get_height() for p in ax.patches] for ax in axes_of(figure) if ax.patches]
    np.testing.assert_allclose(heights, [[1.0, -2.0, 0.5, 0.25, 0.0, 0.0]])
    assert says(figure, "2 of 6 steps are padding, without bars")
    assert max(abs(y) for ax in axes_of(figure) if ax.patches for y in ax.get_ylim()) < 3
