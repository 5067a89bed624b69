"""Pictures of predictions and of whole results, and what a caller may ask wrongly."""

import numpy as np
import pytest

from probegen.errors import InputError
from tests.runtime.figures import axes_of, image_result, texts_of, titled
from tests.runtime.support import result_of

RNG = np.random.default_rng(5)
TABLE = ("batch", "feature")
CLASS = ("batch", "class")


# -- predictions ---------------------------------------------------------------------------------


def prediction(array, axes=CLASS, **changes):
    x = np.ones((len(array), 3), np.float32)
    return result_of({"x": (x, TABLE, {})}, {"it": (array, "prediction", axes, {})}, **changes)[
        "it"
    ]


def test_top_classes():
    scores = RNG.dirichlet(np.ones(30), size=1)
    names = tuple(f"c{i}" for i in range(30))
    (ax,) = axes_of(prediction(scores, class_names=names).plot(top=4))
    order = np.argsort(-scores[0])[:4]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"c{i}" for i in order]
    np.testing.assert_allclose([p.get_width() for p in ax.patches], scores[0][order], rtol=1e-5)
    assert ax.get_xlabel() == "probability"


def test_other_predictions():
    assert "12.5" in texts_of(prediction([[12.5]], ("batch", "unit")).plot())
    assert {"no", "yes"} <= set(
        texts_of(prediction([[0.8]], ("batch", "unit"), class_names=("no", "yes")).plot())
    )
    vector = RNG.normal(size=(1, 9)) * 10
    (ax,) = axes_of(prediction(vector, ("batch", "unit")).plot())
    np.testing.assert_allclose([p.get_height() for p in ax.patches], vector[0], rtol=1e-5)
    line = RNG.normal(size=(1, 9, 2))
    (ax,) = axes_of(prediction(line, ("batch", "step", "unit")).plot())
    np.testing.assert_allclose([v.get_ydata() for v in ax.lines], line[0].T, rtol=1e-5)


# -- what a caller may ask wrongly ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2,), {}, "no sample 2: the batch has 2, 0 to 1"),
        ((-3,), {}, "no sample -3"),
        (("it.png",), {}, "sample= takes the number of a row, got 'it.png'"),
        ((0,), {"tokens": 5}, "tokens is 5; it must be a list"),
        ((0,), {"feature_names": {"image": ["a"]}}, "names features of .image., which has none"),
        ((0,), {"class_names": 5}, "class_names is 5; it must be a list"),
        ((0,), {"token": ["a"]}, "unknown plot option 'token'. Did you mean 'tokens'"),
        ((0,), {"class_names": list("abcde")}, "class_names has 5 entries, but no prediction has"),
        ((0,), {"feature_names": ["a"] * 5}, "feature_names has 5 entries, and no input has"),
        ((0,), {"tokens": ["a"] * 12}, "tokens has 12 entries, but the longest sequence"),
        ((0,), {"tokens": "abc"}, "tokens is one string; pass a list"),
        ((0,), {"tokens": [["a"]]}, "tokens has lists for 1 sample of a batch of 2"),
        ((0,), {"max_panels": 0}, "max_panels is 0; it must be 1 or more"),
        ((0,), {"image": np.ones(4)}, r"image has the shape \(4,\)"),
    ],
)
def test_wrong_options(arguments, options, message):
    record = image_result(RNG.random((2, 6, 9)))["it"]
    with pytest.raises(InputError, match=message):
        record.plot(*arguments, **options)


def test_negative_samples_count_from_the_end():
    heat = RNG.random((2, 6, 9))
    figure = image_result(heat)["it"].plot(-1)
    np.testing.assert_allclose(titled(figure, "Saliency").images[0].get_array(), heat[1], atol=1e-6)


# -- whole results -------------------------------------------------------------------------------


def test_overview_has_every_output(artefact, tmp_path):
    result = artefact.run(np.ones((1, 5, 7, 3)), target="cat")
    figure = result.plot(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    texts = texts_of(figure)
    assert "Prediction: animal" in texts
    assert any(t.startswith("Saliency: image \u2014 predicted") for t in texts)
    shorter = result.plot(max_outputs=1)
    assert "not shown: input_gradient/image, saliency/image" in texts_of(shorter)


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_formats(artefact, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    artefact.run(np.ones((1, 5, 7, 3)), explain=False).plot(path)
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out", "out.pgn"])
def test_unknown_format(artefact, tmp_path, name):
    result = artefact.run(np.ones((1, 5, 7, 3)), explain=False)
    with pytest.raises(InputError, match="is no picture format"):
        result.plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_figures_show_in_notebooks(artefact):
    figure = artefact.run(np.ones((1, 5, 7, 3)))["animal"].plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
