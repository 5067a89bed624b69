"""The table of engines: which opens what, what each can be told, and a new one in a few lines."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from probegen import runtime
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.cli import main
from probegen.errors import ArtefactError
from probegen.runtime import engines
from probegen.runtime.engines import Entry
from probegen.runtime.engines.base import Engine, Signature, TensorInfo
from tests.runtime.support import NAMES, images


@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_onnxruntime_opens_files_by_default(image_path, engine):
    art = runtime.load(image_path, engine=engine)
    assert art.engine.name == "onnxruntime, CPUExecutionProvider"


@pytest.mark.parametrize("engine", [None, "savedmodel"])
def test_tensorflow_opens_folders_by_default(saved_path, engine):
    assert runtime.load(saved_path, engine=engine).engine.name == "TensorFlow"


def test_openvino_opens_files_on_request(image_path):
    assert runtime.load(image_path, engine="openvino").engine.name == "OpenVINO, CPU"


def test_unknown_engine(image_path):
    with pytest.raises(ArtefactError, match=r"no engine 'tensorrt'; there are 'onnxruntime', 'sav"):
        runtime.load(image_path, engine="tensorrt")


def test_engine_of_another_form(image_path, saved_path):
    says = (
        r"zoo' is no ONNX file, and the engine 'openvino' runs nothing else\. "
        r"SavedModel directories run with 'savedmodel'\."
    )
    with pytest.raises(ArtefactError, match=says):
        runtime.load(saved_path, engine="openvino")
    says = r"is no SavedModel directory.* ONNX files run with 'onnxruntime' or 'openvino'\."
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, engine="savedmodel")


def test_option_of_another_engine(image_path):
    says = (
        r"^providers is an option of onnxruntime, and .*zoo.onnx' is opened with openvino, "
        r"which takes device, threads, config\.$"
    )
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, engine="openvino", providers=["CPUExecutionProvider"])
    says = r"^foo is no option, .* which takes device, providers, threads, session_options\.$"
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, foo=1)
    with pytest.raises(ArtefactError, match=r"provider is no option.* Did you mean 'providers'\?"):
        runtime.load(image_path, provider=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("engine", "install"),
    [
        ("onnxruntime", "pip install onnxruntime"),
        ("openvino", r"pip install 'probegen\[openvino\]'"),
    ],
)
def test_engine_that_is_not_installed(image_path, monkeypatch, engine, install):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(ArtefactError, match=f"is not installed.*{install}"):
        runtime.load(image_path, engine=engine)


class EvaluatorEngine(Engine):
    """A new engine: onnx's own evaluator, written in Python."""

    product = "onnx's evaluator"

    def __init__(self, path, note):
        model = onnx.load(path)
        self.note = note
        self.manifest_text = {e.key: e.value for e in model.metadata_props}[ONNX_METADATA_KEY]
        self.evaluator = ReferenceEvaluator(model)
        inputs, outputs = (
            {
                v.name: TensorInfo(
                    onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
                    tuple(
                        d.dim_value if d.HasField("dim_value") else None
                        for d in v.type.tensor_type.shape.dim
                    ),
                )
                for v in values
            }
            for values in (model.graph.input, model.graph.output)
        )
        self.signatures = (Signature(inputs, outputs, tuple(inputs)),)

    def run(self, feeds, outputs):
        return dict(zip(outputs, self.evaluator.run(list(outputs), dict(feeds)), strict=True))


def open_file(path, *, note=""):
    return EvaluatorEngine(path, note)


def test_a_new_engine_is_one_line(monkeypatch, image_path, artefact):
    line = Entry("evaluator", "file", open_file)
    monkeypatch.setattr(engines, "ENGINES", (*engines.ENGINES, line))
    art = runtime.load(image_path, engine="evaluator", note="slow")
    assert art.engine.note == "slow"
    assert "(onnx's evaluator)" in str(art)
    for batch in (3, 1):
        x, target = images(batch), ["bee", -1, 3][:batch]
        expected = artefact.run(x, target=target)
        result = art.run(x, target=target)
        assert list(result) == list(expected)
        for name, record in expected.items():
            np.testing.assert_allclose(result[name].array, record.array, rtol=1e-5)
        assert list(art.run(x, explain=False)) == ["animal"]
    with pytest.raises(ArtefactError, match=r"opened with evaluator, which takes note\."):
        runtime.load(image_path, engine="evaluator", threads=1)
    assert art.manifest.class_names == NAMES


def test_whatever_an_engine_raises_is_an_artefact_error(artefact):
    class Broken(EvaluatorEngine):
        def __init__(self):
            pass

        def run(self, feeds, outputs):
            raise KeyError(sorted(feeds), outputs)

    art = dataclasses.replace(artefact, engine=Broken())
    says = (
        r"onnx's evaluator could not run .*zoo\.onnx'\. onnx's evaluator says: KeyError: "
        r"\(\['explain', 'image', 'target'\], \['animal'\]"
    )
    with pytest.raises(ArtefactError, match=says):
        art.run(images(2), explain=False)


def test_the_command_line_takes_an_engine_and_a_folder(image_path, tmp_path, capsys):
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", images(1, seed=i))
    with pytest.raises(SystemExit, match="0"):
        main(["run", image_path, str(tmp_path), "--engine", "openvino", "--json"])
    told = json.loads(capsys.readouterr().out)
    expected = runtime.load(image_path).run(np.concatenate([images(1, seed=i) for i in range(2)]))
    np.testing.assert_allclose(told["predictions"]["animal"], expected["animal"].array, rtol=1e-5)
    with pytest.raises(SystemExit, match="1"):
        main(["run", image_path, str(tmp_path), "--engine", "openvine"])
    assert "there is no engine 'openvine'; there are 'onnxruntime'" in capsys.readouterr().err
