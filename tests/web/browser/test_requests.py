"""What artefacts take and give beside a class: several, regions, groups, states, volumes."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from tests import models
from tests.web.browser.conftest import agree

pytest.importorskip("playwright.sync_api", reason="make test-web installs it")


def compiled(folder, model, probes, **options):
    path = folder / "m.onnx"
    pg.compile(model, probes, path, verify=False, **options)
    return path


def numbers(view, array):
    """Gives an input as nested lists."""
    part = view.page.locator("fieldset").first
    part.get_by_label("Given as").select_option(label="numbers")
    part.get_by_label("Numbers").fill(str(array.tolist()))


def every_method(view, path):
    for spec in runtime.load(path).manifest.explanations:
        if spec.draw != "beside":
            view.page.select_option("#method", spec.name)
            card = view.page.locator(f"[data-output='{spec.name}']")
            assert card.locator("canvas, .bars, .token, svg, .one-number").count()
            view.screenshot(f"request-{path.parent.name}-{spec.name.replace('/', '-')}")


def test_several_classes_and_completeness(shown, tmp_path):
    x = models.images((11, 8, 2))[0]
    probes = [
        pg.Saliency(target="top:2"),
        pg.GradCAM(target="all", upsample=True),
        pg.IntegratedGradients(4, target=[3, 1], completeness=True),
        pg.GradCAM(target=pg.contrast("argmax", "runner_up"), name="rather"),
    ]
    path = compiled(tmp_path, models.cnn(), probes, class_names=["ant", "bee", "cow", "dog"])
    view = shown(path)
    view.page.get_by_label("Numbers", exact=True).fill(str(x.tolist()))
    view.done()
    result = agree(path, view)
    every_method(view, path)
    view.page.select_option("#method", "saliency/image")
    names = view.page.get_by_label("Class", exact=True).locator("option").all_inner_texts()
    order = np.argsort(-result["scores"].array[0])[:2]
    assert names == [["ant", "bee", "cow", "dog"][i] for i in order]
    view.page.select_option("#method", "rather")
    assert "the highest class rather than" in view.page.locator("#explanations").inner_text()
    view.page.select_option("#method", "integrated_gradients/image")
    assert "missing to completeness" in view.page.locator("#explanations").inner_text()


def test_a_segmentation_with_a_region(shown, tmp_path):
    keras.utils.set_random_seed(7)
    x = keras.Input((9, 6, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.Conv2D(3, 1, activation="softmax", name="pixels")(y)
    probes = [pg.GradCAM("conv", target="input", region="input")]
    names = ["sky", "sea", "land"]
    path = compiled(tmp_path, keras.Model(x, y), probes, class_names=names)
    view = shown(path)
    numbers(view, models.images((9, 6, 3), seed=2)[0])
    view.done()
    assert view.arrays("feeds")["region"].shape[0] == 1
    agree(path, view)
    every_method(view, path)
    assert {*view.page.locator(".legend li").all_inner_texts()} <= {*names}


def test_the_best_classes_at_each_position_and_of_a_layer(shown, tmp_path):
    keras.utils.set_random_seed(13)
    x = keras.Input((5, 4, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.Conv2D(3, 1, activation="softmax", name="pixels")(y)
    probes = [
        pg.InputGradient(target="top:2"),
        pg.InputGradient(of="conv", target=[2, 0], name="channels"),
    ]
    path = compiled(tmp_path, keras.Model(x, y), probes)
    view = shown(path)
    numbers(view, models.images((5, 4, 3), seed=5)[0])
    view.done()
    agree(path, view)
    every_method(view, path)


def test_a_single_score_is_that_of_the_second_class(shown, tmp_path):
    keras.utils.set_random_seed(14)
    x = keras.Input((4,), name="x")
    y = layers.Dense(1, activation="sigmoid", bias_initializer=keras.initializers.Constant(-2.0))(x)
    probes = [pg.GradientXInput(target="input")]
    path = compiled(tmp_path, keras.Model(x, y), probes, class_names=["bad", "good"])
    view = shown(path)
    view.page.get_by_label("feature 0").fill("0.5")
    view.page.keyboard.press("Tab")
    view.done()
    agree(path, view)
    assert view.page.locator("#target option").all_inner_texts()[1:] == ["good (0)"]
    said = view.page.locator("#explanations").inner_text()
    assert "predicted bad" in said
    assert "explained: good" in said


def test_groups_of_a_grid(shown, tmp_path):
    keras.utils.set_random_seed(8)
    x = keras.Input((10, 7, 1), name="image")
    y = layers.Dense(3, activation="softmax", name="scores")(layers.Flatten()(x))
    probes = [pg.FeatureAblation(groups="input"), pg.Occlusion(window=3)]
    path = compiled(tmp_path, keras.Model(x, y), probes)
    view = shown(path)
    numbers(view, models.images((10, 7, 1), seed=3)[0])
    view.done()
    groups = view.arrays("feeds")["groups"]
    loaded = runtime.load(path)
    right = loaded.run({"image": view.arrays("feeds")["image"]}, groups=groups)
    found = view.arrays("outputs")["feature_ablation/image"]
    np.testing.assert_allclose(found, right["feature_ablation/image"].array, atol=1e-6)
    assert groups.max() + 1 == np.unique(groups).size > 10
    every_method(view, path)


def test_states_and_every_layer_of_attention(shown, tmp_path):
    keras.utils.set_random_seed(9)
    x = keras.Input((None, 3), name="steps")
    y = layers.LSTM(4, return_sequences=True, name="lstm")(x)
    y = layers.MultiHeadAttention(2, 3, name="one")(y, y)
    y = layers.MultiHeadAttention(2, 3, name="two")(y, y)
    y = layers.Dense(2, name="next")(y)
    probes = [pg.Attention(stack=True), pg.Attention("two", reduce="heads", name="mean")]
    path = compiled(tmp_path, keras.Model(x, y), probes, states="io")
    view = shown(path)
    rows = np.round(models.images((6, 3), seed=4)[0], 3)
    view.page.get_by_label("Paste the series").fill("\n".join(",".join(map(str, r)) for r in rows))
    view.page.keyboard.press("Tab")
    view.done()
    agree(path, view)
    every_method(view, path)
    assert view.page.locator("#predictions svg, #predictions canvas").count() == 1


def test_a_volume_and_a_fixed_batch(shown, tmp_path):
    keras.utils.set_random_seed(10)
    x = keras.Input((5, 6, 4, 1), name="scan", batch_size=2)
    y = layers.Conv3D(3, 2, activation="relu", name="conv")(x)
    y = layers.Dense(2, activation="softmax", name="scores")(layers.GlobalAveragePooling3D()(y))
    probes = [pg.InputGradient(), pg.Activations("conv")]
    path = compiled(tmp_path, keras.Model(x, y), probes, dynamic_batch=False, gate=False)
    view = shown(path, "file")
    view.page.get_by_label("Numbers", exact=True).fill(str(models.images((5, 6, 4, 1))[0].tolist()))
    view.done()
    assert view.arrays("feeds")["scan"].shape == (2, 5, 6, 4, 1)
    agree(path, view)
    every_method(view, path)


def test_stopping(shown, tmp_path):
    """A run that takes long ends when it is told to; the next one starts anew."""
    keras.utils.set_random_seed(11)
    x = keras.Input((64, 64, 3), name="image")
    y = layers.Conv2D(64, 7, padding="same", activation="relu", name="conv")(x)
    y = layers.Dense(2, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(y))
    path = compiled(tmp_path, keras.Model(x, y), [pg.IntegratedGradients(400)])
    view = shown(path, "single")
    page = view.page
    page.get_by_label("Run when something changes").uncheck()
    page.locator("canvas.pad").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("() => /^Running/.test(document.getElementById('status').textContent)")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_function("() => document.getElementById('status').textContent === 'Stopped.'")
    page.get_by_label("With explanations").uncheck()
    view.run()
    assert view.arrays("outputs")["scores"].shape == (1, 2)
