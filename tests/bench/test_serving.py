"""Load on a real server, and the classic explainer, whose answer is known."""

import http.client

import numpy as np
import pytest

from bench import serving
from tests.serve.linear import HEIGHT, WIDTH, linear_artefact


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    path = linear_artefact(tmp_path_factory.mktemp("load") / "m.onnx", target="argmax")
    with serving.server(path) as port:
        yield port


def test_a_load_answers_and_counts(port):
    x = np.ones((1, HEIGHT, WIDTH), np.float32)
    sent = [serving.request({"x": x}, explain) for explain in (False, True)]
    found = serving.load(port, sent, connections=2, seconds=0.2)
    assert found.rate > 1
    assert 0 < found.p50 <= found.p99
    connection = http.client.HTTPConnection("127.0.0.1", port)
    plain, explained = (serving.ask(connection, one) for one in sent)
    assert len(explained[0]) - explained[1] == len(plain[0]) - plain[1] + x.nbytes


def test_a_request_that_fails_is_told(port):
    wrong = serving.request({"y": np.ones((1, 2), np.float32)}, explain=False)
    with pytest.raises(RuntimeError, match="status 400"):
        serving.load(port, [wrong], connections=2, seconds=0.2)


def test_what_hiding_windows_takes():
    """Of a sum of pixels, hiding a window takes its own sum."""
    x = np.arange(2 * 14 * 21, dtype=np.float64).reshape(1, 14, 21, 2)
    found = serving.occluded(x, lambda batch: batch.sum((1, 2, 3))[:, None])
    np.testing.assert_allclose(found, x.reshape(7, 2, 7, 3, 2).sum((1, 3, 4)))
