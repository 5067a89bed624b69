"""The gallery: a page with a card for each method, also for those that say why they cannot."""

import dataclasses
import importlib
from types import SimpleNamespace

import pytest

import probegen as pg
from probegen import methods

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def gallery():
    return importlib.import_module("gallery")


def test_a_page_with_a_card_for_each_method(gallery, tmp_path):
    def row():
        return gallery.row(epochs=2)

    chosen = (pg.LIME, pg.KernelSHAP, pg.GradCAM)
    folder = gallery.main(tmp_path, subjects=(row,), chosen=chosen)
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<article>") == 3
    for name in ("lime", "kernel_shap"):
        assert (folder / "row" / f"{name}.png").read_bytes().startswith(PNG)
        assert f'src="row/{name}.png"' in page
    assert "not here:" in page
    assert "GradCAM" in page or "Grad-CAM" in page


def test_an_image_has_its_best_input(gallery, tmp_path):
    def image():
        return gallery.image(epochs=1)

    folder = gallery.main(tmp_path, subjects=(image,), chosen=(pg.Saliency,))
    assert (folder / "image" / "maximise.png").read_bytes().startswith(PNG)
    assert "Activation maximisation" in (folder / "index.html").read_text("utf-8")


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_is_told_what_it_must_be(gallery, method):
    """A method with a new field that has no default needs a line in `fields`."""
    needed = {
        field.name
        for field in dataclasses.fields(method)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    layer = SimpleNamespace(output=SimpleNamespace(shape=(None, 3)))
    model = SimpleNamespace(get_layer=lambda _: layer)
    assert needed <= set(gallery.fields(model, "hidden", None))
