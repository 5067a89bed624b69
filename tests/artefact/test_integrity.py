"""Digests: a bit that is other than it was written is found, wherever it is."""

import shutil
import subprocess

import keras
import numpy as np
import onnx
import onnx.parser
import pytest

import probegen as pg
from probegen import runtime
from probegen.artefact import integrity, weights_file
from probegen.errors import ArtefactError
from probegen.runtime.certified import ChangedArtefactWarning
from tests import models


def small(seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((7, 5), name="x")
    y = keras.layers.Dense(11, activation="tanh", name="inner")(keras.layers.Flatten()(x))
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="kind")(y), name="small")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One artefact of each form; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    probed = pg.instrument(small(), pg.InputGradient())
    return {
        "onnx": pg.export(probed, folder / "one.onnx").path,
        "data": pg.export(probed, folder / "two.onnx", external_data=True, verify=False).path,
        "savedmodel": pg.export(probed, folder / "saved", verify=False).path,
    }


def copy_of(path, folder):
    if path.is_dir():
        return shutil.copytree(path, folder / path.name)
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, folder / file.name)
    return folder / path.name


@pytest.mark.parametrize("form", ["onnx", "data", "savedmodel"])
def test_what_was_written_passes(made, form):
    art = runtime.load(made[form], check=True)
    assert art.run(models.images((7, 5)))["kind"].shape == (3, 3)


def test_every_byte_of_one_file_is_covered(made, tmp_path):
    data = made["onnx"].read_bytes()
    path = tmp_path / "flipped.onnx"
    rng = np.random.default_rng(2)
    places = {0, 1, len(data) - 1, *rng.integers(0, len(data), 300).tolist()}
    for place in sorted(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ArtefactError):
            integrity.check(path)


def test_a_flipped_weight_leaves_no_certificate(made, tmp_path):
    """The kind of damage that nothing else can see: the graph is as valid as before."""
    path = copy_of(made["onnx"], tmp_path)
    weights = onnx.numpy_helper.to_array(
        max(onnx.load(path).graph.initializer, key=lambda t: len(t.raw_data))
    )
    data = bytearray(path.read_bytes())
    data[data.index(weights.tobytes()) + 4 * 10 + 3] ^= 1  # the exponent of an element
    path.write_bytes(data)
    with pytest.warns(ChangedArtefactWarning, match=r"one\.onnx' is not as probegen wrote it"):
        assert runtime.load(path).manifest.certificate is None
    assert runtime.load(path, check=False).manifest.certificate["passed"]
    with pytest.raises(ArtefactError, match=r"one\.onnx' is not as probegen wrote it: the SHA-256"):
        runtime.load(path, check=True)


def test_what_was_seen_of_other_weights_is_no_reference(tmp_path):
    path, samples = tmp_path / "m.onnx", models.images((7, 5), count=40)
    pg.compile(small(), pg.InputGradient(), path, reference=samples, verify=False)
    assert runtime.load(path).manifest.reference is not None
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    other = onnx.numpy_helper.to_array(weights) * np.float32(1.5)
    weights.CopyFrom(onnx.numpy_helper.from_array(other, weights.name))
    onnx.save(model, path)
    with pytest.warns(ChangedArtefactWarning):
        assert runtime.load(path).manifest.reference is None


def test_every_byte_of_the_data_file_is_covered(made, tmp_path):
    path = copy_of(made["data"], tmp_path)
    file = weights_file.data_path(path)
    data = file.read_bytes()
    rng = np.random.default_rng(2)
    for place in {0, 99, weights_file.HEADER_BYTES - 1, *rng.integers(0, len(data), 60).tolist()}:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        with pytest.raises(ArtefactError):
            runtime.load(path, check=True)


def test_every_file_of_a_savedmodel_is_covered(made, tmp_path):
    path = copy_of(made["savedmodel"], tmp_path)
    rng = np.random.default_rng(2)
    files = [p for p in path.rglob("*") if p.is_file()]
    assert len(files) >= 5
    for file in files:
        data = file.read_bytes()
        for place in rng.integers(0, len(data), 20) if data else ():
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(ArtefactError):
                integrity.check(path)
        file.unlink()
        with pytest.raises(ArtefactError):
            integrity.check(path)
        file.write_bytes(data)
    (path / "variables" / "variables.data-00001-of-00002").write_bytes(b"more")
    with pytest.raises(ArtefactError, match="not among those that it was written with"):
        integrity.check(path)


def test_names_that_reach_outside_are_refused(made, tmp_path):
    path = copy_of(made["savedmodel"], tmp_path)
    place = path / integrity.SAVEDMODEL_DIGESTS
    place.write_text(place.read_text() + f"{'a' * 64}  ../secret\n")
    with pytest.raises(ArtefactError, match="is damaged"):
        integrity.check(path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_list_is_one_that_sha256sum_reads(made):
    subprocess.run(
        ["sha256sum", "--check", "--strict", integrity.SAVEDMODEL_DIGESTS],
        cwd=made["savedmodel"], check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["onnx", "savedmodel"])
def test_without_a_digest_nothing_can_be_said(made, tmp_path, form):
    path = copy_of(made[form], tmp_path)
    if form == "onnx":
        model = onnx.load(path)
        kept = [p for p in model.metadata_props if p.key != integrity.METADATA_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, path)
    else:
        (path / integrity.SAVEDMODEL_DIGESTS).unlink()
    assert runtime.load(path).outputs
    with pytest.raises(ArtefactError, match="holds no digest of its contents"):
        runtime.load(path, check=True)


def test_a_model_that_is_no_artefact(tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17]>
      plain (float[n, 4] x) => (float[n, 4] y) { y = Tanh(x) }""")
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(ArtefactError, match="neither a manifest nor a digest") as refused:
        runtime.verify(tmp_path / "plain.onnx")
    assert "check=True" not in str(refused.value)


def test_another_program_that_writes_the_file_anew_is_told(made, tmp_path):
    model = onnx.load(made["onnx"])
    model.doc_string = "mine"
    onnx.save(model, tmp_path / "m.onnx")
    assert runtime.load(tmp_path / "m.onnx").outputs
    with pytest.raises(ArtefactError, match="changed by another program"):
        runtime.load(tmp_path / "m.onnx", check=True)
