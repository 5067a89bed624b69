"""Load on `probegen serve` over loopback: requests a second, and how long they take.

Each server is a process of its own, and so is what sends the load: some connections, each of which
sends the next request when it has the answer to the last. Contestants take turns, for some seconds
each, over several rounds; figures of a round are put over those of the plain model in the same
round.

The classic way is a second process that explains by calling the model: it hides one window of the
image after the other, sixteen of them a request, and takes the loss of the score (occlusion, 7 x 7
windows). It knows nothing of the model but its address.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.make import make
from bench.race import Ratio, race, ratio
from bench.subjects import ROOT
from bench.tables import head, row

LENGTH = "Inference-Header-Content-Length"
COLUMNS = ("requests", "requests/s", "over plain", "p50 ms", "over plain", "p99 ms", "over plain")
WINDOWS, AT_ONCE = 7, 16
#: A body and its headers.
Request = tuple[bytes, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Load:
    """What became of the requests of one contestant in one round.

    Attributes:
        rate: requests a second.
        p50: their median time in seconds.
        p99: their 99th percentile.
    """

    rate: float
    p50: float
    p99: float


def serve_load(name: str, connections: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Prints a table of loads on a subject's artefact, and returns its figures."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job = {"subject": name, "folder": folder, "batches": [1], "stage": "method"}
        make({**job, "file": "plain", "probes": []})
        make({**job, "file": "explain", "probes": [["Saliency", {}]]})
        x = dict(np.load(Path(folder) / "feed_1.npz"))
        own = _own_ratio(Path(folder), rounds)
        plain, explain = (
            stack.enter_context(server(Path(folder) / f"{n}.onnx")) for n in ("plain", "explain")
        )
        classic = stack.enter_context(explainer(plain))
        bodies = [request(x, explain=wanted) for wanted in (False, True)]
        every = [bodies[0]] * 9 + [bodies[1]]
        contestants = {
            "plain model": (plain, bodies[:1]),
            "explain off": (explain, bodies[:1]),
            "one in ten explained": (explain, every),
            "explain on": (explain, bodies[1:]),
            "a second process, occlusion": (classic, bodies[:1]),
        }
        loads: dict[str, list[Load]] = {contestant: [] for contestant in contestants}
        for _ in range(rounds):
            for contestant, (port, sent) in contestants.items():
                loads[contestant].append(load(port, sent, connections, seconds))
        click.echo(
            f"{name}, {connections} connections; explained over plain without a server: {own}"
        )
        click.echo(head(COLUMNS))
        for contestant, found in loads.items():
            click.echo(row(_cells(contestant, found, loads["plain model"])))
        told = {k: [dataclasses.asdict(one) for one in v] for k, v in loads.items()}
        return {"model": name, "own": own, "connections": connections, "loads": told}


def load(port: int, sent: Sequence[Request], connections: int, seconds: float) -> Load:
    """Sends requests in turn over some connections, for some seconds after one of each."""
    times: list[list[float]] = [[] for _ in range(connections)]
    failures: list[str] = []
    started = threading.Barrier(connections + 1)

    def client(number: int) -> None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for body in sent[:1] + sent[-1:]:
                ask(connection, body)
            started.wait()
            end = time.perf_counter() + seconds
            place = number
            while not times[number] or time.perf_counter() < end:
                begun = time.perf_counter()
                ask(connection, sent[place % len(sent)])
                times[number].append(time.perf_counter() - begun)
                place += 1
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(str(error))
            started.abort()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    try:
        started.wait()
    except threading.BrokenBarrierError as error:
        raise RuntimeError(failures[:1]) from error
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if failures:
        raise RuntimeError(failures[0])
    each = sorted(t for own in times for t in own)
    p50, p99 = np.quantile(each, [0.5, 0.99])
    return Load(len(each) / took, float(p50), float(p99))


def ask(connection: http.client.HTTPConnection, sent: Request) -> tuple[bytes, int]:
    """Sends one request; returns the body of its answer, and the length of the JSON in it.

    Raises:
        RuntimeError: it is an error.
    """
    body, headers = sent
    connection.request("POST", "/v2/models/m/infer", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {content[:200]!r}")
    return content, int(answer.headers.get(LENGTH, 0))


def request(inputs: Mapping[str, Any], explain: bool) -> Request:
    """Returns a request for all outputs as bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    kinds = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": kinds[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    parameters = {"explain": explain, "binary_data_output": True}
    text = json.dumps({"inputs": tensors, "parameters": parameters}).encode()
    return b"".join([text, *(a.tobytes() for a in arrays.values())]), {LENGTH: str(len(text))}


@contextmanager
def server(path: str | Path) -> Iterator[int]:
    """Runs `probegen serve` while the context lasts; gives its port."""
    main = "from probegen.cli import main; main()"
    options = ["--port", "0", "--name", "m", "--threads", "1"]
    with _process([sys.executable, "-c", main, "serve", str(path), *options]) as run:
        assert run.stderr is not None
        told = (json.loads(line) for line in run.stderr)
        port = next(line["port"] for line in told if line["event"] == "listening")
        threading.Thread(target=run.stderr.read, daemon=True).start()  # else its pipe is full once
        yield int(port)


@contextmanager
def explainer(port: int) -> Iterator[int]:
    """Runs the classic explainer of the model at a port while the context lasts; gives its own."""
    command = [sys.executable, "-m", "bench.serving", str(port)]
    with _process(command) as run:
        assert run.stderr is not None
        yield int(run.stderr.readline())


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.terminate()
        run.wait()


def occluded(x: Any, predict: Callable[[Any], Any]) -> Any:
    """Returns what hiding each window takes from the best class' score, `[7, 7]`, by calls."""
    scores = predict(x)[0]
    best = int(scores.argmax())
    height, width = x.shape[1:3]
    copies = np.repeat(x, WINDOWS * WINDOWS, axis=0)
    for i in range(WINDOWS):
        for j in range(WINDOWS):
            rows = slice(height * i // WINDOWS, height * (i + 1) // WINDOWS)
            columns = slice(width * j // WINDOWS, width * (j + 1) // WINDOWS)
            copies[i * WINDOWS + j, rows, columns] = 0
    starts = range(0, len(copies), AT_ONCE)
    hidden = np.concatenate([predict(copies[i : i + AT_ONCE]) for i in starts])
    return (scores[best] - hidden[:, best]).reshape(WINDOWS, WINDOWS)


def _explain_by_calls(port: int) -> None:
    """Serves the classic explainer; writes its port to standard error."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers[LENGTH])
            (tensor,) = json.loads(body[:length])["inputs"]
            x = np.frombuffer(body[length:], np.float32).reshape(tensor["shape"])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

            def predict(batch: Any) -> Any:
                content, end = ask(connection, request({tensor["name"]: batch}, explain=False))
                (output,) = json.loads(content[:end])["outputs"]
                return np.frombuffer(content[end:], np.float32).reshape(output["shape"])

            answer = occluded(x, predict).astype(np.float32).tobytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return None

    own = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(own.server_port, file=sys.stderr, flush=True)
    own.serve_forever()


def _own_ratio(folder: Path, rounds: int) -> str:
    """Returns explained over plain of the artefact itself, of one thread."""
    feed = {"runner": "onnx", "feed": str(folder / "feed_1.npz"), "threads": 1}
    jobs = {n: {**feed, "path": str(folder / f"{n}.onnx")} for n in ("plain", "explain")}
    timings = race(jobs, rounds)
    return f"{ratio(timings['explain'], timings['plain']).middle:.2f}"


def _cells(name: str, found: Sequence[Load], plain: Sequence[Load]) -> list[str]:
    cells = [name]
    for field, scale in (("rate", 1.0), ("p50", 1e3), ("p99", 1e3)):
        ours, theirs = ([getattr(one, field) for one in loads] for loads in (found, plain))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        cells.append(f"{statistics.median(ours) * scale:.4g}")
        cells.append(str(Ratio(statistics.median(ratios), min(ratios), max(ratios))))
    return cells


if __name__ == "__main__":
    _explain_by_calls(int(sys.argv[1]))
