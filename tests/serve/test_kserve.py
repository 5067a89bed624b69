"""The KServe model, where KServe is installed: `make test-serving`."""

import json

import numpy as np
import pytest

kserve = pytest.importorskip("kserve")

from fastapi.testclient import TestClient  # noqa: E402
from kserve.protocol.dataplane import DataPlane  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput  # noqa: E402
from kserve.protocol.model_repository_extension import ModelRepositoryExtension  # noqa: E402
from kserve.protocol.rest.server import RESTServer  # noqa: E402

from probegen import runtime  # noqa: E402
from probegen.serve.kserve import ProbegenModel  # noqa: E402
from tests.serve.linear import HEIGHT, WIDTH, linear_artefact  # noqa: E402
from tests.serve.support import as_binary, as_json, read  # noqa: E402

INFER = "/v2/models/linear/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = linear_artefact(tmp_path_factory.mktemp("kserve") / "linear.onnx")
    model = ProbegenModel("linear", path, threads=1)
    assert model.load()
    return model


@pytest.fixture(scope="module")
def client(model):
    """KServe's own application with its own routes and handlers, ours before them."""
    repository = kserve.ModelRepository()
    repository.update(model)
    dataplane = DataPlane(repository)
    extension = ModelRepositoryExtension(repository)
    server = RESTServer("kserve.model_server:app", dataplane, extension, 0)
    app = kserve.model_server.app
    app.router.routes.insert(0, model.route())
    server._register_endpoints(app)
    server._add_exception_handlers(app)
    return TestClient(app)


def images(batch, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, HEIGHT, WIDTH)).astype(np.float32)


def test_http_as_bytes_and_json(client, model):
    x = images(3)
    expected = runtime.load(model.served.artefact.path).run(x, target=1)
    body, length = as_binary({"x": x}, list(expected), parameters={"target": 1})
    answer = client.post(INFER, content=body, headers={LENGTH: str(length)})
    _, found = read(answer.content, answer.headers[LENGTH])
    asked = {"explain": True, "target": 1}
    as_text = read(client.post(INFER, content=as_json({"x": x}, parameters=asked)).content)[1]
    for name, record in expected.items():
        np.testing.assert_allclose(found[name], record.array, rtol=1e-6)
        np.testing.assert_allclose(as_text[name], record.array, rtol=1e-6)


def test_a_request_without_an_id_and_one_that_does_not_fit(client):
    content, _ = read(client.post(INFER, content=as_json({"x": images(1)})).content)
    assert content["id"]
    zipped = client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
    assert (zipped.status_code, "not as gzip" in zipped.json()["error"]) == (415, True)
    wrong = client.post(INFER, content=as_json({"y": images(1)}))
    assert (wrong.status_code, "no input 'y'" in wrong.json()["error"]) == (400, True)


def test_binary_tensors_do_not_become_lists(client, monkeypatch):
    def never(*_):
        raise AssertionError("KServe decodes")

    monkeypatch.setattr(InferRequest, "from_bytes", never)
    body, length = as_binary({"x": images(2)})
    assert client.post(INFER, content=body, headers={LENGTH: str(length)}).status_code == 200


def test_metadata_and_readiness(client):
    told = client.get("/v2/models/linear").json()
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, HEIGHT, WIDTH]}]
    assert client.get("/v2/models/linear/ready").status_code == 200


def test_what_grpc_hands_over(model):
    x = images(2, seed=4)
    tensor = InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=True)
    wanted = [RequestedOutput("input_gradient/x"), RequestedOutput("scores")]
    request = InferRequest("linear", [tensor], parameters={"target": 2}, request_outputs=wanted)
    response = model.predict(request)
    expected = model.served.artefact.run(x, target=2)
    assert [output.name for output in response.outputs] == ["input_gradient/x", "scores"]
    assert response.id
    for output in response.outputs:
        np.testing.assert_allclose(output.as_numpy(), expected[output.name].array, rtol=1e-6)
    message = response.to_grpc()
    assert message.outputs[0].name == "input_gradient/x"
    tensor = InferInput("x", [1, 2], "FP32", [[1.0, 2.0]])
    with pytest.raises(kserve.errors.InvalidInput, match="rank"):
        model.predict(InferRequest("linear", [tensor]))
    with pytest.raises(kserve.errors.InvalidInput, match="no V1"):
        model.predict(json.loads('{"instances": []}'))
