"""Texts, rows of tables, series, attention and layers in Chromium."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.runtime.read import read_input
from tests import models
from tests.runtime.texts.test_attaching import file, model_of  # noqa: F401
from tests.web.browser.conftest import agree

pytest.importorskip("playwright.sync_api", reason="make test-web installs it")

SENTENCES = ["a good film", "a bad, bad film!", "not good at all", "the cat sat on the mat"]


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    keras.utils.set_random_seed(5)
    words = layers.TextVectorization(output_sequence_length=9, name="words")
    words.adapt(SENTENCES)
    x = keras.Input((), dtype="string", name="review")
    wide = keras.initializers.RandomNormal(stddev=3.0)  # so that heads look at different words
    y = layers.Embedding(words.vocabulary_size(), 6, wide, mask_zero=True, name="embedding")(
        words(x)
    )
    y = models.Block(name="block")(y)
    y = layers.GlobalAveragePooling1D(name="mean")(y)
    y = layers.Dense(2, activation="softmax", name="scores")(y)
    path = tmp_path_factory.mktemp("text") / "sentiment.onnx"
    probes = [
        pg.InputGradient(per_token="dot"),
        pg.Attention(),
        pg.AttentionRollout(),
        pg.Activations("mean"),
        pg.Activations("block"),
    ]
    pg.compile(keras.Model(x, y), probes, path, class_names=["bad", "good"], verify=False)
    return path


def test_a_text(sentiment, shown):
    view = shown(sentiment)
    page = view.page
    text = "A GOOD film, <b>not</b> bad"
    page.get_by_label("review", exact=True).fill(text)
    view.done()
    result = agree(sentiment, view)
    loaded = runtime.load(sentiment)
    right = loaded.run(text)
    np.testing.assert_allclose(right["scores"].array, result["scores"].array, atol=1e-6)
    tokens = loaded.texts.tokens(loaded.prepare(text).inputs)
    shown_tokens = page.locator("#explanations .token").all_inner_texts()
    assert shown_tokens == next(iter(tokens.values()))[0]
    for spec in loaded.manifest.explanations:
        page.select_option("#method", spec.name)
        view.screenshot(f"text-{spec.kind}")
    page.get_by_label("review", exact=True).fill("")
    view.run()
    agree(sentiment, view)


def test_attention_heads(sentiment, shown):
    view = shown(sentiment)
    page = view.page
    page.get_by_label("review", exact=True).fill("the cat sat on the mat")
    view.done()
    result = agree(sentiment, view)
    name = next(n for n in result if n.startswith("attention/"))
    page.select_option("#method", name)
    weights = np.asarray(result[name].array)[0]
    assert np.ptp(weights[0, 3, :6]) > 0.01
    assert np.abs(weights[0] - weights[1]).max() > 0.01
    for head in (1, 2):
        page.get_by_label("Head", exact=True).select_option(index=head)
        page.get_by_label("Query", exact=True).select_option(index=3)
        titles = page.locator("#explanations .token").evaluate_all(
            "(all) => all.map((e) => e.title)"
        )
        told = [float(t.split()[-1].replace("\u2212", "-")) for t in titles]
        np.testing.assert_allclose(told, weights[head - 1, 3, :6], rtol=6e-3)
    page.get_by_label("Head", exact=True).focus()
    page.keyboard.press("ArrowUp")
    assert page.get_by_label("Head", exact=True).input_value() == "1"
    view.screenshot("attention")


def test_ids_of_a_tokenizer_that_the_page_has_not_got(file, shown, tmp_path):  # noqa: F811
    """Mask, segments and padding are made beside them, as of the text."""
    path = tmp_path / "m.onnx"
    probe = pg.Saliency(target=1, wrt="input_ids")
    pg.compile(model_of(length=7), [probe], path, tokenizer=file, verify=False)
    view = shown(path)
    assert "hugging_face" in view.page.locator("small").first.inner_text()
    view.page.get_by_label("text", exact=True).fill("2 4 5 6 3")
    view.done()
    right = runtime.load(path).prepare("the cats").inputs
    assert right["input_ids"].tolist() == [[2, 4, 5, 6, 3, 0, 0]]
    for name, array in right.items():
        np.testing.assert_array_equal(view.arrays("feeds")[name], array)
    agree(path, view)
    view.page.get_by_label("text", exact=True).fill("2 4 5 6 4 4 4 3")
    assert "8 ids, and the model takes 7" in view.problem()


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    keras.utils.set_random_seed(6)
    x = keras.Input((4,), name="flower")
    y = layers.Dense(5, activation="tanh", name="hidden")(x)
    y = layers.Dense(3, activation="softmax", name="species")(y)
    path = tmp_path_factory.mktemp("table") / "iris.onnx"
    pg.compile(
        keras.Model(x, y),
        [pg.GradientXInput(target="input"), pg.KernelSHAP(target="input")],
        path,
        class_names=["setosa", "versicolor", "virginica"],
        feature_names=["sepal length [cm]", "sepal width [cm]", "petal length", "petal <width>"],
        verify=False,
    )
    return path


def test_a_row_of_a_table(iris, shown, tmp_path):
    csv = tmp_path / "flowers.csv"
    csv.write_text(
        "petal <width>,petal length,sepal width,sepal length\n0.2,1.4,3.5,5.1\n-1.5,4.5,0,6.4\n"
    )
    view = shown(iris)
    page = view.page
    page.get_by_label("Open a table").set_input_files(csv)
    view.done()
    right = read_input(csv, runtime.load(iris).manifest).feed.astype(np.float32)
    np.testing.assert_array_equal(view.arrays("feeds")["flower"], right[:1])
    page.evaluate("() => { document.getElementById('status').textContent = ''; }")
    page.get_by_label("Row", exact=True).select_option(index=1)
    view.done()
    np.testing.assert_array_equal(view.arrays("feeds")["flower"], right[1:])
    agree(iris, view)
    text = page.locator("#explanations").inner_text()
    assert "petal <width> = \u22121.5" in text
    view.screenshot("table")
    page.evaluate("() => { document.getElementById('status').textContent = ''; }")
    page.get_by_label("petal length", exact=True).fill("2.25")
    page.keyboard.press("Tab")
    view.done()
    assert view.arrays("feeds")["flower"][0, 2] == 2.25
    page.get_by_label("Paste rows").fill("1,2,3\n")
    page.keyboard.press("Tab")
    assert "takes 4 numbers a row" in view.problem()


def test_a_column_for_each_input(shown, tmp_path):
    keras.utils.set_random_seed(12)
    age, plan = keras.Input((1,), name="age"), keras.Input((1,), dtype="int32", name="plan")
    kind = layers.Flatten()(layers.Embedding(4, 3, name="kinds")(plan))
    y = layers.Dense(1, activation="sigmoid", name="leaves")(layers.Concatenate()([age, kind]))
    path, csv = tmp_path / "m.onnx", tmp_path / "t.csv"
    model = keras.Model([age, plan], y)
    pg.compile(model, [pg.GradientXInput(wrt="age")], path, verify=False)
    csv.write_text("plan,age\n3,20.5\n1,-1\n")
    view = shown(path)
    view.page.get_by_label("Open a table with a column").set_input_files(csv)
    view.done()
    right = read_input(csv, runtime.load(path).manifest).feed
    for row in (0, 1):
        if row:
            view.page.evaluate("() => { document.getElementById('status').textContent = ''; }")
            view.page.get_by_label("Row", exact=True).first.select_option(index=row)
            view.done()
        for name in ("age", "plan"):
            fed = view.arrays("feeds")[name]
            np.testing.assert_array_equal(fed, right[name][row : row + 1].astype(fed.dtype))
        agree(path, view)
    csv.write_text("plan,years\n3,20.5\n")
    view.page.get_by_label("Open a table with a column").set_input_files(csv)
    assert "name the columns" in view.problem()


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "forecast.onnx"
    probes = [pg.GradientXInput(), pg.GradCAM("conv"), pg.Activations("lstm"), pg.States("lstm")]
    features = ["load [MW]", "wind"]
    pg.compile(models.forecaster(), probes, path, feature_names=features, verify=False)
    return path


def test_a_series(forecast, shown, tmp_path):
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(17, 2)).round(3)
    lines = [f"2024-01-{i + 1:02},{w},{m}" for i, (m, w) in enumerate(rows)]
    csv = tmp_path / "s.csv"
    csv.write_text("day,wind,load\n" + "\n".join(lines) + "\n")
    view = shown(forecast)
    view.page.get_by_label("Open a table").set_input_files(csv)
    view.done()
    right = read_input(csv, runtime.load(forecast).manifest).feed.astype(np.float32)
    np.testing.assert_array_equal(view.arrays("feeds")["window"], right)
    agree(forecast, view)
    assert "2024-01-01" in view.page.locator("#explanations").inner_text()
    for spec in runtime.load(forecast).manifest.explanations:
        view.page.select_option("#method", spec.name)
        view.screenshot(f"series-{spec.kind}")


def test_ids_and_two_graphs(shown, tmp_path):
    """Numbers as they are, weights in a file of their own, and a second graph that explains."""
    path = tmp_path / "words.onnx"
    probes = [pg.Saliency(), pg.Attention("block_1/*")]
    pg.compile(models.transformer(), probes, path, gate="split", external_data=True, verify=False)
    view = shown(path, "file")
    view.page.get_by_label("Numbers").fill("1 5 2 12 3 4 0 0 0")
    view.done()
    assert view.arrays("feeds")["tokens"].tolist() == [[1, 5, 2, 12, 3, 4, 0, 0, 0]]
    agree(path, view)
    assert len(view.page.locator("#explanations .token").all()) == 6
    view.page.evaluate("() => { document.getElementById('status').textContent = ''; }")
    view.page.get_by_label("With explanations").uncheck()
    view.done()
    assert list(view.arrays("outputs")) == ["scores"]
    view.page.get_by_label("Numbers").fill("1 5 2 13 3 4 0 0 0")
    assert "ids go from 0 to 12" in view.problem()


def test_two_inputs_and_a_fixed_batch(shown, tmp_path):
    path = tmp_path / "pairs.onnx"
    pg.compile(models.siamese(), [pg.InputGradient()], path, gate=False, verify=False)
    view = shown(path, "single")
    groups = view.page.locator("fieldset")
    for place, row in enumerate(["1 2 3 4 5 6 7", "-1 0 1 0 2.5 0 -3"]):
        groups.nth(place).get_by_label("Paste rows").fill(row.replace(" ", ","))
    view.page.keyboard.press("Tab")
    view.run()
    assert view.arrays("feeds")["right"].tolist() == [[-1, 0, 1, 0, 2.5, 0, -3]]
    agree(path, view)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_at_phone_width(scheme, sentiment, iris, forecast, shown):
    rows = "\n".join(f"{i / 7},{(i * 5) % 3}" for i in range(17))
    for artefact, label, given in (
        (sentiment, "review", "the cat sat on the mat"),
        (iris, "Paste rows of a table", "5,4,3,2"),
        (forecast, "Paste the series", rows),
    ):
        size = {"width": 360, "height": 740}
        view = shown(artefact, overwrite=True, color_scheme=scheme, viewport=size)
        view.page.get_by_label(label, exact=True).fill(given)
        view.page.keyboard.press("Tab")
        view.done()
        for spec in runtime.load(artefact).manifest.explanations:
            view.page.select_option("#method", spec.name)
            view.screenshot(f"phone-{scheme}-{spec.name.replace('/', '-')}")
            view.is_legible()
