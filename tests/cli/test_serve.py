"""`probegen serve` as a process of its own, on loopback."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from probegen import runtime
from tests.runtime.support import images, save_zoo
from tests.serve.support import as_binary, read


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_zoo(tmp_path_factory.mktemp("served") / "animals.onnx", gate="split")


def started(path, *options):
    """A server, and the line in which it says where it listens."""
    code = "from probegen.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", path, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        told = json.loads(line)  # every line is JSON
        if told["event"] == "listening":
            return process, told
    raise AssertionError(process.wait())


def test_a_server_from_start_to_end(path):
    process, told = started(path, "--max-delay", "20", "--threads", "1")
    try:
        address = f"http://{told['host']}:{told['port']}"
        assert told["host"] == "127.0.0.1"
        with httpx.Client(base_url=address, timeout=30) as client:
            while client.get("/v2/health/ready").status_code != 200:
                time.sleep(0.02)
            x = images(2)
            body, length = as_binary({"image": x}, ["saliency/image"], parameters={"target": 1})
            headers = {"Inference-Header-Content-Length": str(length)}
            answer = client.post("/v2/models/animals/infer", content=body, headers=headers)
            _, found = read(answer.content, answer.headers["Inference-Header-Content-Length"])
            expected = runtime.load(path).run(x, target=1)["saliency/image"].array
            np.testing.assert_allclose(found["saliency/image"], expected, rtol=1e-5)
            # What waits when the server is told to stop is answered.
            with ThreadPoolExecutor(6) as pool:
                tasks = [
                    pool.submit(
                        httpx.post,
                        f"{address}/v2/models/animals/infer",
                        content=body,
                        headers=headers,
                        timeout=30,
                    )
                    for _ in range(6)
                ]
                time.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                answers = [task.exception() or task.result().status_code for task in tasks]
        assert process.wait(20) == 0
        lines = [json.loads(line) for line in process.stderr]
    finally:
        process.kill()
    assert {a for a in answers if isinstance(a, int)} <= {200}
    assert all(isinstance(a, int | httpx.ConnectError | httpx.ReadError) for a in answers)
    assert lines[-1]["event"] == "stopped" or "stopped" in [line["event"] for line in lines]


def test_what_cannot_be_served(probegen_cli, path, tmp_path):
    status, _, err = probegen_cli("serve", path, "--name", "a\\b")
    assert (status, r"'a\\b' cannot stand in an address" in err) == (1, True)
    status, _, err = probegen_cli("serve", str(tmp_path / "none.onnx"))
    assert (status, "there is no artefact at" in err) == (1, True)
    status, _, err = probegen_cli("serve", path, "--host", "203.0.113.7", "--port", "0")
    assert (status, "cannot listen at 203.0.113.7" in err) == (1, True)
