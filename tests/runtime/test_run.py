"""Running: numbers, targets, the gate, batches, threads, and results on disk."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from probegen import runtime
from probegen.errors import ArtefactError, InputError
from tests.runtime.support import NAMES, WEIGHTS, images, result_of


def gradient_of(classes):
    return WEIGHTS.T[classes].reshape(-1, 5, 7, 3)


def test_numbers_and_names(artefact):
    x = images(3)
    result = artefact.run(x)
    logits = x.reshape(3, -1) @ WEIGHTS
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        result["animal"].array, shares / shares.sum(1, keepdims=True), rtol=1e-5
    )
    gradient = gradient_of(logits.argmax(1))
    np.testing.assert_array_equal(result["input_gradient/image"], gradient)
    np.testing.assert_array_equal(result["saliency/image"], np.abs(gradient).max(-1))
    assert list(result) == ["animal", "input_gradient/image", "saliency/image"]
    assert list(result.predictions) == ["animal"]
    assert list(result.explanations) == ["input_gradient/image", "saliency/image"]


def test_record_is_decoded(artefact):
    record = artefact.run(images(2))["saliency/image"]
    assert record.name == "saliency/image"
    assert record.kind == "saliency"
    assert record.axes == ("batch", "height", "width")
    assert record.shape == (2, 5, 7)
    assert record.dtype == np.float32
    assert record.layer is None
    assert record.spec == artefact.manifest.output("saliency/image")
    assert repr(record) == (
        "<Record 'saliency/image': saliency, float32 [batch=2, height=5, width=7]>"
    )
    assert np.asarray(record, dtype=np.float64).dtype == np.float64
    assert np.shares_memory(np.asarray(record), record.array)


def test_result_prints_and_names_the_nearest(artefact):
    result = artefact.run(images(2))
    assert "[batch=2, height=5, width=7]" in repr(result)
    with pytest.raises(KeyError, match=r"no output 'saliency/imag'. Did you mean 'saliency/image'"):
        result["saliency/imag"]


def test_result_remembers_what_was_run(artefact):
    x = images(2)
    result = artefact.run(x, target="cat")
    np.testing.assert_array_equal(result.run.inputs["image"], x)
    np.testing.assert_array_equal(result.run.target, [2, 2])


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (2, [2, 2, 2]),
        (np.int64(3), [3, 3, 3]),
        (np.array(1), [1, 1, 1]),
        ("dog", [3, 3, 3]),
        ([0, 1, 3], [0, 1, 3]),
        (np.array([3, 0, 1], np.int16), [3, 0, 1]),
        (["cat", 0, "ant"], [2, 0, 0]),
    ],
)
def test_target(artefact, target, classes):
    result = artefact.run(images(3), target=target)
    np.testing.assert_array_equal(result["input_gradient/image"], gradient_of(classes))


@pytest.mark.parametrize("target", [None, -1, [-1, -1, -1], "argmax", [-1, "argmax", -1]])
def test_target_argmax(artefact, target):
    x = images(3)
    best = (x.reshape(3, -1) @ WEIGHTS).argmax(1)
    result = artefact.run(x, target=target)
    np.testing.assert_array_equal(result["input_gradient/image"], gradient_of(best))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "target 4 is out of range: legal are 0 to 3, or -1"),
        (-2, "target -2 is out of range"),
        ([0, 1, 7], "target 7 is out of range"),
        ([0, 1], "target has 2 entries for a batch of 3"),
        (1.0, "target 1.0 is a float; pass a class index"),
        (True, "target True is a bool"),
        ([0, 1, None], "target None is a NoneType"),
        ("beee", "there is no class 'beee'. Did you mean 'bee'"),
        ([[0], [1], [2]], r"target \[0\] is a list"),
    ],
)
def test_wrong_target(artefact, target, message):
    with pytest.raises(InputError, match=message):
        artefact.run(images(3), target=target)


def test_target_without_target_input(plain_artefact):
    with pytest.raises(InputError, match=r"fixed when the artefact was compiled.*target='input'"):
        plain_artefact.run(images(1), target=2)


def test_class_name_without_names(artefact):
    from probegen.runtime.target import check_target

    with pytest.raises(InputError, match="knows no class names; pass an index"):
        check_target("bee", artefact.manifest.replace(class_names=None), 1)


def test_gate(artefact):
    x = images(3)
    off = artefact.run(x, explain=False)
    assert list(off) == ["animal"]
    assert off.explanations == {}
    np.testing.assert_array_equal(off["animal"], artefact.run(x)["animal"].array)


def test_no_explanations_without_a_gate(plain_artefact):
    assert list(plain_artefact.run(images(3), explain=False)) == ["animal"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_batches(artefact, batch_size):
    x, target = images(5), [0, 3, -1, 1, 2]
    whole = artefact.run(x, target=target)
    parts = artefact.run_batched(x, batch_size, target=target)
    for name, record in whole.items():
        np.testing.assert_allclose(parts[name].array, record.array, rtol=1e-6)
    np.testing.assert_array_equal(parts.run.inputs["image"], x)


def test_wrong_batch_size(artefact):
    with pytest.raises(InputError, match="batch_size is 0; it must be 1 or more"):
        artefact.run_batched(images(2), 0)


def test_threads(artefact):
    batches = [images(1 + i % 4, seed=i) for i in range(40)]
    targets = [i % 4 for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(artefact.run, batches, targets))
    for x, target, result in zip(batches, targets, results, strict=True):
        expected = gradient_of([target] * len(x))
        np.testing.assert_array_equal(result["input_gradient/image"], expected)
        assert (
            result["animal"].array.argmax(1).tolist()
            == (x.reshape(len(x), -1) @ WEIGHTS).argmax(1).tolist()
        )


def test_check_finite(artefact):
    x = images(2)
    x[1, 0, 0, 2] = np.nan
    assert np.isnan(artefact.run(x)["animal"].array[1]).all()
    with pytest.raises(InputError, match=r"nan at \[1, 0, 0, 2\] is not finite"):
        artefact.run(x, check_finite=True)


def test_npz_round_trip(artefact, tmp_path):
    result = artefact.run(images(3), target=[0, 1, 2])
    path = result.to_npz(tmp_path / "out.npz")
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["saliency%2Fimage"], result["saliency/image"].array)
    back = runtime.read_npz(path)
    assert back.manifest == result.manifest
    assert list(back) == list(result)
    for name, record in result.items():
        np.testing.assert_array_equal(back[name].array, record.array)
    np.testing.assert_array_equal(back.run.inputs["image"], result.run.inputs["image"])
    np.testing.assert_array_equal(back.run.target, [0, 1, 2])
    assert list(tmp_path.iterdir()) == [path]


def test_npz_names_reach_nowhere(tmp_path):
    names = ["file", "../../up", "/abs", "@manifest", "a b\u00e9\\c", "..", "%2F"]
    axes = ("batch", "unit")
    outputs = {n: (np.full((1, 2), i), "prediction", axes, {}) for i, n in enumerate(names)}
    result = result_of({"x": (np.ones((1, 2)), axes, {})}, outputs)
    path = result.to_npz(tmp_path / "out.npz")
    with zipfile.ZipFile(path) as archive:
        assert not any(set("/\\ ") & set(member) for member in archive.namelist())
    back = runtime.read_npz(path)
    assert {n: int(r.array[0, 0]) for n, r in back.items()} == dict(
        zip(names, range(7), strict=True)
    )
    assert back.run.target is None


def test_npz_that_is_none(tmp_path):
    with pytest.raises(ArtefactError, match="there is no file"):
        runtime.read_npz(tmp_path / "x.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ArtefactError, match=r"damaged or no .npz file"):
        runtime.read_npz(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ArtefactError, match=r"not written by Result\.to_npz"):
        runtime.read_npz(tmp_path / "other.npz")


def test_folder_must_exist(artefact, tmp_path):
    result = artefact.run(images(1))
    for write in (result.to_npz, result.to_html, result.plot):
        with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere' does not exist"):
            write(tmp_path / "nowhere" / "out.png")


def test_failed_write_leaves_what_was_there(tmp_path):
    from probegen.runtime.files import write_atomic

    path = tmp_path / "kept"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_class_names_are_the_manifest_s(artefact):
    assert artefact.manifest.class_names == NAMES


@pytest.mark.parametrize("explain", ["no", None, 2, [True, False]])
def test_what_says_neither_yes_nor_no(artefact, explain):
    """A text that says no would have counted as yes."""
    for run in (artefact.run, lambda x, **asked: artefact.run_batched(x, 2, **asked)):
        with pytest.raises(InputError, match="explain= takes True or False"):
            run(images(2), explain=explain)
