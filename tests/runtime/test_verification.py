"""`runtime.verify`: an artefact is asked again, without its source; every wrong answer shows."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.artefact import answers, integrity
from probegen.errors import ArtefactError, VerificationError
from probegen.runtime import verification
from tests import models

PROBES = [pg.Saliency(target="input"), pg.GradCAM(), pg.Activations("conv1")]


@pytest.fixture(scope="module")
def model():
    return models.cnn()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("verification") / "cnn.onnx"
    pg.compile(model, PROBES, place)
    return place


def changed(path, place, change):
    """Writes an artefact that another program has changed, with a digest that holds."""
    proto = onnx.load(path)
    change(proto)
    entry = next(p for p in proto.metadata_props if p.key == integrity.METADATA_KEY)
    entry.value = integrity.BLANK
    onnx.save(proto, place)
    integrity.seal(place)
    return place


def test_an_artefact_answers_as_it_did(path):
    report = runtime.verify(path)
    assert report.passed
    assert report.requests == 2
    assert list(report) == [o.name for o in runtime.load(path).outputs]
    assert all(d.samples for d in report.values())
    assert all(d.share < 0.01 for d in report.values())  # on the same machine
    told = json.loads(json.dumps(report.to_json()))
    assert told["passed"] is True
    assert len(told["sha256"]) == 64
    assert "agrees" in str(report)
    assert pg.verify(path)["scores"].passed


def test_another_engine_answers_the_same(path):
    report = runtime.verify(path, engine="openvino")
    assert "OpenVINO" in report.engine
    assert "onnxruntime" in report.answered_by
    assert 0 < max(d.share for d in report.values()) <= 1


@pytest.mark.parametrize("place", ["conv1", "scores"])
def test_a_changed_weight_is_found_though_the_digest_fits(path, tmp_path, place):
    def change(proto):
        held = [i for i in proto.graph.initializer if i.data_type == 1 and len(i.dims) > 1]
        kernel = min(held, key=lambda i: len(i.dims) * (1 if place == "scores" else -1))
        array = onnx.numpy_helper.to_array(kernel).copy()
        array.flat[1] += 0.05
        kernel.CopyFrom(onnx.numpy_helper.from_array(array, kernel.name))

    with pytest.raises(VerificationError, match="does not answer as it did") as caught:
        runtime.verify(changed(path, tmp_path / "m.onnx", change))
    assert not caught.value.report["scores"].passed


def test_a_file_written_anew_is_refused_unless_answers_alone_are_asked(path, tmp_path):
    onnx.save(onnx.load(path), tmp_path / "m.onnx")
    with (tmp_path / "m.onnx").open("ab") as file:  # a field that says nothing: doc_string ""
        file.write(b"\x32\x00")
    with pytest.raises(ArtefactError, match="not as probegen wrote it"):
        runtime.verify(tmp_path / "m.onnx")
    report = runtime.verify(tmp_path / "m.onnx", digests=False)
    assert report.passed
    assert report.digest is None


class Liar:
    """An engine that answers one output otherwise, with or without explanations."""

    def __init__(self, engine, name, lie, explain=None):
        self._engine, self._name, self._lie, self._explain = engine, name, lie, explain

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run(self, feeds, outputs):
        found = self._engine.run(feeds, outputs)
        if self._name in found and self._explain in (None, bool(feeds["explain"])):
            found[self._name] = self._lie(found[self._name])
        return found


def one_element(array):
    found = array.copy()
    found.flat[array.size // 2] += np.abs(array).max() * 0.05
    return found


LIES = {
    "turned": lambda a: -a,
    "scaled": lambda a: a * 1.01,
    "another sample": lambda a: a[::-1].copy(),
    "one element": one_element,
    "not a number": lambda a: np.where(a == a.flat[0], np.nan, a),
    "another shape": lambda a: a[:1],
    "another type": lambda a: a.astype(np.float64),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(
    ("output", "explain"),
    [("scores", True), ("scores", False), ("saliency/image", None), ("activation/conv1", None)],
)
def test_an_engine_that_is_wrong_is_found(path, monkeypatch, lie, output, explain):
    art = runtime.load(path)
    liar = dataclasses.replace(art, engine=Liar(art.engine, output, LIES[lie], explain))
    monkeypatch.setattr(verification, "load", lambda *_, **__: liar)
    report = verification.reproduce(path)
    assert [name for name, d in report.items() if not d.passed] == [output]
    with pytest.raises(VerificationError, match=f"'{output}'"):
        runtime.verify(path)


def test_large_outputs_are_kept_as_sketches(path):
    kept = {a.name: a for a in answers.answers_of(path).requests[0].answers}
    assert kept["scores"].sketch is None
    assert kept["activation/conv1"].sketch is not None
    assert runtime.verify(path)["activation/conv1"].compared == "whole, sketch"


def test_nothing_of_the_samples_of_a_user_is_kept(model, tmp_path):
    x = models.images((11, 8, 2)) * 3 + 40
    pg.compile(model, pg.Saliency(), tmp_path / "m.onnx", samples=x)
    (request, *_) = answers.answers_of(tmp_path / "m.onnx").requests
    (drawn,) = request.inputs
    assert (drawn.kind, drawn.low, drawn.high) == ("uniform", x.min(), x.max())
    assert not np.isin(drawn.array(), x).any()
    assert runtime.verify(tmp_path / "m.onnx").passed


@pytest.mark.parametrize("options", [{"answers": False}, {"verify": False}])
def test_an_artefact_may_keep_none(model, tmp_path, options):
    pg.compile(model, pg.Saliency(), tmp_path / "m.onnx", **options)
    report = runtime.verify(tmp_path / "m.onnx")
    assert (report.requests, len(report)) == (0, 0)
    assert report.digest
    assert "answers=False" in report.why


@pytest.mark.parametrize("form", ["gate=False", "gate='split'", "SavedModel"])
def test_all_forms_of_artefacts(model, tmp_path, form):
    place = tmp_path / ("saved" if form == "SavedModel" else "m.onnx")
    options = {"gate=False": {"gate": False}, "gate='split'": {"gate": "split"}}.get(form, {})
    pg.compile(model, [pg.InputGradient(target=1)], place, **options)
    report = runtime.verify(place)
    assert report.passed
    assert report.requests == 2
    kept = answers.answers_of(place)
    assert all(np.isfinite(answers.values_in(a)).all() for a in kept.requests[0].answers)


def test_open_sizes_are_asked_at_two(tmp_path):
    x = keras.Input((None, 3), name="series")
    y = keras.layers.Dense(2, name="scores")(keras.layers.GRU(4)(x))
    pg.compile(keras.Model(x, y), pg.InputGradient(), tmp_path / "m.onnx")
    first, second = answers.answers_of(tmp_path / "m.onnx").requests
    assert first.inputs[0].shape[0] != second.inputs[0].shape[0]
    assert first.inputs[0].shape[1] != second.inputs[0].shape[1]
    assert runtime.verify(tmp_path / "m.onnx").passed


def test_positions_of_equal_weights_are_not_compared(tmp_path):
    """Two tokens that are equal have equal weights, of which engines name either."""
    pg.compile(models.transformer(), pg.Attention("block_1/*", reduce="top:3"), tmp_path / "m.onnx")
    report = runtime.verify(tmp_path / "m.onnx", engine="openvino")
    keys = report["attention/block_1/mha/keys"]
    assert (keys.samples, keys.left_out, keys.verdict()) == (0, 3, "not compared: rounding decides")
    assert report["attention/block_1/mha"].samples == 3


def test_damaged_answers_are_an_error_of_ours(path, tmp_path):
    def cut(proto):
        entry = next(p for p in proto.metadata_props if p.key == answers.METADATA_KEY)
        entry.value = entry.value[:-30]

    with pytest.raises(ArtefactError, match="stored answers are damaged"):
        runtime.verify(changed(path, tmp_path / "m.onnx", cut))

    def vast(proto):
        entry = next(p for p in proto.metadata_props if p.key == answers.METADATA_KEY)
        entry.value = entry.value.replace("[2, 11, 8, 2]", "[2000000, 1100, 800, 2]")

    with pytest.raises(ArtefactError, match="stored request 'image' is damaged"):
        runtime.verify(changed(path, tmp_path / "n.onnx", vast))

    def short(proto):
        entry = next(p for p in proto.metadata_props if p.key == answers.METADATA_KEY)
        first, _, rest = entry.value.partition('"allowed": [')
        entry.value = f'{first}"allowed": [1.0, {rest}'

    with pytest.raises(ArtefactError, match="stored answer 'scores' is damaged: it has 3 limits"):
        runtime.verify(changed(path, tmp_path / "o.onnx", short))


ALONE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
from probegen import runtime
print(runtime.verify(sys.argv[1]).passed)
"""


def test_neither_tensorflow_nor_onnx_is_needed(path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
