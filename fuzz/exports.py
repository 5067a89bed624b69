"""Exports that are killed at a random moment, find the disk full, meet, or may not write.

What lies there afterwards is the old artefact or the new one, whole and to the last bit, and the
next export leaves nothing beside its own files.
"""

from __future__ import annotations

import functools
import gc
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import probegen as pg
from fuzz.drawing import Draw
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, Outcome, signature
from fuzz.weights import with_weights
from probegen import runtime
from probegen.errors import ProbegenError, WriteError

Array = npt.NDArray[Any]

#: Form of an artefact -> the options that it is written with, and the files that it has.
_FORMS: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one file": ({"gate": False}, ("m.onnx",)),
    "with data": ({"external_data": True}, ("m.onnx", "m.onnx.data")),
    "two graphs": ({"gate": "split"}, ("m.explain.onnx", "m.onnx", "m.onnx.data")),
}
#: What happens to an export, by how often.
_FATES = ("killed",) * 5 + ("killed twice", "full", "met", "not allowed")
_MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
small (float[batch, 7] x) => (float[batch, 3] y)
<float[7, 90] one, float[90, 3] two>
{ a = MatMul (x, one)  b = Tanh (a)  c = MatMul (b, two)  y = Softmax (c) }
"""
_FEED = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)
#: Status of a process whose export was refused as it should be.
_REFUSED = 3
_NOBODY = 65534


class _FoundError(Exception):
    """What lies there is not what should."""


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the export of a key."""
    del known
    d = Draw(key)
    form, before, fate = d.one(tuple(_FORMS)), d.one((*_FORMS, "")), d.one(_FATES)
    where = f"{form}, over {before or 'nothing'}, {fate}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            path = Path(folder) / "m.onnx"
            if before:
                _export(1, path, before)
            told = _met_its_fate(d, path, form, fate)
            _check(path, form, before)
    except _FoundError as error:
        return Outcome(key, DIFFERS, f"{where}: {error}")
    except Exception as error:
        return Outcome(key, CRASHES, f"{where}: {signature(error)}")
    return Outcome(key, EQUAL, f"{where}{told}")


def _met_its_fate(d: Draw, path: Path, form: str, fate: str) -> str:
    """Exports the second model and does to it what was drawn.

    Raises:
        _FoundError: it ended in another way than it should.
    """
    export = functools.partial(_export, 2, path, form)
    if fate.startswith("killed"):
        for _ in range(2 if fate == "killed twice" else 1):
            child = _forked(export)
            time.sleep(d.rng.uniform(0, 1.3 * _seconds(form)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return ""
    if fate == "full":
        size = d.one((0, 100, 700, 1500, 3000))
        _ends_with(_forked(functools.partial(_on_a_full_disk, export, size)), (_REFUSED,))
        return f" after {size} bytes"
    if fate == "met":
        children = [_forked(functools.partial(_export, s, path, form)) for s in (1, 2, 2)]
        for child in children:
            _ends_with(child, (0,))
        return ""
    path.parent.chmod(0o555)
    _ends_with(_forked(functools.partial(_as_nobody, export)), (_REFUSED,))
    path.parent.chmod(0o755)
    return ""


def _on_a_full_disk(export: Callable[[], None], size: int) -> None:
    """Exports where no file may grow beyond some bytes: any write may be the one that fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    _refused(export)


def _as_nobody(export: Callable[[], None]) -> None:
    """Exports as a user who may not write there."""
    if os.geteuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    _refused(export)


def _refused(export: Callable[[], None]) -> None:
    try:
        export()
    except WriteError:
        os._exit(_REFUSED)
    os._exit(1)


def _check(path: Path, form: str, before: str) -> None:
    """Looks at what lies there, and exports again.

    Raises:
        _FoundError: it is neither the old artefact nor the new one, or there is litter.
    """
    forms = {form, before} - {""}
    try:
        found = _numbers(path)
    except ProbegenError as error:
        if before or path.exists():
            raise _FoundError(f"what lies there cannot be used: {signature(error)}") from error
    else:
        if not any(_same(found, _answers(seed, f)) for f in forms for seed in (1, 2)):
            raise _FoundError("what lies there is neither the old artefact nor the new one")
    _export(1, path, form)
    if not _same(_numbers(path), _answers(1, form)):
        raise _FoundError("the next export is another artefact")
    left = tuple(sorted(p.name for p in path.parent.iterdir()))
    if left != _FORMS[form][1]:
        raise _FoundError(f"the next export leaves {', '.join(left)}")


def _export(seed: int, path: Path, form: str) -> None:
    model = with_weights(_MODEL, np.random.default_rng(seed))
    pg.compile(model, [pg.Saliency()], path, verify=False, **_FORMS[form][0])


def _numbers(path: Path) -> dict[str, Array]:
    art = runtime.load(path, check=True, threads=1)
    return {name: np.asarray(record.array) for name, record in art.run(_FEED).items()}


@functools.cache
def _answers(seed: int, form: str) -> dict[str, Array]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        _export(seed, folder / "m.onnx", form)
        return _numbers(folder / "m.onnx")
    finally:
        shutil.rmtree(folder)


@functools.cache
def _seconds(form: str) -> float:
    """Returns how long an export takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        _export(2, Path(folder) / "m.onnx", form)
        return time.monotonic() - start


def _same(found: dict[str, Array], right: dict[str, Array]) -> bool:
    return found.keys() == right.keys() and all(
        np.array_equal(found[name], array) for name, array in right.items()
    )


def _forked(work: Callable[[], None]) -> int:
    """Does something in a process of its own; returns its number."""
    child = os.fork()
    if not child:
        gc.freeze()  # sessions of the parent that end here wait for threads that only it has
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def _ends_with(child: int, allowed: Collection[int]) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in allowed:
        raise _FoundError(f"its process ended with {status}")
