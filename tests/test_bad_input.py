"""What cannot work is answered with one clear error, and nothing is written.

Selectors, targets and gradients that cannot flow are refused in
`sources/keras/test_instrumented.py`, inputs and artefacts in `runtime/test_inputs.py` and
`runtime/test_load.py`.
"""

import os
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import helper

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import (
    ArtefactError,
    ExportError,
    InputError,
    InstrumentError,
    ManifestError,
    OutputExistsError,
    SelectionError,
    SourceError,
    SpecError,
    VerificationError,
    WriteError,
)
from probegen.graph.passes.after import write_out_doubles
from tests import models


def refused(tmp_path, error, says, source, probes=None, name="m.onnx", **options):
    """Compiles, expects the error, and that the folder is as it was."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=says):
        pg.compile(source, pg.Saliency() if probes is None else probes, tmp_path / name, **options)
    assert sorted(tmp_path.rglob("*")) == before


# -- sources -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("no.keras", None, "there is no model file"),
        ("text.keras", b"nonsense", "cut short or no model"),
        ("text.h5", b"nonsense", "Keras cannot load"),
        ("text.txt", b"nonsense", r"expected one of \.keras, \.h5, \.hdf5"),
        ("onnx.onnx", b"nonsense", "is no ONNX model, or the file is cut short"),
    ],
)
def test_paths_that_are_no_model(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(tmp_path, SourceError, says, tmp_path / name)


def test_truncated_model_files(tmp_path):
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        models.cnn().save(path)
        path.write_bytes(path.read_bytes()[:-3000])
        refused(tmp_path, SourceError, "Keras cannot load", path)


def test_unknown_classes_are_named(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x + 1

    x = keras.Input((3,), name="x")
    keras.Model(x, Mine(name="mine")(x)).save(tmp_path / "m.keras")
    refused(
        tmp_path,
        SourceError,
        r"Could not locate class 'Mine'\. If it holds classes of your own, import",
        tmp_path / "m.keras",
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: None, "got NoneType"),
        (lambda: keras.layers.Dense(3), "Wrap the layer in a model"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "not built"),
        (models.Subclassed, "not built"),
    ],
)
def test_what_is_no_built_model(tmp_path, make, says):
    refused(tmp_path, SourceError, says, make())


def test_instrumented_models_are_no_source(tmp_path):
    probed = pg.instrument(models.cnn(), pg.Saliency())
    refused(tmp_path, SourceError, "instrumented already; use its source", probed)
    probed.save(tmp_path / "p.keras")
    refused(tmp_path, SourceError, "instrumented already", tmp_path / "p.keras")


def test_calls_with_several_arguments(tmp_path):
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)

        def call(self, x, y, training=False):
            del training
            return self.head(x + y)

    model = Two()
    model(np.zeros((1, 4), "float32"), np.zeros((1, 4), "float32"))
    says = r"takes several arguments \(x, y\), of which Keras records the first"
    refused(tmp_path, SourceError, says, model)


@pytest.mark.parametrize("name", ["my layer", "head#1"])
def test_names_that_tensorflow_does_not_take(tmp_path, name):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name=name)(x))
    says = rf"the layer '{name}' .*rename the layer, layer.name = '{re.sub('[ #]', '_', name)}'"
    refused(tmp_path, InstrumentError, says, model)
    fresh = keras.layers.Dense(2, name="fresh")
    fresh.build((None, 4))
    assert fresh.kernel.path == "fresh/kernel"  # Keras stands where it stood
    model.layers[-1].name = re.sub("[ #]", "_", name)
    assert len(pg.inspect(model)) == 2


# -- probes and names ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probes", "error", "says"),
    [
        (pg.Saliency, SpecError, "expected a probe"),
        ([pg.Saliency], SpecError, r"Saliency is a class; write pg\.Saliency"),
        ([pg.Saliency(), "conv1"], SpecError, "'conv1' is no probe"),
        (pg.Activations("conv9"), SelectionError, "Did you mean"),
        (pg.Activations([]), SelectionError, "list of selectors is empty"),
        (pg.Activations(99), SelectionError, "index 99 is out of range; the model has 8 layers"),
        (pg.Activations("conv1#1"), SelectionError, "has the calls 'conv1#0'"),
        (pg.Activations(lambda point: point.role == "none"), SelectionError, "no layer matches"),
        (pg.Saliency(wrt=[]), SelectionError, "wrt= is an empty list"),
        (pg.Saliency(wrt="scores"), InstrumentError, "does not depend on layer 'scores'"),
        (pg.Saliency(target=4), InstrumentError, r"out of range.*\(0 to 3\)"),
        (pg.Saliency(target=(-5,)), InstrumentError, "out of range"),
        ([pg.Activations("conv*", name="a/conv1"), pg.Activations("conv1", name="a/conv1/conv1")],
         InstrumentError, "several outputs are called"),
        (pg.Activations("conv1", name="scores"), InstrumentError, "several outputs are called"),
        (pg.Activations("conv1", name="target"), InstrumentError, "'target' is reserved"),
        (pg.Activations("conv1", name="explain"), InstrumentError, "'explain' is reserved"),
        (pg.Activations("conv1", name="image"), ExportError, "of an input and of an output"),
    ],
)  # fmt: skip
def test_probes_that_do_not_fit(tmp_path, probes, error, says):
    refused(tmp_path, error, says, models.cnn(), probes)


def named_input(name):
    x = keras.Input((3,), name=name)
    return keras.Model(x, keras.layers.Dense(2, name="head")(x))


def test_inputs_called_as_ours(tmp_path):
    says = "'target', which target='input' needs"
    probe = pg.InputGradient(target="input", name="g")
    refused(tmp_path, InstrumentError, says, named_input("target"), probe)
    says = "'explain', which the gate needs.*gate=False"
    refused(tmp_path, ExportError, says, named_input("explain"), pg.InputGradient(name="g"))
    data = models.images((3,))
    for name, options in (("target", {}), ("explain", {"gate": False})):
        model, path = named_input(name), tmp_path / f"{name}.onnx"
        exported = pg.compile(model, pg.InputGradient(name="g"), path, **options)
        assert exported.report.passed
        probed = pg.instrument(model, pg.InputGradient(name="g"))
        np.testing.assert_array_equal(probed({name: data})["head"], model(data))


# -- places --------------------------------------------------------------------------------


def test_places_that_are_taken(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    model = models.cnn()
    refused(tmp_path, OutputExistsError, "overwrite=True", model, name="folder")
    refused(tmp_path, OutputExistsError, "file is a file; a SavedModel is a folder", model,
            name="file")  # fmt: skip
    refused(tmp_path, OutputExistsError, "folder is a folder; give the name of a file", model,
            name="folder", format="onnx")  # fmt: skip
    refused(tmp_path, OutputExistsError, "file is a file; no folder", model,
            name="file/deep/m.onnx")  # fmt: skip
    refused(tmp_path, ExportError, r"cannot write \.h5 files", model, name="m.h5")
    for typo in ("m.onx", "m.onnxx", "m.ONX", "m.kears"):
        says = rf"'{typo}' ends in .*: is 'm\.(onnx|keras)' meant\?.*--format savedmodel"
        refused(tmp_path, ExportError, says, model, name=typo)
    for names, says in (("abcd", "class_names takes a list"), (list("abca"), "has 'a' twice")):
        refused(tmp_path, InstrumentError, says, model, class_names=names)
    says = r"class_names\[1\] holds a control character"
    refused(
        tmp_path, ExportError, says, model, class_names=["a", "\x1b[31m", "c", "d"], verify=False
    )


def test_a_failure_leaves_no_folders_either(tmp_path):
    bad = models.images((11, 8, 3))
    refused(tmp_path, InputError, "expected 2", models.cnn(), name="new/deep/m.onnx", samples=bad)
    pg.compile(models.cnn(), pg.Activations("conv1"), tmp_path / "new" / "deep" / "m.onnx")
    assert [p.name for p in (tmp_path / "new" / "deep").iterdir()] == ["m.onnx"]


# -- artefacts -----------------------------------------------------------------------------


def float64_model():
    x = keras.Input((9, 8, 2), dtype="float64", name="x")
    y = keras.layers.Conv2D(4, 3, activation="gelu", dtype="float64", name="conv")(x)
    y = keras.layers.GlobalAveragePooling2D(dtype="float64")(y)
    return keras.Model(x, keras.layers.Dense(3, dtype="float64", name="head")(y))


def test_what_onnxruntime_cannot_run(tmp_path, monkeypatch):
    monkeypatch.setattr(write_out_doubles, "_WRITERS", {})  # which leave nothing that is known
    says = r"cannot be run here.*new\.onnx.*lacks an operator for this element type.*verify=False"
    refused(tmp_path, ExportError, says, float64_model(), name="new.onnx")
    monkeypatch.undo()
    probes = [pg.GradCAM(layer="conv"), pg.DeepLIFT()]  # through an error function of 150 nodes
    assert pg.compile(float64_model(), probes, tmp_path / "new.onnx").report.passed
    exported = pg.compile(float64_model(), pg.Saliency(), tmp_path / "saved")
    assert exported.report["saliency/x"].max_rel < 1e-12


def test_strings(tmp_path):
    x = keras.Input((), dtype="string", name="words")
    look = keras.layers.StringLookup(vocabulary=["a", "b"], name="lookup")
    y = keras.layers.Embedding(4, 3, name="embedding")(look(x))
    model = keras.Model(x, keras.layers.Dense(2)(y))
    probe = pg.InputGradient()
    exported = pg.compile(model, probe, tmp_path / "saved")
    assert exported.report is not None
    assert exported.report["input_gradient/words"].passed
    with pytest.raises(InputError, match="takes strings, got int 3"):
        runtime.load(tmp_path / "saved").run([3])


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (models.images((11, 8, 3)), "the size 3 on the axis 'channel'"),
        ({"im": models.images((11, 8, 2))}, "no input 'im'. Did you mean 'image'"),
        (models.images((11, 8, 2))[0], r"pass x\[np.newaxis\]"),
        (np.full((2, 11, 8, 2), "a"), "takes numbers and no text"),
    ],
)
@pytest.mark.parametrize("name", ["m.onnx", "saved"])
def test_samples_that_do_not_fit(tmp_path, samples, says, name):
    """They are refused before anything is converted, which may take minutes."""
    told = []
    refused(
        tmp_path, InputError, says, models.cnn(), name=name, samples=samples, progress=told.append
    )
    assert told == ["tracing and planning"]


def test_verifying_what_is_no_artefact_of_the_model(artefact, tmp_path):
    path = Path(shutil.copy(artefact, tmp_path))
    with pytest.raises(ArtefactError, match="there is no artefact at"):
        pg.verify(tmp_path / "no.onnx", models.cnn())
    with pytest.raises(SourceError, match="there is no model file"):
        pg.verify(path, tmp_path / "no.keras")
    with pytest.raises(VerificationError, match=r"was not made from 'forecaster'.*'window'"):
        pg.verify(path, models.forecaster())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtefactError, match="damaged, cut short or no ONNX model"):
        pg.verify(path, models.cnn())


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artefact") / "m.onnx"
    pg.compile(models.cnn(), pg.Saliency(), path, verify=False)
    return path


@pytest.mark.parametrize(
    ("metadata", "error", "says"),
    [
        ({}, ArtefactError, "was not made by probegen"),
        ({ONNX_METADATA_KEY: '{"schema": 99}'}, ManifestError, "Install a newer probegen"),
        ({ONNX_METADATA_KEY: "{"}, ManifestError, "not valid JSON"),
    ],
)
def test_foreign_and_newer_artefacts(artefact, tmp_path, metadata, error, says):
    proto = onnx.load(artefact)
    helper.set_model_props(proto, metadata)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(error, match=says):
        runtime.load(tmp_path / "m.onnx")
    with pytest.raises(error, match=says):
        pg.verify(tmp_path / "m.onnx", models.cnn())


def test_what_an_artefact_is_fed(tmp_path):
    pg.compile(models.cnn(), pg.Saliency(target="input"), tmp_path / "m.onnx", verify=False)
    art, x = runtime.load(tmp_path / "m.onnx"), models.images((11, 8, 2))
    broken = x.copy()
    broken[0, 1, 2, 1] = np.nan
    for feed, options, says in [
        ({"picture": x}, {}, "no input 'picture'"),
        (x[0], {}, r"rank 3.*expected \[batch, height=11, width=8, channel=2\] \(rank 4\)"),
        (x[:, :7], {}, "the size 7 on the axis 'height'"),
        (x.astype(str), {}, "takes numbers and no text"),
        (x, {"target": 4}, "legal are 0 to 3"),
        (x, {"target": [0, 1]}, "2 entries for a batch of 3"),
        (broken, {"check_finite": True}, r"the value nan at \[0, 1, 2, 1\]"),
    ]:
        with pytest.raises(InputError, match=says):
            art.run(feed, **options)
    assert np.isnan(art.run(broken)["scores"].array[0]).any()


def test_the_folder_that_is_worked_in_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path / "work")
    for place in ("", ".", tmp_path / "work", ".."):
        with pytest.raises(OutputExistsError, match="is the one you work in"):
            pg.compile(models.cnn(), [], place, overwrite=True, format="savedmodel")
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(WriteError, match="no UTF-8 text"):
        pg.compile(models.cnn(), [], tmp_path / os.fsdecode(b"\xff.onnx"))
