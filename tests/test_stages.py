"""What other libraries raise comes out as an error of ours, and nothing is half-written.

Foreign exceptions are put into each stage in turn: the reader of models, the trace, the converter,
the checker, the writer, the runtime, the reference, the disk.
"""

import contextlib
import errno
import os
import shutil

import keras
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx.optimizer
import tf2onnx.tf_loader
import tf2onnx.tfonnx

import probegen as pg
from probegen import runtime
from probegen.errors import (
    ArtefactError,
    ExportError,
    InputError,
    InstrumentError,
    ProbegenError,
    SourceError,
    VerificationError,
    WriteError,
)
from probegen.graph import assemble as onnx_artefact
from probegen.sources.keras import savedmodel
from probegen.sources.keras.reference import KerasReference as Reference
from probegen.stages import stage, writing

FOREIGN = [
    ValueError("bad value"),
    RuntimeError("out of luck"),
    KeyError("lost"),
    MemoryError(),
    tf.errors.InternalError(None, None, "inside"),
    onnx.checker.ValidationError("not valid"),
]


def small():
    keras.utils.set_random_seed(1)
    x = keras.Input((5, 3), name="x")
    y = keras.layers.Dense(4, activation="tanh", name="inner")(x)
    y = keras.layers.Dense(2, activation="softmax", name="kind")(keras.layers.Flatten()(y))
    return keras.Model(x, y, name="small")


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def probed(model):
    return pg.instrument(model, pg.InputGradient())


@pytest.fixture(scope="module")
def made(probed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {
        "onnx": pg.export(probed, folder / "m.onnx").path,
        "savedmodel": pg.export(probed, folder / "saved", verify=False).path,
    }


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def exporting(name):
    return lambda probed, _, folder: pg.export(probed, folder / name)


def verifying(form):
    return lambda probed, made, _: pg.verify(made[form], probed)


def running(form):
    return lambda _, made, __: runtime.load(made[form]).run(np.ones((2, 5, 3)))


#: Where the exception is raised, what runs into it, what comes out, and what that says.
STAGES = [
    (tf2onnx.tf_loader, "tf_optimize", exporting("m.onnx"), ExportError, "convert the forward"),
    (tf2onnx.tfonnx, "process_tf_graph", exporting("m.onnx"), ExportError, "tf2onnx"),
    (tf2onnx.optimizer, "optimize_graph", exporting("m.onnx"), ExportError, "convert the forward"),
    (onnx_ir.serde, "deserialize_model", exporting("m.onnx"), ExportError, "cannot be read"),
    (onnx_artefact, "clean", exporting("m.onnx"), ExportError, "written as ONNX"),
    (onnx_ir, "save", exporting("m.onnx"), ExportError, "written as ONNX"),
    (onnx.checker, "check_model", exporting("m.onnx"), ExportError, "ONNX"),
    (onnxruntime, "InferenceSession", exporting("m.onnx"), ExportError, "cannot be run here"),
    (tf.saved_model, "save", exporting("saved"), ExportError, "TensorFlow cannot save the model"),
    (tf.saved_model, "load", exporting("saved"), ExportError, "cannot be run here"),
    (savedmodel, "run_forward", exporting("saved"), ExportError, "TensorFlow cannot save"),
    (keras.Model, "save", exporting("m.keras"), ExportError, "Keras cannot save the model"),
    (Reference, "_predict", exporting("m.onnx"), InputError, "cannot run on samples"),
    (Reference, "_predict", verifying("onnx"), InputError, "cannot run on samples"),
    (
        Reference,
        "explanations",
        exporting("m.onnx"),
        VerificationError,
        "compared with the model",
    ),
    (
        Reference,
        "explanations",
        verifying("onnx"),
        VerificationError,
        "compared with the model",
    ),
    (onnxruntime, "InferenceSession", verifying("onnx"), ArtefactError, "cannot load"),
    (onnxruntime, "InferenceSession", running("onnx"), ArtefactError, "cannot load"),
    (onnxruntime.InferenceSession, "run", running("onnx"), ArtefactError, "could not run"),
    (onnxruntime.InferenceSession, "get_modelmeta", running("onnx"), ArtefactError, "be opened"),
    (tf.saved_model, "load", running("savedmodel"), ArtefactError, "cannot load the SavedModel"),
    (tf, "constant", running("savedmodel"), ArtefactError, "could not"),
]


@pytest.mark.parametrize("number", range(len(STAGES)))
def test_foreign_exceptions_come_out_as_ours(number, probed, made, tmp_path, monkeypatch):
    owner, name, act, kind, says = STAGES[number]
    # Each stage gets two of the exceptions, all of them some stage.
    for error in (FOREIGN[number % len(FOREIGN)], FOREIGN[(number + 3) % len(FOREIGN)]):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising(error))
            with pytest.raises(kind, match=says) as raised:
                act(probed, made, tmp_path)
        words = "emory" if isinstance(error, MemoryError) else _words(error)
        assert words in str(raised.value)
        assert not list(tmp_path.iterdir())


def _words(error):
    return error.message if isinstance(error, tf.errors.OpError) else str(error.args[0])


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_and_leave_nothing(probed, tmp_path, monkeypatch, interrupt):
    monkeypatch.setattr(onnx_ir, "save", raising(interrupt()))
    with pytest.raises(interrupt):
        pg.export(probed, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


class Fails(keras.layers.Layer):
    """A layer whose call fails in a way of its own."""

    error = None

    def call(self, x):
        if self.error is not None:
            raise self.error
        return x * 2


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyError("lost"), ZeroDivisionError()])
def test_the_layer_whose_call_fails_is_named(error, monkeypatch):
    x = keras.Input((3,), name="x")
    inner = keras.Model(x, Fails(name="odd")(x), name="block")
    y = keras.Input((3,), name="y")
    model = keras.Model(y, keras.layers.Dense(2, name="head")(inner(y)))
    monkeypatch.setattr(Fails, "error", error)
    for act in (pg.inspect, lambda m: pg.instrument(m, pg.Activations("head"))):
        with pytest.raises(InstrumentError, match=r"in layer 'block/odd'") as raised:
            act(model)
        assert "\x1b" not in str(raised.value)


def test_errors_of_readers_of_models(tmp_path, monkeypatch):
    small().save(tmp_path / "m.keras")
    for error in FOREIGN:
        monkeypatch.setattr(keras.saving, "load_model", raising(error))
        with pytest.raises(SourceError, match="Keras cannot load"):
            pg.inspect(tmp_path / "m.keras")


# -- disks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full; free some space, or write to another place"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "no permission to write there"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_disks_that_cannot_be_written(probed, made, tmp_path, monkeypatch, number, says):
    error = OSError(number, os.strerror(number), "somewhere")
    result = runtime.load(made["onnx"]).run(np.ones((2, 5, 3)))
    place = rf"cannot write '{tmp_path}/m\.onnx': .*{says}"
    for owner, name in ((onnx_ir, "save"), (os, "replace"), (os, "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising(error))
            with pytest.raises(WriteError, match=place):
                pg.export(probed, tmp_path / "m.onnx", verify=False)
    full = tf.errors.ResourceExhaustedError(None, None, f"save: {os.strerror(number)}")
    monkeypatch.setattr(tf.saved_model, "save", raising(full))
    if number != errno.EIO:
        with pytest.raises(WriteError, match=rf"cannot write '{tmp_path}/saved': .*{says}"):
            pg.export(probed, tmp_path / "saved", verify=False)
    monkeypatch.setattr(os, "replace", raising(error))
    with pytest.raises(WriteError, match=rf"cannot write '{tmp_path}/r\.npz': .*{says}"):
        result.to_npz(tmp_path / "r.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device(made):
    result = runtime.load(made["onnx"]).run(np.ones((2, 5, 3)))
    with pytest.raises(WriteError, match="cannot write '/dev/full': the disk is full"):
        result.to_npz("/dev/full")


def test_stages_keep_our_errors_and_say_what_failed():
    with pytest.raises(ExportError, match="ours"), stage("it failed", InstrumentError):
        raise ExportError("ours")
    with (
        pytest.raises(InstrumentError, match=r"^it failed: KeyError: 'x'\. Try this\.$"),
        stage("it failed", InstrumentError, "Try this."),
    ):
        raise KeyError("x")
    with pytest.raises(ZeroDivisionError), writing("x"):
        raise ZeroDivisionError
    with pytest.raises(ProbegenError) as raised:
        raise ExportError("\x1b[1mbold\x1b[0m and plain")
    assert str(raised.value) == "bold and plain"


def test_inputs_that_cannot_become_arrays(made):
    class Odd:
        def __array__(self, *_, **__):
            raise RuntimeError("requires grad")

    with pytest.raises(ProbegenError, match=r"requires grad.*Pass plain numpy arrays"):
        runtime.load(made["onnx"]).run(Odd())


def test_damaged_folders(made, tmp_path):
    """Any byte of any file of a SavedModel: an error of ours, or a model that runs."""
    rng = np.random.default_rng(5)
    for number, source in enumerate(p for p in made["savedmodel"].rglob("*") if p.is_file()):
        copy = shutil.copytree(made["savedmodel"], tmp_path / str(number))
        file = copy / source.relative_to(made["savedmodel"])
        data = bytearray(source.read_bytes())
        for place in rng.integers(0, max(len(data), 1), 3) if data else ():
            data[place] ^= 0x41
        file.write_bytes(data)
        with contextlib.suppress(ProbegenError):
            runtime.load(copy).run(np.ones((2, 5, 3)))
