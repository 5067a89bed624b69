"""The server in the process of the test, over HTTP without a network."""

import itertools
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
from starlette.testclient import TestClient

from probegen.errors import ArtefactError
from probegen.runtime.loaded import Artefact
from probegen.serve.app import Server, Settings
from probegen.serve.batching import Limits
from probegen.serve.logs import NAME, JsonFormatter
from tests.runtime.support import images
from tests.serve.support import as_binary, as_json, read

INFER = "/v2/models/zoo/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def client(zoo):
    with TestClient(Server(zoo).app) as client:
        yield client


def test_what_is_asked_about_the_server(client):
    assert client.get("/v2").json()["name"] == "probegen"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/zoo/ready"):
        assert client.get(path).status_code == 200
    described = client.get("/v2/models/zoo").json()
    assert described == client.get("/v2/models/zoo/versions/1").json()
    assert described["outputs"][0]["name"] == "animal"


def test_before_and_after_it_is_not_ready(zoo):
    server = Server(zoo)
    client = TestClient(server.app)
    assert client.get("/v2/health/ready").status_code == 503
    with client:
        assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/zoo/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == 200
    answer = client.post(INFER, content=as_json({"image": images(1)}))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("path", [INFER, "/v2/models/zoo/versions/1/infer"])
def test_inference_as_json_and_as_bytes(client, zoo, path):
    x = images(3)
    expected = zoo.artefact.run(x, target="cat")
    asked = {"explain": True, "target": "cat"}
    answer = client.post(path, content=as_json({"image": x}, parameters=asked))
    assert answer.headers["Content-Type"] == "application/json"
    content, found = read(answer.content)
    body, length = as_binary({"image": x}, list(expected), id="b", parameters=asked)
    answer = client.post(path, content=body, headers={LENGTH: str(length)})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    content, as_bytes = read(answer.content, answer.headers[LENGTH])
    assert content["id"] == "b"
    for name, record in expected.items():
        np.testing.assert_array_equal(found[name], record.array)
        np.testing.assert_array_equal(as_bytes[name], record.array)


def test_requests_that_are_answered_with_an_error(client):
    for method, path, status in [
        ("post", "/v2/models/other/infer", 404),
        ("post", "/v2/models/zoo/versions/2/infer", 404),
        ("get", "/v2/models/other", 404),
        ("get", "/nothing", 404),
        ("get", INFER, 405),
        ("post", INFER, 400),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]
    answer = client.post(INFER, content=as_json({"image": images(1)}, parameters={"target": 9}))
    assert "legal are 0 to 3" in answer.json()["error"]
    packed = client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    plain = client.post(INFER, content=b"x", headers={"Content-Encoding": "Identity"})
    assert plain.status_code == 400


def test_a_body_that_is_too_large(zoo):
    def parts():
        for _ in range(100):
            yield b" " * 1000

    with TestClient(Server(zoo, Settings(largest_body=5000)).app) as client:
        assert client.post(INFER, content=b" " * 5001).status_code == 413
        streamed = client.post(INFER, content=parts())  # of no length that is told
        assert streamed.status_code == 413
        assert "more than 5000 bytes" in streamed.json()["error"]
        body = as_json({"image": images(1)})
        assert len(body) <= 5000
        assert client.post(INFER, content=body).status_code == 200


def test_an_engine_that_fails(client, monkeypatch):
    def failing(*_):
        raise ArtefactError("the engine says no")

    monkeypatch.setattr(Artefact, "compute", failing)
    answer = client.post(INFER, content=as_json({"image": images(1)}))
    assert (answer.status_code, answer.json()["error"]) == (500, "the engine says no")


def test_a_fault_of_the_server_tells_nothing_of_its_inside(client, monkeypatch, caplog):
    def failing(*_):
        raise RuntimeError("a secret")

    monkeypatch.setattr(Artefact, "compute", failing)
    with caplog.at_level(logging.INFO, NAME):
        answer = client.post(INFER, content=as_json({"image": images(1)}))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_a_full_queue_is_told_with_when_to_come_again(zoo, monkeypatch):
    runs, go, compute = threading.Event(), threading.Event(), Artefact.compute

    def waiting(*arguments):
        runs.set()
        assert go.wait(10)
        return compute(*arguments)

    monkeypatch.setattr(Artefact, "compute", waiting)
    server = Server(zoo, Settings(Limits(queue_size=1)))
    with TestClient(server.app) as client, ThreadPoolExecutor(8) as pool:
        body = as_json({"image": images(1)})
        tasks = [pool.submit(client.post, INFER, content=body)]
        assert runs.wait(10)  # it has left the queue
        tasks += [pool.submit(client.post, INFER, content=body) for _ in range(7)]
        for _ in itertools.islice(as_completed(tasks, timeout=10), 6):  # one runs, one waits
            pass
        go.set()
        answers = [task.result() for task in tasks]
    assert sorted(a.status_code for a in answers) == [200] * 2 + [503] * 6
    refused = [a for a in answers if a.status_code == 503]
    assert {a.headers["Retry-After"] for a in refused} == {"1"}


def test_many_at_once_get_their_own_answers(zoo):
    def ask(i):
        x = images(1 + i % 2, seed=i)
        asked = {"explain": i % 3 == 0, **({"target": i % 4} if i % 5 else {})}
        if i % 7 == 6:
            asked["target"] = 99
        answer = client.post(INFER, content=as_json({"image": x}, id=str(i), parameters=asked))
        return i, x, asked, answer

    server = Server(zoo, Settings(Limits(max_delay=0.005)))
    with TestClient(server.app) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(42)))
    for i, x, asked, answer in answers:
        if asked.get("target") == 99:
            assert answer.status_code == 400
            continue
        content, found = read(answer.content)
        assert content["id"] == str(i)
        expected = zoo.artefact.run(x, target=asked.get("target"), explain=asked["explain"])
        assert set(found) == set(expected)
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name].array, rtol=1e-5, atol=1e-6)


def samples_of(text, name):
    """The values of a metric by their labels, as Prometheus' own parser reads them."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_metrics(client):
    for explain in (True, False, False):
        body = as_json({"image": images(2)}, parameters={"explain": explain})
        assert client.post(INFER, content=body).status_code == 200
    client.post(INFER, content=b"{}")
    text = client.get("/metrics").text
    requests = samples_of(text, "probegen_requests_total")
    assert requests == {
        (("explain", "true"), ("model", "zoo"), ("status", "200")): 1,
        (("explain", "false"), ("model", "zoo"), ("status", "200")): 2,
        (("explain", "false"), ("model", "zoo"), ("status", "400")): 1,
    }
    samples = samples_of(text, "probegen_samples_total")
    assert samples == {
        (("explain", "true"), ("model", "zoo")): 2,
        (("explain", "false"), ("model", "zoo")): 4,
    }
    for name in ("request", "queue", "run"):
        counts = samples_of(text, f"probegen_{name}_seconds_count")
        assert counts[("explain", "true"), ("model", "zoo")] == 1
    assert samples_of(text, "probegen_queue_length") == {(("model", "zoo"),): 0}


def test_a_line_of_the_log(client, caplog):
    with caplog.at_level(logging.INFO, NAME):
        body = as_json({"image": images(2)}, id="a", parameters={"explain": True})
        client.post(INFER, content=body)
        client.post(INFER, content=b"{}")
        client.post(INFER, content=as_json({"x" * 10**5: images(1)}))
        made = client.post(INFER, content=as_json({"image": images(1)})).json()["id"]
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    good, bad, long, unnamed = (line for line in lines if line["event"] == "infer")
    assert good["level"] == "info"
    told = {key: good[key] for key in ("model", "id", "explain", "samples", "batch", "status")}
    assert told == {
        "model": "zoo", "id": "a", "explain": True, "samples": 2, "batch": 2, "status": 200
    }  # fmt: skip
    assert 0 <= good["queued"] + good["ran"] <= good["seconds"] + 1e-5
    assert (bad["status"], bad["error"]) == (400, "the request has no inputs.")
    assert len(long["error"]) == 500
    assert unnamed["id"] == made
