"""Configuration of other servers, read by the parsers of these where they can be had."""

import json
import re
import shutil
import struct

import numpy as np
import onnxruntime
import pytest
import yaml

from probegen import runtime
from probegen.errors import ArtefactError, OutputExistsError, SpecError
from probegen.serve.config import Options, write
from probegen.serve.config.tensorflow_serving import WARM_UP, prediction_log
from tests.serve.linear import linear_artefact, words_artefact

GATED = """\
name: "linear"
backend: "onnxruntime"
default_model_filename: "linear.onnx"
max_batch_size: 0
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ -1, 4, 3 ]
  },
  {
    name: "target"
    data_type: TYPE_INT32
    dims: [ -1 ]
  },
  {
    name: "explain"
    data_type: TYPE_BOOL
    dims: [ 1 ]
    reshape { shape: [ ] }
  }
]
output [
  {
    name: "scores"
    data_type: TYPE_FP32
    dims: [ -1, 5 ]
  },
  {
    name: "input_gradient/x"
    data_type: TYPE_FP32
    dims: [ -1, 4, 3 ]
  }
]
"""


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# -- Triton (the schema itself is tried in test_triton.py) ----------------------------------------


def test_a_repository_of_triton(tmp_path):
    path = linear_artefact(tmp_path / "linear.onnx")
    written = write("triton", path, tmp_path / "repository")
    assert names(tmp_path / "repository") == ["linear/1/linear.onnx", "linear/config.pbtxt"]
    assert sorted(written) == sorted(p for p in (tmp_path / "repository").rglob("*") if p.is_file())
    assert (tmp_path / "repository/linear/config.pbtxt").read_text() == GATED
    assert runtime.load(tmp_path / "repository/linear/1/linear.onnx", check=True)


def test_two_graphs_are_two_models_that_triton_batches(tmp_path):
    path = linear_artefact(tmp_path / "m.onnx", gate="split")
    write("triton", path, tmp_path / "r", Options(max_batch=8))
    found = names(tmp_path / "r")
    assert found == [
        "m/1/m.onnx", "m/1/m.onnx.data", "m/config.pbtxt",
        "m_explain/1/m.explain.onnx", "m_explain/1/m.onnx.data", "m_explain/config.pbtxt",
    ]  # fmt: skip
    for model, file, inputs in (("m", "m.onnx", {"x"}), ("m_explain", "m.explain.onnx", None)):
        text = (tmp_path / "r" / model / "config.pbtxt").read_text()
        assert "max_batch_size: 8" in text
        assert "dynamic_batching { }" in text
        assert "dims: [ 4, 3 ]" in text
        session = onnxruntime.InferenceSession(tmp_path / "r" / model / "1" / file)
        taken = {i.name for i in session.get_inputs()}
        assert taken == (inputs or {"x", "target"})
        assert {f'name: "{name}"' in text for name in taken} == {True}


def test_what_triton_cannot_serve(tmp_path):
    path = linear_artefact(tmp_path / "m.onnx", gate="optional")
    with pytest.raises(SpecError, match=r"Compile with gate=True \(--gate required\)"):
        write("triton", path, tmp_path / "r")
    fixed = linear_artefact(tmp_path / "f.onnx", gate=False, dynamic_batch=False)
    write("triton", fixed, tmp_path / "f")
    text = (tmp_path / "f/f/config.pbtxt").read_text()
    assert "max_batch_size: 0" in text
    assert "dims: [ 1, 4, 3 ]" in text
    assert names(tmp_path) == ["f.onnx", "f/f/1/f.onnx", "f/f/config.pbtxt", "m.onnx"]


# -- KServe and the container ------------------------------------------------------------------


def test_an_inference_service(tmp_path):
    path = linear_artefact(tmp_path / "My_Model.onnx")
    write("kserve", path, tmp_path / "k", Options(image="registry.example/one:2", port=9000))
    service = yaml.safe_load((tmp_path / "k/inference_service.yaml").read_text())
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["metadata"] == {"name": "my-model"}
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["image"] == "registry.example/one:2"
    assert container["args"] == ["--name", "My_Model"]
    assert container["ports"] == [{"containerPort": 9000, "protocol": "TCP"}]
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/v2/models/My_Model/ready",
        "port": 9000,
    }


def test_a_container_starts_the_command_with_its_own_files(tmp_path):
    from probegen.cli.serve import serve

    path = linear_artefact(tmp_path / "m.onnx", gate="split")
    write("docker", path, tmp_path / "d", Options(port=9000, name="one"))
    assert names(tmp_path / "d") == ["Dockerfile", "m.explain.onnx", "m.onnx", "m.onnx.data"]
    text = (tmp_path / "d/Dockerfile").read_text()
    instructions = dict(
        line.split(" ", 1) for line in text.splitlines() if not line.startswith("#")
    )
    copied = json.loads(instructions["COPY"])
    assert "'probegen[serve]==" in instructions["RUN"]
    assert copied == ["m.onnx", "m.explain.onnx", "m.onnx.data", "/models/"]
    command = json.loads(instructions["ENTRYPOINT"])
    assert command[:2] == ["probegen", "serve"]
    given = serve.make_context("serve", command[2:]).params
    assert (given["artefact"], given["host"], given["port"], given["name"]) == (
        "/models/m.onnx", "0.0.0.0", 9000, "one"
    )  # fmt: skip
    check = instructions["HEALTHCHECK"].partition(" CMD ")[2]
    compile(json.loads(check)[2], "check", "exec")
    assert "http://127.0.0.1:9000/v2/health/ready" in check


def test_a_container_has_what_takes_texts_apart(tmp_path):
    write("docker", words_artefact(tmp_path), tmp_path / "d")
    assert "'probegen[serve,text]==" in (tmp_path / "d/Dockerfile").read_text()
    with pytest.raises(SpecError, match="no name of an image"):
        write("docker", tmp_path / "words.onnx", tmp_path / "e", Options(image="a\nRUN b"))


# -- TensorFlow Serving ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import keras

    import probegen as pg

    keras.utils.set_random_seed(0)
    x = keras.Input((None, 3), name="series")
    y = keras.layers.GRU(4, name="gru")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="next")(y), name="series")
    path = tmp_path_factory.mktemp("tfs") / "series"
    pg.compile(model, pg.InputGradient(target="input"), path, verify=False)
    return path


def test_versions_and_warm_up_requests(saved, tmp_path):
    import tensorflow as tf

    write("tensorflow-serving", saved, tmp_path / "t", Options(sizes={"time": 5}))
    model = tmp_path / "t" / "series" / "1"
    assert (tmp_path / "t" / "models.config").read_text().count('"/models/series"') == 1
    assert runtime.load(model, check=True)  # the digests know the requests
    loaded = tf.saved_model.load(str(model))
    logs = [bytes(r.numpy()) for r in tf.data.TFRecordDataset(str(model / WARM_UP))]
    asked = [request_of(log) for log in logs]
    assert [signature for _, signature, _ in asked] == ["serving_default", "explain"]
    for name, signature, inputs in asked:
        assert name == "series"
        arrays = {key: tf.make_ndarray(tensor) for key, tensor in inputs.items()}
        assert arrays["series"].shape == (1, 5, 3)
        outputs = loaded.signatures[signature](**{k: tf.constant(a) for k, a in arrays.items()})
        assert outputs["next"].shape == (1, 2)
    assert inputs.keys() == {"series", "target"}


def test_texts_are_warmed_up_with_a_word_and_what_fails_has_no_requests(tmp_path):
    import keras
    import tensorflow as tf

    import probegen as pg

    text = keras.Input((), dtype="string", name="text")
    ids = keras.layers.TextVectorization(vocabulary=["good"])(text)
    embedded = keras.layers.Embedding(3, 2, mask_zero=True)(ids)
    y = keras.layers.Dense(2, name="y")(keras.layers.SimpleRNN(3)(embedded))
    pg.compile(keras.Model(text, y), [], tmp_path / "words", verify=False)
    lookup = keras.layers.StringLookup(vocabulary=["good"], num_oov_indices=0)(text)
    y = keras.layers.Dense(2, name="y")(keras.layers.Embedding(2, 2)(lookup))
    pg.compile(keras.Model(text, y), [], tmp_path / "known", verify=False)
    write("tensorflow-serving", tmp_path / "words", tmp_path / "a")
    model = tmp_path / "a" / "words" / "1"
    (record, _) = tf.data.TFRecordDataset(str(model / WARM_UP))
    asked = tf.make_ndarray(request_of(bytes(record.numpy()))[2]["text"])
    assert asked.tolist() == [b"a"]
    with pytest.warns(UserWarning, match="fails on a request of zeros"):
        write("tensorflow-serving", tmp_path / "known", tmp_path / "b")
    assert not (tmp_path / "b" / "known" / "1" / WARM_UP).exists()
    assert runtime.load(tmp_path / "b" / "known" / "1", check=True)


def request_of(log):
    """Name, signature and tensors of a `PredictionLog`, read field by field."""
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    ((_, request),) = [f for f in fields(log) if f[0] == 6]
    ((_, request),) = fields(request)
    spec = dict(fields(next(content for number, content in fields(request) if number == 1)))
    inputs = [dict(fields(content)) for number, content in fields(request) if number == 2]
    tensors = {entry[1].decode(): TensorProto.FromString(entry[2]) for entry in inputs}
    return spec[1].decode(), spec[3].decode(), tensors


def fields(message):
    """Numbers and contents of the fields with a length."""
    found, place = [], 0
    while place < len(message):
        tag, place = varint(message, place)
        size, place = varint(message, place)
        assert tag & 7 == 2
        found.append((tag >> 3, message[place : place + size]))
        place += size
    return found


def varint(message, place):
    value, shift = 0, 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def test_warm_up_requests_as_tensorflow_serving_reads_them():
    api = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    tensor = TensorProto(dtype=1, tensor_content=struct.pack("<200f", *np.arange(200)))
    log = api.PredictionLog.FromString(
        prediction_log("m", "explain", {"x": tensor.SerializeToString()})
    )
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("m", "explain")
    assert request.inputs["x"] == tensor


def test_what_tensorflow_serving_cannot_serve(saved, tmp_path):
    with pytest.raises(SpecError, match=r"'time' of 'series' is open.*--size time=128"):
        write("tensorflow-serving", saved, tmp_path / "t")
    path = linear_artefact(tmp_path / "m.onnx")
    with pytest.raises(SpecError, match="is an ONNX file; TensorFlow Serving serves SavedModels"):
        write("tensorflow-serving", path, tmp_path / "t")
    for server in ("triton", "kserve", "docker"):
        with pytest.raises(SpecError, match="is a SavedModel"):
            write(server, saved, tmp_path / "t")
    assert names(tmp_path) == ["m.onnx"]


# -- all of them -------------------------------------------------------------------------------


def test_nothing_is_written_for_what_is_wrong(tmp_path):
    path = linear_artefact(tmp_path / "m.onnx")
    with pytest.raises(SpecError, match=r"no server 'tritn'\. Did you mean 'triton'"):
        write("tritn", path, tmp_path / "r")
    for name in ("a/b", "..", "a b", "a\t", "a%2f", 'a"', "\u200b"):
        with pytest.raises(SpecError, match=f"{re.escape(repr(name))} cannot stand in an address"):
            write("triton", path, tmp_path / "r", Options(name=name))
    with pytest.raises(ArtefactError):
        write("triton", tmp_path / "none.onnx", tmp_path / "r")
    (tmp_path / "r").mkdir()
    with pytest.raises(OutputExistsError):
        write("docker", path, tmp_path / "r")
    write("docker", path, tmp_path / "r", overwrite=True)
    assert names(tmp_path / "r") == ["Dockerfile", "m.onnx"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    path = linear_artefact(tmp_path / "m.onnx")
    write("docker", path, tmp_path / "d")
    assert (tmp_path / "d/m.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    shutil.rmtree(tmp_path / "d")
