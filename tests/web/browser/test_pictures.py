"""An image classifier in Chromium: pictures drawn, opened, dropped; by pointer and by keyboard."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import probegen as pg
from probegen import runtime
from probegen.runtime.read import read_input
from tests.web.browser.conftest import agree

pytest.importorskip("playwright.sync_api", reason="make test-web installs it")

NAMES = ["zero", "<b>one</b>", "two & two"]


def digits(channels=1, size=(14, 11)):
    keras.utils.set_random_seed(3)
    x = keras.Input((*size, channels), name="digit")
    y = layers.Conv2D(6, 3, activation="relu", padding="same", name="conv1")(x)
    y = layers.MaxPooling2D(2, name="pool")(y)
    y = layers.Conv2D(5, 3, activation="relu", name="conv2")(y)
    y = layers.GlobalAveragePooling2D(name="gap")(y)
    y = layers.Dense(len(NAMES), activation="softmax", name="scores")(y)
    return keras.Model(x, y, name="digits")


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "digits.onnx"
    probes = [
        pg.Saliency(target="input"),
        pg.GradCAM(target="input"),
        pg.IntegratedGradients(steps=6, target="input"),
        pg.InputGradient(target="all", name="each_class"),
        pg.Activations("conv1"),
    ]
    pg.compile(digits(), probes, path, class_names=NAMES, verify=False)
    return path


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    path = tmp_path_factory.mktemp("coloured") / "photos.onnx"
    preprocess = pg.ImageInput(scale=1 / 127.5, mean=1.0, fit="crop")
    probes = [pg.Saliency(), pg.GradCAM()]
    pg.compile(digits(3), probes, path, preprocess=preprocess, verify=False)
    return path


def draw(page):
    """A stroke by the pointer."""
    box = page.locator("canvas.pad").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 200, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("way", ["http", "file", "single"])
def test_a_drawing(way, grey, shown):
    """From a server, from the disk, and out of one file."""
    view = shown(grey, way, scale=1 / 255)
    draw(view.page)
    view.done()
    agree(grey, view)
    fed = view.arrays("feeds")["digit"]
    assert fed.shape == (1, 14, 11, 1)
    assert (fed.min(), 0.5 < fed.max() <= 1) == (0, True)
    view.screenshot(f"digits-{way}")


def test_every_method_of_every_class(grey, shown):
    """Numbers and pictures, and nothing of a name as HTML."""
    view = shown(grey, scale=1 / 255, title="digits <i>of ours</i>")
    page = view.page
    draw(page)
    view.done()
    for place in range(4):
        page.evaluate("() => { document.getElementById('status').textContent = ''; }")
        page.select_option("#target", index=place)
        view.done()
        assert view.arrays("feeds")["target"].tolist() == [place - 1]
        agree(grey, view)
        for spec in runtime.load(grey).manifest.explanations:
            page.select_option("#method", spec.name)
            card = page.locator(f"[data-output='{spec.name}']")
            assert card.locator("canvas").first.is_visible()
    assert page.locator("b, i:not([aria-hidden]):not(.bar i)").count() == 0
    assert page.locator("h1").inner_text() == "digits <i>of ours</i>"
    assert "<b>one</b>" in page.locator("#predictions").inner_text()


def test_colours_are_those_of_the_plot(grey, shown):
    """The map's pixels, against the scale that Python's picture has."""
    from probegen.runtime.plot import style

    view = shown(grey, scale=1 / 255)
    draw(view.page)
    view.done()
    result = agree(grey, view)
    name = "integrated_gradients/digit"
    view.page.select_option("#method", name)
    pixels = view.page.evaluate(
        "(name) => { const map = document.querySelectorAll(`[data-output='${name}'] canvas`)[1];"
        " const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
        " return Array.from(data); }",
        name,
    )
    heat = np.asarray(result[name].array, np.float64)[0, ..., 0]
    rgb = style.attribution_scale(heat, True, "inferno").rgb(heat)
    shown_rgb = np.reshape(pixels, (14, 11, 4))[..., :3]
    # Numbers of two engines may fall on two sides of a step between colours.
    assert np.abs(shown_rgb - 255 * rgb).max() <= 4


def test_a_file_is_read_as_by_the_runtime(grey, shown, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 27, 3)).astype(np.uint8)).save(tmp_path / "p.png")
    view = shown(grey, scale=1 / 255)
    view.page.get_by_label("Open a picture").set_input_files(tmp_path / "p.png")
    view.done()
    manifest = runtime.load(grey).manifest
    right = read_input(tmp_path / "p.png", manifest, scale=1 / 255).feed
    np.testing.assert_array_equal(view.arrays("feeds")["digit"], right)
    assert "resized 40\u00d727 to 14\u00d711" in view.page.locator("#notes").inner_text()
    agree(grey, view)


def test_bytes_of_any_size(coloured, shown, tmp_path):
    """Preprocessed in the graph: the picture goes in as it is."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (37, 52, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    view = shown(coloured)
    drop = (
        "async ([bytes, name]) => { const file = new File([Uint8Array.from(bytes)], name,"
        " { type: 'image/png' }); const data = new DataTransfer(); data.items.add(file);"
        " document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true })); }"
    )
    view.page.evaluate(drop, [list((tmp_path / "p.png").read_bytes()), "p.png"])
    view.done()
    np.testing.assert_array_equal(view.arrays("feeds")["digit"], pixels[np.newaxis])
    agree(coloured, view)
    view.page.evaluate(drop, [[1, 2, 3], "p.pdf"])
    assert "takes no such file" in view.problem() or "no picture" in view.problem()


def test_by_keyboard_alone(grey, shown):
    """Draws, runs, chooses class and method, and enlarges a channel."""
    view = shown(grey, scale=1 / 255)
    page = view.page
    page.locator("canvas.pad").focus()
    page.keyboard.press("Space")
    for key in ["ArrowUp"] * 8 + ["ArrowRight"] * 6:
        page.keyboard.press(key)
    page.keyboard.press("Space")
    view.done()
    assert view.arrays("feeds")["digit"].max() > 0.5
    seen = []
    page.keyboard.press("Tab")
    for _ in range(40):
        seen.append(
            page.evaluate("() => document.activeElement.id || document.activeElement.tagName")
        )
        if seen[-1] == "method":
            break
        page.keyboard.press("Tab")
    assert {"target", "explain", "at-once", "method"} <= set(seen)
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("() => document.activeElement.value") == "activation/conv1"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("[aria-pressed='true']").get_attribute("aria-label") == "channel 1"
    page.locator("canvas.pad").focus()
    page.keyboard.press("Delete")
    page.get_by_role("button", name="Run", exact=True).click()
    assert "Draw something" in view.problem()


def test_without_explanations(grey, shown):
    view = shown(grey, scale=1 / 255)
    draw(view.page)
    view.done()
    view.page.evaluate("() => { document.getElementById('status').textContent = ''; }")
    view.page.get_by_label("With explanations").uncheck()
    view.done()
    found = view.arrays("outputs")
    assert found["saliency/digit"].shape[0] == 0
    assert found["scores"].shape == (1, 3)
    assert view.page.locator("#explanations").inner_text() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_light_and_dark_wide_and_narrow(scheme, width, grey, shown):
    view = shown(grey, scale=1 / 255, color_scheme=scheme, viewport={"width": width, "height": 844})
    draw(view.page)
    view.done()
    for spec in runtime.load(grey).manifest.explanations:
        view.page.select_option("#method", spec.name)
        view.screenshot(f"digits-{scheme}-{width}-{spec.kind}")
        view.is_legible()
