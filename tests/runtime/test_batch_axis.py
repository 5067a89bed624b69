"""Results whose samples lie along another axis than the first, or along none."""

import numpy as np
import pytest

from probegen import runtime
from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.errors import ArtefactError, InputError
from probegen.runtime.classes import chosen_classes
from probegen.runtime.read import read_input
from tests.runtime.figures import axes_of, says, texts_of
from tests.runtime.support import result_of
from tests.runtime.test_read import artefact_of

RNG = np.random.default_rng(21)
TIME_FIRST = ("time", "batch", "feature")
STEPS, ROWS = 11, 4


@pytest.fixture(scope="module")
def result():
    """A recurrent model of `[time, batch, feature]` with a state and a rate that has no batch."""
    return result_of(
        {
            "x": (RNG.normal(size=(STEPS, ROWS, 1)), TIME_FIRST, {}),
            "rate": (np.array([8.0]), ("rate",), {}),
        },
        {
            "y": (RNG.dirichlet(np.ones(3), ROWS).T, "prediction", ("class", "batch"), {}),
            "saliency/x": (RNG.random((STEPS, ROWS, 1)), "saliency", TIME_FIRST, {"input": "x"}),
            "state": (RNG.normal(size=(2, ROWS, 5)), "activation", ("layer", "batch", "unit"), {}),
            "bias": (RNG.normal(size=6), "activation", ("unit",), {}),
        },
        class_names=("ant", "bee", "cat"),
    )


@pytest.mark.parametrize("sample", [0, 3, -1])
def test_one_sample_is_drawn(result, sample):
    line, bars = axes_of(result["saliency/x"].plot(sample))
    np.testing.assert_allclose(
        line.lines[0].get_ydata(), result.run.inputs["x"][:, sample, 0], rtol=1e-6
    )
    heights = [p.get_height() for p in bars.patches]
    np.testing.assert_allclose(heights, result["saliency/x"].array[:, sample, 0], rtol=1e-6)
    best = ("ant", "bee", "cat")[result["y"].array[:, sample].argmax()]
    assert says(result["saliency/x"].plot(sample), f"predicted {best}")


def test_what_has_no_batch_is_drawn_for_every_sample(result):
    for sample in (0, 3):
        (ax,) = axes_of(result["bias"].plot(sample))
        heights = [p.get_height() for p in ax.patches]
        np.testing.assert_allclose(heights, result["bias"].array, rtol=1e-6)
    with pytest.raises(InputError, match="no sample 4: the batch has 4, 0 to 3"):
        result["bias"].plot(4)
    with pytest.raises(InputError, match="no sample 4: the batch has 4, 0 to 3"):
        result["state"].plot(4)


def test_classes_and_rows(result):
    assert result.run.rows == ROWS
    assert [c.index for c in chosen_classes(result["y"])] == result["y"].array.argmax(0).tolist()


def test_report_and_npz(result, tmp_path):
    page = result.to_html(tmp_path / "r.html", samples=9).read_text(encoding="utf-8")
    assert page.count('<h2 id="sample-') == ROWS
    back = runtime.read_npz(result.to_npz(tmp_path / "r.npz"))
    assert texts_of(back["state"].plot(3)) == texts_of(result["state"].plot(3))


def test_batch_sizes_of_a_damaged_result(tmp_path):
    inputs = {
        "a": (np.ones((3, 2, 1)), TIME_FIRST, {}),
        "b": (np.ones((2, 3)), ("batch", "feature"), {}),
    }
    outputs = {"y": (np.ones((2, 3)), "prediction", ("batch", "class"), {})}
    assert runtime.read_npz(result_of(inputs, outputs).to_npz(tmp_path / "r.npz")).run.rows == 2
    inputs["b"] = (np.ones((3, 3)), ("batch", "feature"), {})
    path = result_of(inputs, outputs).to_npz(tmp_path / "r.npz")
    with pytest.raises(ArtefactError, match=r"its inputs have the batch sizes \[2, 3\]"):
        runtime.read_npz(path)


def test_a_folder_is_joined_along_the_batch(tmp_path):
    manifest = artefact_of(InputSpec("x", "float32", (STEPS, None, 1), TIME_FIRST))
    x = RNG.normal(size=(STEPS, ROWS, 1)).astype(np.float32)
    np.save(tmp_path / "a.npy", x[:, :3])
    np.save(tmp_path / "b.npy", x[:, 3:])
    found = read_input(tmp_path, manifest)
    np.testing.assert_array_equal(found.feed, x)
    assert found.files == ("a.npy", "a.npy", "a.npy", "b.npy")
    np.save(tmp_path / "b.npy", x[:3])
    with pytest.raises(InputError, match=r"shapes \(3, 1\) and \(11, 1\)"):
        read_input(tmp_path, manifest)


def test_the_target_is_checked_against_the_batch_of_the_graph():
    from probegen.runtime.interface import expected_inputs

    manifest = artefact_of(
        InputSpec("rate", "float32", (1,), ("rate",)),
        InputSpec("x", "float32", (STEPS, 3, 1), TIME_FIRST),
        target_input=True,
        outputs=(OutputSpec("y", "prediction", "float32", (3, 2), ("batch", "class")),),
    )
    assert expected_inputs(manifest)[-1].shape == (3,)
