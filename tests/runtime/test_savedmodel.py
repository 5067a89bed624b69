"""SavedModel artefacts run through the same interface, with TensorFlow."""

import numpy as np
import pytest

from probegen import runtime
from probegen.artefact.manifest import SAVEDMODEL_ASSET
from probegen.errors import ArtefactError, InputError, ManifestError
from tests.runtime.support import SIZE, WEIGHTS, image_manifest, images

tf = pytest.importorskip("tensorflow")

IMAGE = tf.TensorSpec([None, 5, 7, 3], tf.float32, name="image")
TARGET = tf.TensorSpec([None], tf.int32, name="target")


class Zoo(tf.Module):
    """The linear classifier of `support.image_model`."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(WEIGHTS)

    def logits(self, image):
        return tf.reshape(image, [-1, SIZE]) @ self.weights

    @tf.function(input_signature=[IMAGE])
    def predict(self, image):
        return {"animal": tf.nn.softmax(self.logits(image))}

    @tf.function(input_signature=[IMAGE, TARGET])
    def explain(self, image, target):
        logits = self.logits(image)
        best = tf.argmax(logits, 1, tf.int32)
        rows = tf.gather(tf.transpose(self.weights), tf.where(target < 0, best, target))
        gradient = tf.reshape(rows, [-1, 5, 7, 3])
        return {
            "animal": tf.nn.softmax(logits),
            "input_gradient/image": gradient,
            "saliency/image": tf.reduce_max(tf.abs(gradient), 3),
        }


def save(path, manifest, signatures=("serving_default", "explain")):
    zoo = Zoo()
    both = {"serving_default": zoo.predict, "explain": zoo.explain}
    tf.saved_model.save(zoo, str(path), signatures={n: both[n] for n in signatures})
    if manifest is not None:
        (path / SAVEDMODEL_ASSET).parent.mkdir()
        (path / SAVEDMODEL_ASSET).write_text(manifest, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "zoo"
    return save(place, image_manifest(gate=False).to_json())


@pytest.fixture(scope="module")
def saved(folder):
    return runtime.load(folder)


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


def test_says_what_runs_it(saved):
    assert str(saved).startswith("zoo: zoo (TensorFlow)\n")


def test_foreign(tmp_path):
    save(tmp_path / "foreign", None)
    with pytest.raises(ArtefactError, match="was not made by probegen: it carries no manifest"):
        runtime.load(tmp_path / "foreign")


def test_newer_schema(tmp_path):
    newer = image_manifest(gate=False).to_json().replace('"schema": 2', '"schema": 7')
    save(tmp_path / "newer", newer)
    with pytest.raises(ManifestError, match="schema 7"):
        runtime.load(tmp_path / "newer")


def test_missing_signature(tmp_path):
    manifest = image_manifest(gate=False).to_json()
    save(tmp_path / "half", manifest, ["serving_default"])
    with pytest.raises(ArtefactError, match=r"lacks the signature 'explain' \(it has serving_def"):
        runtime.load(tmp_path / "half")


def test_damaged(folder, tmp_path):
    broken = tmp_path / "broken"
    (broken / "assets.extra").mkdir(parents=True)
    (broken / SAVEDMODEL_ASSET).write_bytes((folder / SAVEDMODEL_ASSET).read_bytes())
    (broken / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:500])
    with pytest.raises(ArtefactError, match=r"cannot load the SavedModel.*TensorFlow says"):
        runtime.load(broken)


def test_input_names_that_are_no_identifiers():
    from probegen.runtime.savedmodel_engine import _argument

    assert _argument("a/b-1", {"a_b_1": None}) == "a_b_1"
    assert _argument("1st", {"arg_1st": None}) == "arg_1st"
    assert _argument("a/b", {"a/b": None}) == "a/b"
