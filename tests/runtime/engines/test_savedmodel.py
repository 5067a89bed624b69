"""SavedModel artefacts run through the same interface, with TensorFlow."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from probegen import runtime
from probegen.artefact.manifest import SAVEDMODEL_ASSET
from probegen.errors import ArtefactError, InputError, ManifestError
from tests.runtime.support import images

tf = pytest.importorskip("tensorflow")


def copied(saved_path, place, manifest):
    """Copies a SavedModel with another text for its manifest, or with none."""
    shutil.copytree(saved_path, place)
    (place / SAVEDMODEL_ASSET).unlink()
    if manifest is not None:
        (place / SAVEDMODEL_ASSET).write_text(manifest, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def saved(saved_path):
    return runtime.load(saved_path)


@pytest.mark.parametrize("target", [None, "dog", [0, -1, 2]])
def test_agrees_with_onnx(saved, artefact, target):
    x = images(3)
    expected = artefact.run(x, target=target)
    result = saved.run(x, target=target)
    assert list(result) == list(expected)
    for name, record in expected.items():
        np.testing.assert_allclose(result[name].array, record.array, rtol=1e-5)


def test_predictions_alone(saved):
    result = saved.run(images(2), explain=False)
    assert list(result) == ["animal"]


def test_inputs_are_checked_alike(saved):
    with pytest.raises(InputError, match="batch axis: pass x"):
        saved.run(images(1)[0])
    with pytest.raises(InputError, match="target 9 is out of range"):
        saved.run(images(1), target=9)


def test_threads(saved):
    """Sizes, targets and both signatures at once: each gets what it gets alone."""
    requests = [
        {"x": images(1 + i % 4, seed=i), "target": i % 4, "explain": i % 3 > 0} for i in range(40)
    ]
    alone = [saved.run(**request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda request: saved.run(**request), requests))
    for expected, result in zip(alone, together, strict=True):
        assert list(result) == list(expected)
        for name, record in expected.items():
            np.testing.assert_array_equal(result[name].array, record.array)


def test_says_what_runs_it(saved):
    assert str(saved).startswith("zoo: zoo (TensorFlow)\n")


def test_foreign(saved_path, tmp_path):
    with pytest.raises(ArtefactError, match="was not made by probegen: it carries no manifest"):
        runtime.load(copied(saved_path, tmp_path / "foreign", None))


def test_newer_schema(saved, tmp_path):
    newer = json.dumps({**json.loads(saved.manifest.to_json()), "schema": 99})
    with pytest.raises(ManifestError, match="schema 99"):
        runtime.load(copied(saved.path, tmp_path / "newer", newer))


def test_missing_signature(saved, tmp_path):
    class Half(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 5, 7, 3], tf.float32, name="image")])
        def predict(self, image):
            return {"animal": tf.reduce_mean(image, (1, 2))}

    half = Half()
    tf.saved_model.save(half, str(tmp_path), signatures={"serving_default": half.predict})
    (tmp_path / SAVEDMODEL_ASSET).parent.mkdir()
    (tmp_path / SAVEDMODEL_ASSET).write_text(saved.manifest.to_json(), encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"lacks the signature 'explain' \(it has serving_def"):
        runtime.load(tmp_path)


def test_a_manifest_of_other_signatures(saved, tmp_path):
    manifest = saved.manifest
    inputs = (dataclasses.replace(manifest.inputs[0], shape=(None, 7, 5, 3)),)
    text = manifest.replace(inputs=inputs).to_json()
    with pytest.raises(ArtefactError, match=r"has the shape \[\?, 7, 5, 3\]; in its graph it has "):
        runtime.load(copied(saved.path, tmp_path / "turned", text))
    text = manifest.replace(target_input=False).to_json()
    with pytest.raises(ArtefactError, match="needs the input 'target', which its manifest does"):
        runtime.load(copied(saved.path, tmp_path / "untargeted", text))


def test_damaged(saved_path, tmp_path):
    broken = copied(saved_path, tmp_path / "broken", "{}")
    graph = broken / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:500])
    with pytest.raises(ArtefactError, match=r"cannot load the SavedModel.*TensorFlow says"):
        runtime.load(broken)


def test_input_names_that_are_no_identifiers():
    from probegen.runtime.engines.savedmodel import _argument

    assert _argument("a/b-1", {"a_b_1": None}) == "a_b_1"
    assert _argument("1st", {"arg_1st": None}) == "arg_1st"
    assert _argument("a/b", {"a/b": None}) == "a/b"


def test_saved_model_cli_needs_the_folders_of_the_outputs(saved, saved_path, tmp_path):
    """It writes a file an output, by the output's name, and makes no folders (docs/USE.md)."""
    from tensorflow.python.tools.saved_model_cli import run_saved_model_with_feed_dict

    x, target = images(3), np.array([2, -1, 0], np.int32)
    feeds = {"image": x, "target": target}

    def run(folder):
        arguments = ("serve", "explain", feeds, str(folder), True)
        run_saved_model_with_feed_dict(str(saved_path), *arguments)

    with pytest.raises(FileNotFoundError):
        run(tmp_path / "without")
    kinds = {o.name.rpartition("/")[0] for o in saved.outputs}
    for kind in kinds:
        (tmp_path / "with" / kind).mkdir(parents=True, exist_ok=True)
    run(tmp_path / "with")
    for name, record in saved.run(x, target=target).items():
        written = np.load(tmp_path / "with" / f"{name}.npy")
        np.testing.assert_allclose(written, record.array, rtol=1e-6)
