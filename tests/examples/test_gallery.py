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


def test_the_catalogue_takes_the_first_subject_that_a_method_explains(gallery, tmp_path):
    catalogue = importlib.import_module("catalogue")

    def text():
        return gallery.text(epochs=1)

    def row():
        return gallery.row(epochs=1)

    folder = catalogue.main(tmp_path, (row, text), (pg.InputGradient, pg.Attention))
    pictures = {path.name: path.read_bytes()[:8] for path in folder.iterdir()}
    assert pictures == {"input_gradient.png": PNG, "attention.png": PNG}
    with pytest.raises(pg.ProbegenError, match=r"States has no picture: row: .*"):
        catalogue.main(tmp_path, (row,), (pg.States,))
