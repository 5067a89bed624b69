"""One loaded artefact, run ten thousand times: the same numbers each time, and no more memory.

Requests of other sizes and targets, with explanations and without, come in a drawn order, from
one thread or from several at once. What each has to give is what an artefact loaded anew gives
when it runs that request first and alone.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import resource
import sys
import tempfile
import threading
import traceback
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import probegen as pg
from fuzz.drawing import Draw
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, Outcome, signature
from fuzz.weights import with_weights
from probegen import runtime

#: Runs of a case. In the first quarter buffers grow to what the requests need.
RUNS = 10_000
_WARM_UP = 0.25
#: What a process may grow by afterwards: less than half a kilobyte a run, and not one object of
#: Python in seven runs.
_BYTES, _OBJECTS = 4 * 2**20, 1000
#: Requests that a case repeats.
_REQUESTS = 24
_CLASSES = 3
_GATES = ("optional", True, False, "split")

_IMAGE = """
<ir_version: 8, opset_import: ["" : 18]>
image_model (float[batch, 2, height, width] x) => (float[batch, 3] scores)
<float[4, 2, 3, 3] kernel, float[4] bias, float[4, 3] dense>
{
    conv = Conv <pads = [1, 1, 1, 1]> (x, kernel, bias)
    relu = Relu (conv)
    pooled = GlobalAveragePool (relu)
    flat = Flatten (pooled)
    logits = MatMul (flat, dense)
    scores = Softmax (logits)
}
"""
_SERIES = """
<ir_version: 8, opset_import: ["" : 18]>
series_model (float[batch, time, 2] x) => (float[batch, 3] scores)
<float[1, 12, 2] kernel, float[1, 12, 4] recurrent, float[1, 24] bias, float[4, 3] dense>
{
    steps = Transpose <perm = [1, 0, 2]> (x)
    all, last = GRU <hidden_size = 4, linear_before_reset = 1> (steps, kernel, recurrent, bias)
    flat = Flatten <axis = 2> (last)
    scores = MatMul (flat, dense)
}
"""
_TOKENS = """
<ir_version: 8, opset_import: ["" : 18]>
token_model (int32[batch, time] x) => (float[batch, 3] scores)
<float[9, 4] table, float[4, 4] query, float[4, 3] dense, int64[1] axis = {1}>
{
    vectors = Gather (table, x)
    queries = MatMul (vectors, query)
    keys = Transpose <perm = [0, 2, 1]> (vectors)
    looks = MatMul (queries, keys)
    weights = Softmax (looks)
    mixed = MatMul (weights, vectors)
    flat = ReduceMax <keepdims = 0> (mixed, axis)
    scores = MatMul (flat, dense)
}
"""
#: Form -> its model and the probes that its artefacts have.
_FORMS: Mapping[str, tuple[str, Sequence[Any]]] = {
    "image": (_IMAGE, [pg.InputGradient(target="input"), pg.GradCAM(layer="relu")]),
    "series": (_SERIES, [pg.InputGradient(target="input"), pg.IntegratedGradients(steps=3)]),
    "tokens": (_TOKENS, [pg.GradientXInput(target="input"), pg.Attention()]),
}


@dataclasses.dataclass(frozen=True)
class _Request:
    """What one run is given, and what it has to give."""

    x: np.ndarray[Any, Any]
    target: list[int]
    explain: bool
    expected: Mapping[str, np.ndarray[Any, Any]]


@functools.cache
def made(form: str, gate: str) -> Path:
    """Returns an artefact, made once a process."""
    text, probes = _FORMS[form]
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / f"{form}.onnx"
    model = with_weights(text, np.random.default_rng(0))
    pg.compile(model, probes, path, gate=gate, verify=False)
    return path


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the artefact and the requests of a key."""
    del known
    d = Draw(key)
    form, gate = d.one(list(_FORMS)), d.one(_GATES)
    callers, threads = d.one((1, 4)), d.one((1, 2))
    where = f"{form}, gate {gate}, {callers} callers, {threads} threads"
    try:
        path = made(form, gate)
        requests = [_drawn(d, path, form, threads) for _ in range(_REQUESTS)]
        order = d.rng.integers(len(requests), size=RUNS)
        art = runtime.load(path, threads=threads)
        told = _repeated(art, [requests[i] for i in order], callers)
    except Exception as error:  # what nobody meant to raise is what is looked for
        return Outcome(key, CRASHES, f"{where}: {signature(error)}", detail=traceback.format_exc())
    return Outcome(key, DIFFERS if told else EQUAL, f"{where}: {told}" if told else where)


def _drawn(d: Draw, path: Path, form: str, threads: int) -> _Request:
    rows = d.whole(1, 5)
    sizes = [d.whole(3, 12) for _ in range(2 if form == "image" else 1)]
    if form == "image":
        x = d.rng.normal(size=(rows, 2, *sizes)).astype(np.float32)
    elif form == "series":
        x = d.rng.normal(size=(rows, *sizes, 2)).astype(np.float32)
    else:
        x = d.rng.integers(9, size=(rows, *sizes)).astype(np.int32)
    target = [d.whole(-1, _CLASSES - 1) for _ in range(rows)]
    explain = d.maybe()
    alone = runtime.load(path, threads=threads).run(x, target=target, explain=explain)
    return _Request(x, target, explain, {n: np.asarray(r.array) for n, r in alone.items()})


def _repeated(art: runtime.Artefact, runs: Sequence[_Request], callers: int) -> str:
    """Runs all requests, and returns what was wrong; nothing where all was right."""
    warm_up = int(_WARM_UP * len(runs))
    wrong: list[str] = []
    with ThreadPoolExecutor(callers) as pool:
        _shared_out(art, runs[:warm_up], callers, pool, wrong)
        before = _held()
        _shared_out(art, runs[warm_up:], callers, pool, wrong)
        after = _held()
    grown, more = after[0] - before[0], after[1] - before[1]
    if grown > _BYTES:
        wrong.append(f"the process grew by {grown / 2**20:.1f} MiB")
    if more > _OBJECTS:
        wrong.append(f"{more} more objects are held")
    return "; ".join(wrong[:3])


def _shared_out(
    art: runtime.Artefact,
    runs: Sequence[_Request],
    callers: int,
    pool: ThreadPoolExecutor,
    wrong: list[str],
) -> None:
    """Gives each caller its share of the runs; all begin at once."""
    start = threading.Barrier(callers)

    def call(first: int) -> None:
        start.wait()
        for request in runs[first::callers]:
            if (told := _wrong(art, request)) and told not in wrong:
                wrong.append(told)

    for done in [pool.submit(call, first) for first in range(callers)]:
        done.result()


def _wrong(art: runtime.Artefact, request: _Request) -> str:
    result = art.run(request.x, target=request.target, explain=request.explain)
    if list(result) != list(request.expected):
        return f"it gave {list(result)} and not {list(request.expected)}"
    for name, expected in request.expected.items():
        if not np.array_equal(result[name].array, expected, equal_nan=True):
            return f"{name!r} of {request.x.shape} has other numbers than alone"
    return ""


def _held() -> tuple[int, int]:
    """Returns the bytes that this process has in memory, and how many objects Python holds.

    The C library keeps freed memory for a while. It gives that back first, where it can be told
    to: what earlier work left would otherwise hide growth when it goes, or look like it.
    """
    gc.collect()
    if give_back := getattr(ctypes.CDLL(None), "malloc_trim", None):
        give_back(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * resource.getpagesize(), sys.getallocatedblocks()
