"""The recipes as they stand, and the demos with fewer epochs, end to end."""

import doctest
import importlib

import numpy as np
import pytest

from probegen import runtime

DEMOS = {
    "digits": ("digit", "saliency/image", 1),
    "words": ("mood", "attention/block_2/attention", 1),
    "sunspots": ("forecast", "input_gradient/window", 2),
}
RECIPES = {
    "feature_maps": ("reader.onnx", {"activation/conv1", "activation/conv2"}, 1),
    "saliency": ("digits.onnx", {"saliency/image"}, 1),
    "custom_attention": (
        "forecaster.onnx",
        {"attention/attention", "activation/attention:0", "activation/attention:1"},
        3,
    ),
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", RECIPES)
def test_the_common_way_fails_as_the_recipe_says(name):
    recipe = importlib.import_module(f"recipe_{name}")
    failed, attempted = doctest.testmod(recipe)
    assert attempted >= 3
    assert failed == 0


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_runs_and_its_artefact_answers(name, tmp_path):
    file, names, epochs = RECIPES[name]
    folder = importlib.import_module(f"recipe_{name}").main(tmp_path, epochs=epochs)
    artefact = runtime.load(folder / file)
    assert {o.name for o in artefact.manifest.explanations} == names
    pictures = list(folder.glob("*.png"))
    assert pictures
    assert all(p.read_bytes().startswith(PNG) for p in pictures)


@pytest.mark.parametrize("name", DEMOS)
def test_demo_leaves_artefacts_pictures_and_a_report(name, tmp_path, capsys):
    demo = importlib.import_module(f"demo_{name}")
    prediction, explanation, epochs = DEMOS[name]
    folder = demo.main(tmp_path, epochs=epochs)

    x = demo.load_data().x_test[:5]
    results = [runtime.load(folder / f).run(x) for f in (f"{name}.onnx", f"{name}_saved")]
    for output in (prediction, explanation):
        onnx, saved = (result[output].array for result in results)
        np.testing.assert_allclose(onnx, saved, rtol=1e-3, atol=1e-4 * np.abs(saved).max())
        assert np.ptp(onnx) > 0

    assert (folder / "model.keras").stat().st_size > 0
    report = (folder / "report.html").read_text("utf-8")
    assert explanation in report
    assert all(p.read_bytes().startswith(PNG) for p in folder.glob("*.png"))
    assert "ONNX" in capsys.readouterr().out


def test_words_shown_were_never_trained_with():
    words = importlib.import_module("demo_words")
    data = words.load_data()
    assert set(words.SHOWN) <= set(data.test_words)
    assert not set(data.train_words) & set(data.test_words)
    assert "".join(words.decode(data.x_test[0])) == data.test_words[0]


def test_nobody_attends_to_padding():
    words = importlib.import_module("demo_words")
    block = words.TransformerBlock(heads=2, width=6)
    x = np.random.default_rng(0).normal(size=(1, 5, 6)).astype("float32")
    mask = np.array([[True, True, True, False, False]])
    other = x.copy()
    other[:, 3:] += 1.0
    np.testing.assert_allclose(
        block(x, mask=mask)[:, :3], block(other, mask=mask)[:, :3], atol=1e-6
    )


def test_sunspot_windows_end_the_year_before_their_forecast():
    sunspots = importlib.import_module("demo_sunspots")
    data = sunspots.load_data()
    assert list(data.test_years[[0, -1]]) == [1950, 2008]
    assert len(data.x_train) == 1950 - 1700 - sunspots.WINDOW
    np.testing.assert_array_equal(data.x_test[1:, -1, 0], data.y_test[:-1])
