"""Artefacts of two graphs over one weights file: written, replaced, moved and opened as one."""

import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.artefact import explain_file, integrity
from probegen.artefact.explain_file import ExplainFile, explain_path
from probegen.errors import ArtefactError, ExportError, OutputExistsError, VerificationError
from probegen.graph import writing
from tests import models

FILES = ["m.explain.onnx", "m.onnx", "m.onnx.data"]
SHAPE = (11, 8, 2)
#: Baselines of 1.4 kB, which stand in the graph that explains alone.
BASELINES = np.linspace(-1, 1, 2 * np.prod(SHAPE)).reshape(2, *SHAPE)
PROBES = [
    pg.Saliency(target="input"),
    pg.GradCAM(),
    pg.IntegratedGradients(steps=2, baseline=BASELINES, name="between"),
]


def wide(seed=1):
    """Two weights, of 3.5 and 9 kB, are written apart."""
    keras.utils.set_random_seed(seed)
    x = keras.Input(SHAPE, name="image")
    y = layers.Conv2D(9, 3, activation="relu")(x)
    y = layers.Conv2D(11, 3, activation="relu", name="conv2")(y)
    y = layers.Dense(5, activation="tanh")(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(y), name="wide")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def probed():
    return {seed: pg.instrument(wide(seed), PROBES) for seed in (1, 2)}


@pytest.fixture(scope="module")
def made(probed, tmp_path_factory):
    """Two verified artefacts of one architecture; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    return {
        seed: pg.export(one, folder / str(seed) / "m.onnx", gate="split")
        for seed, one in probed.items()
    }


@pytest.fixture
def artefact(made, tmp_path):
    """A copy of one, to be broken."""
    shutil.copytree(made[1].path.parent, tmp_path / "copy")
    return tmp_path / "copy" / "m.onnx"


# -- writing -----------------------------------------------------------------------------------


def test_three_files_hold_one_artefact(made, probed):
    exported = made[1]
    assert names(exported.path.parent) == FILES
    assert (exported.explain.name, exported.data.name) == ("m.explain.onnx", "m.onnx.data")
    assert exported.report.passed
    art = runtime.load(exported.path, check=True)
    assert art.manifest.gate == "split"
    assert art.manifest.certificate["passed"]
    assert pg.verify(exported.path, probed[1].source).passed


def test_neither_graph_has_an_if_and_both_are_the_model_in_a_stock_runtime(made, probed):
    x = models.images(SHAPE)
    found = {}
    for path in (made[1].path, made[1].explain):
        onnx.checker.check_model(str(path), full_check=True)
        assert "If" not in {n.op_type for n in onnx.load(path).graph.node}
        session = onnxruntime.InferenceSession(path)
        feed = {"image": x, "target": np.array([0, 3, -1], np.int32)}
        taken = [i.name for i in session.get_inputs()]
        given = [o.name for o in session.get_outputs()]
        results = session.run(None, {name: feed[name] for name in taken})
        found[path.name] = (taken, dict(zip(given, results, strict=True)))
    taken, given = found["m.onnx"]
    assert (taken, list(given)) == (["image"], ["scores"])
    taken, more = found["m.explain.onnx"]
    assert taken == ["image", "target"]
    assert list(more) == ["scores", "saliency/image", "grad_cam/conv2", "between"]
    right = probed[1].source.predict(x, verbose=0)
    for one in (given, more):
        np.testing.assert_allclose(one["scores"], right, rtol=1e-5, atol=1e-7)


def test_large_weights_are_stored_once(made):
    places = []
    for path in (made[1].path, made[1].explain):
        proto = onnx.load(path, load_external_data=False)
        assert not [t for t in proto.graph.initializer if len(t.raw_data) >= 1024]
        apart = [t for t in proto.graph.initializer if t.external_data]
        places.append({tuple((e.key, e.value) for e in t.external_data) for t in apart})
    assert len(places[0]) == 2
    assert places[0] <= places[1]
    assert {dict(place)["location"] for place in places[1]} == {"m.onnx.data"}


def test_the_graph_that_explains_is_an_artefact_by_itself(made, probed):
    assert pg.verify(made[1].explain, probed[1].source).passed
    art = runtime.load(made[1].explain, check=True)
    assert art.manifest.gate is False
    assert art.manifest.target_input


def test_without_explanations_there_is_nothing_to_split(tmp_path):
    exported = pg.compile(wide(), [], tmp_path / "m.onnx", gate="split")
    assert names(tmp_path) == ["m.onnx"]
    assert (exported.manifest.gate, exported.explain) == (False, None)


def test_weights_inside_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"gate='split' .* external_data=False"):
        pg.compile(wide(), PROBES, tmp_path / "m.onnx", gate="split", external_data=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "second"),
    [("m.onnx", "m.explain.onnx"), ("a.b.ONNX", "a.b.explain.ONNX"), ("model", "model.explain")],
)
def test_names(tmp_path, name, second):
    assert explain_path(tmp_path / name).name == second


# -- verification ------------------------------------------------------------------------------


def test_a_wrong_graph_that_predicts_is_found(tmp_path, monkeypatch):
    """The verification runs both graphs."""

    def negated(*arguments):
        part = plain_graph(*arguments)
        softmax = next(n for n in part.graph if n.op_type == "Softmax")
        turned = ir.node("Neg", [softmax.inputs[0]])
        part.graph.insert_before(softmax, turned)
        softmax.replace_input_with(0, turned.outputs[0])
        return part

    plain_graph = writing.plain_graph
    monkeypatch.setattr(writing, "plain_graph", negated)
    with pytest.raises(VerificationError, match="does not agree with 'wide': 'scores'"):
        pg.compile(wide(), pg.Saliency(), tmp_path / "m.onnx", gate="split")
    assert names(tmp_path) == []


# -- integrity ---------------------------------------------------------------------------------


def test_every_byte_of_the_second_graph_is_covered(artefact):
    second = explain_path(artefact)
    data = second.read_bytes()
    rng = np.random.default_rng(3)
    for place in sorted({0, 1, len(data) - 1, *rng.integers(0, len(data), 120).tolist()}):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        second.write_bytes(flipped)
        with pytest.raises(ArtefactError):
            integrity.check(artefact)


def test_a_second_graph_that_is_missing_cut_short_or_of_another_build(artefact, made):
    second = explain_path(artefact)
    whole = second.read_bytes()
    second.unlink()
    with pytest.raises(ArtefactError, match=r"'m\.explain\.onnx', and there is no such file besid"):
        runtime.load(artefact)
    second.write_bytes(whole[:-900])
    with pytest.raises(ArtefactError, match=r"m\.explain\.onnx' was cut short"):
        runtime.load(artefact)
    shutil.copy(made[2].explain, second)
    with pytest.raises(ArtefactError, match=r"m\.explain\.onnx' is of another build"):
        runtime.load(artefact)


def test_a_second_graph_that_is_exchanged_after_loading(artefact, made):
    art = runtime.load(artefact)
    for path in (made[2].explain, made[2].data):
        shutil.copy(path, artefact.parent)
    x = models.images(SHAPE)
    assert art.run(x, explain=False)["scores"].shape == (3, 4)
    with pytest.raises(ArtefactError, match="of another build"):
        art.run(x)


def test_metadata_that_name_a_file_elsewhere(artefact, tmp_path):
    shutil.copy(explain_path(artefact), tmp_path / "other.onnx")
    for line in ("0" * 64 + "  ../other.onnx", "0" * 63 + "  other.onnx", "other.onnx"):
        with pytest.raises(ArtefactError, match="the name of a file beside the model"):
            ExplainFile.from_text(line)
    proto = onnx.load(artefact, load_external_data=False)
    for entry in proto.metadata_props:
        if entry.key == explain_file.METADATA_KEY:
            entry.value = entry.value[:64] + "  ../other.onnx"
    artefact.write_bytes(proto.SerializeToString())
    with pytest.raises(ArtefactError, match="the name of a file beside the model"):
        runtime.load(artefact)


def test_a_program_that_drops_the_metadata(artefact):
    proto = onnx.load(artefact, load_external_data=False)
    kept = [e for e in proto.metadata_props if e.key != explain_file.METADATA_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    artefact.write_bytes(proto.SerializeToString())
    with pytest.raises(ArtefactError, match="predicts and does not explain"):
        runtime.load(artefact)


# -- publishing --------------------------------------------------------------------------------


def test_what_replaces_it_and_what_it_replaces(made, probed, tmp_path):
    """An artefact of one file leaves no second graph behind, and finds nothing in its way."""
    path = tmp_path / "m.onnx"
    pg.export(probed[1], path, verify=False)
    assert names(tmp_path) == ["m.onnx"]
    for seed in (1, 2):
        pg.export(probed[seed], path, gate="split", verify=False)
        assert names(tmp_path) == FILES
        x = models.images(SHAPE)
        got = runtime.load(path, check=True).run(x)["saliency/image"].array
        expected = runtime.load(made[seed].path).run(x)["saliency/image"].array
        np.testing.assert_array_equal(got, expected)
    pg.export(probed[1], path, verify=False)
    assert names(tmp_path) == ["m.onnx"]
    assert runtime.load(path).manifest.gate == "required"


def test_a_file_of_somebody_else_is_in_the_way(probed, tmp_path):
    other = tmp_path / "m.explain.onnx"
    other.write_text("notes")
    with pytest.raises(OutputExistsError, match=r"the second graph of m\.onnx goes, exists and do"):
        pg.export(probed[1], tmp_path / "m.onnx", gate="split", verify=False)
    assert names(tmp_path) == ["m.explain.onnx"]
    assert other.read_text() == "notes"
    pg.export(probed[1], tmp_path / "m.onnx", verify=False)  # this one needs no such file
    assert other.read_text() == "notes"
    (tmp_path / "m.onnx").unlink()
    pg.export(probed[1], tmp_path / "m.onnx", gate="split", verify=False, overwrite=True)
    assert runtime.load(tmp_path / "m.onnx", check=True).manifest.gate == "split"


KILLED = """
import os, signal, sys
from pathlib import Path
from probegen.artefact import publishing
from probegen.artefact.publishing import aside, put
import shutil
source, final, moves = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rename, replace = os.rename, os.replace
left = [moves]
def counted(move):
    def act(*arguments):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        move(*arguments)
    return act
os.rename, os.replace = counted(rename), counted(replace)
with aside(final) as place:
    for path in source.parent.iterdir():
        shutil.copy(path, place.parent / path.name)
    put(place, final)
"""


@pytest.mark.parametrize("moves", range(7))
def test_a_process_that_is_killed_while_it_moves_files(made, tmp_path, moves):
    """Six moves replace three files. Whatever lies there, one build, whole, can be opened."""
    shutil.copytree(made[1].path.parent, tmp_path, dirs_exist_ok=True)
    final = tmp_path / "m.onnx"
    command = [sys.executable, "-c", KILLED, str(made[2].path), str(final), str(moves)]
    done = subprocess.run(command, check=False, env={**os.environ})
    assert done.returncode == (0 if moves == 6 else -signal.SIGKILL)
    x = models.images(SHAPE)
    expected = {
        seed: runtime.load(made[seed].path).run(x)["saliency/image"].array for seed in (1, 2)
    }
    got = runtime.load(final, check=True).run(x)["saliency/image"].array
    np.testing.assert_array_equal(got, expected[2 if moves == 6 else 1])
