"""Hostile artefacts: cut short, bits flipped, manifests edited, data files that point elsewhere.

Each is opened, run, printed and drawn by the runtime. What is allowed: one of our own errors, or
the numbers that it gave before; others only where its digests are not looked at. Time and memory
are bounded, nothing outside of its folder is read and nothing is written.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import probegen as pg
from fuzz.drawing import Draw
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, HANGS, REFUSED, Outcome, signature
from fuzz.weights import with_weights
from probegen import runtime
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ProbegenError

#: No hostile file may take longer, or more memory beyond what the process has.
_SECONDS, _BYTES = 30.0, 3 * 2**30
#: One case in so many is drawn as a page of HTML as well.
_DRAWN = 12
_FORMS = ("one", "data", "split", "text")

_IMAGE = """
<ir_version: 8, opset_import: ["" : 18]>
image_model (float[batch, 2, 7, 5] image) => (float[batch, 3] scores)
<float[64, 2, 3, 3] kernel, float[64] bias, float[64, 3] dense>
{
    conv = Conv <pads = [1, 1, 1, 1]> (image, kernel, bias)
    relu = Relu (conv)
    pooled = GlobalAveragePool (relu)
    flat = Flatten (pooled)
    logits = MatMul (flat, dense)
    scores = Softmax (logits)
}
"""
_TOKENS = """
<ir_version: 8, opset_import: ["" : 18]>
token_model (int32[batch, time] ids) => (float[batch, 3] scores)
<float[9, 4] table, float[4, 3] dense, int64[1] axis = {1}>
{
    vectors = Gather (table, ids)
    bent = Tanh (vectors)
    mean = ReduceMean <keepdims = 0> (bent, axis)
    logits = MatMul (mean, dense)
    scores = Softmax (logits)
}
"""


class FoundError(Exception):
    """What a hostile artefact did that it should not."""


@functools.cache
def originals() -> Path:
    """Returns a folder with one artefact of each form, made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    rng = np.random.default_rng(0)
    image = with_weights(_IMAGE, rng)
    probes = [pg.Saliency(target="input"), pg.GradCAM(layer="relu"), pg.Activations("relu")]
    names = ["cat", "dog", "bird"]
    pg.compile(image, probes, folder / "one.onnx", class_names=names)
    pg.compile(image, probes, folder / "data.onnx", external_data=True, verify=False)
    pg.compile(image, probes, folder / "split.onnx", gate="split", verify=False)
    pg.compile(with_weights(_TOKENS, rng), [pg.Saliency()], folder / "text.onnx", class_names=names)
    return folder


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the hostile artefact of a key."""
    del known
    d = Draw(key)
    form = d.one(_FORMS)
    damage = d.one([h for h in DAMAGES if h is not _data_elsewhere or form in ("data", "split")])
    where = f"{form}, {damage.__name__.strip('_')}"
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "folder"
        shutil.copytree(originals(), folder)
        path = folder / f"{form}.onnx"
        return outcome_of(
            key,
            where,
            Path(outside),
            lambda: damage(d, path),
            lambda: _used(d, path, form, key),
            _SECONDS,
        )


def outcome_of(
    key: str,
    where: str,
    outside: Path,
    hurt: Callable[[], str],
    use: Callable[[], bool],
    seconds: float,
) -> Outcome:
    """Damages an artefact, uses it, and tells what came of it.

    Args:
        key: of the case.
        where: the artefact and its damage, in words.
        outside: the folder around that of the artefact; nothing may be written in it.
        hurt: damages it, and tells how.
        use: opens and runs it; tells whether its numbers are those of before, and raises a
            FoundError where it may not have others.
        seconds: of processor time, that it may take.
    """
    try:
        told = hurt()
    except (ValueError, KeyError, IndexError, TypeError) as error:  # nothing left to damage
        return Outcome(key, EQUAL, f"{where}: not applied: {type(error).__name__}")
    before = files_in(outside)
    start = time.process_time()
    try:
        with bounded():
            same = use()
        verdict, reason = (EQUAL, "") if same else (REFUSED, "other numbers")
    except ProbegenError as error:
        verdict, reason = REFUSED, signature(error)
    except FoundError as error:
        return Outcome(key, DIFFERS, f"{where}, {told}: {error}")
    except Exception as error:  # what nobody meant to raise is what is looked for
        return Outcome(
            key, CRASHES, f"{where}, {told}: {signature(error)}", detail=traceback.format_exc()
        )
    if (took := time.process_time() - start) > seconds:
        return Outcome(key, HANGS, f"{where}, {told}: took {took:.0f} s")
    if files_in(outside) != before:
        return Outcome(key, DIFFERS, f"{where}, {told}: files were written")
    return Outcome(key, verdict, f"{where}: {reason}")


def _used(d: Draw, path: Path, form: str, key: str) -> bool:
    """Opens, runs, prints and draws an artefact; returns whether its numbers are the old ones.

    Raises:
        FoundError: it was not refused although its contents are checked and are others.
    """
    check = d.maybe(0.3)
    art = runtime.load(path, threads=1, check=check)
    repr(art)
    x = inputs(form)
    result = art.run(x)
    plain = art.run(x, explain=False)
    numbers = {name: np.asarray(record.array) for name, record in result.items()}
    for record in (*result.values(), *plain.values()):
        repr(record)
    expected = _expected(form)
    same = all(
        name in expected and np.array_equal(array, expected[name], equal_nan=True)
        for name, array in numbers.items()
    )
    if check and not same:
        raise FoundError("its contents are others than its digests say, and it was opened")
    if int(key.rpartition(":")[2]) % _DRAWN == 0:
        page = path.with_name("page.html")
        result.to_html(page)
        page.unlink()
    return same


def inputs(form: str) -> Any:
    """Returns a batch of two samples for an artefact."""
    if form == "text":
        return np.array([[1, 2, 3, 0], [4, 0, 0, 8]], np.int32)
    return np.random.default_rng(1).normal(size=(2, 2, 7, 5)).astype(np.float32)


@functools.cache
def _expected(form: str) -> Mapping[str, Any]:
    result = runtime.load(originals() / f"{form}.onnx", threads=1).run(inputs(form))
    return {name: np.asarray(record.array) for name, record in result.items()}


def files_in(folder: Path) -> set[tuple[str, int]]:
    """Returns the files in a folder, with when each was changed."""
    found = (p for p in folder.rglob("*") if not p.is_dir() and not p.is_fifo())
    return {(str(p), os.lstat(p).st_mtime_ns) for p in found}


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Bounds the memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# -- damages -----------------------------------------------------------------------------------


def _file_of(d: Draw, path: Path) -> Path:
    """Returns the artefact, or one of the files beside it that belong to it."""
    return d.one([path, *sorted(path.parent.glob(f"{path.stem}.*.onnx*")), *_data(path)])


def _data(path: Path) -> list[Path]:
    return [p for p in [path.with_name(path.name + ".data")] if p.exists()]


def _cut_short(d: Draw, path: Path) -> str:
    return cut_short(d, _file_of(d, path))


def cut_short(d: Draw, place: Path) -> str:
    """Cuts a file short; returns what was done."""
    content = place.read_bytes()
    kept = d.whole(0, len(content) - 1)
    place.write_bytes(content[:kept])
    return f"{place.name} cut to {kept} bytes"


def _flip(d: Draw, path: Path) -> str:
    return flip(d, _file_of(d, path))


def flip(d: Draw, place: Path) -> str:
    """Flips bits of a file; returns what was done."""
    content = bytearray(place.read_bytes())
    for _ in range(d.one((1, 1, 2, 8))):
        content[d.whole(0, len(content) - 1)] ^= 1 << d.whole(0, 7)
    place.write_bytes(content)
    return f"bits flipped in {place.name}"


def _overwrite(d: Draw, path: Path) -> str:
    return overwrite(d, _file_of(d, path))


def overwrite(d: Draw, place: Path) -> str:
    """Overwrites a part of a file; returns what was done."""
    content = bytearray(place.read_bytes())
    start = d.whole(0, len(content) - 1)
    length = d.whole(1, 40)
    content[start : start + length] = d.one((b"\xff", b"\x00", b"<", b"\x80")) * length
    place.write_bytes(content)
    return f"{length} bytes of {place.name} overwritten"


def _remove(d: Draw, path: Path) -> str:
    return remove(d, _file_of(d, path))


def remove(d: Draw, place: Path) -> str:
    """Removes a file, or puts a folder in its place; returns what was done."""
    place.unlink()
    if d.maybe(0.3):
        place.mkdir()
    return f"{place.name} removed"


def _edit_manifest(d: Draw, path: Path) -> str:
    model = onnx.load(path, load_external_data=False)
    entry = next(m for m in model.metadata_props if m.key == ONNX_METADATA_KEY)
    entry.value, told = edited(d, entry.value)
    path.write_bytes(model.SerializeToString())
    return told


def edited(d: Draw, text: str) -> tuple[str, str]:
    """Returns JSON with some values replaced or removed, and what was done."""
    value = json.loads(text)
    told = []
    for _ in range(d.one((1, 1, 1, 2, 4))):
        places = list(_places(value))
        parent, index = places[d.whole(0, len(places) - 1)]
        told.append(f"{index}")
        if d.maybe(0.2):
            del parent[index]
        else:
            parent[index] = d.one(_values(parent[index]))
    return json.dumps(value), f"manifest edited at {', '.join(told)}"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for index, inner in list(entries):
        yield value, index
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _values(old: Any) -> list[Any]:
    """Returns what may stand in the place of a value of a manifest."""
    found: list[Any] = [
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**63 - 1,
        2**64,
        1.5,
        -0.0,
        1e308,
        "",
        "x",
        [],
        {},
    ]
    found += [
        "\x00",
        "\x1b[31m",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "/etc/passwd",
        "(a+)+$",
    ]
    found += ["y" * 10_000, "argmax", "batch", "channel", "image", "scores", "saliency", [[[[]]]]]
    deep: Any = None
    for _ in range(60):
        deep = [deep]
    found.append(deep)
    found += [[old], {"a": old}, copy.deepcopy(old)]
    if isinstance(old, list):
        found += [old + old, old[::-1], old[:-1], old * 50]
    if isinstance(old, str):
        found += [old + "x", old.upper(), old[:-1], old * 100]
    if isinstance(old, int | float) and not isinstance(old, bool):
        found += [old + 1, -old, old * 1000, str(old)]
    return found


def _edit_metadata(d: Draw, path: Path) -> str:
    model = onnx.load(path, load_external_data=False)
    entry = d.one(list(model.metadata_props))
    told = entry.key
    kind = d.whole(0, 4)
    if kind == 0:
        model.metadata_props.remove(entry)
    elif kind == 1:
        entry.value = d.one(("", "{}", "[]", "null", "[" * 5000, '{"schema": 99}', "\x7f" * 100))
    elif kind == 2:
        more = model.metadata_props.add()
        more.key, more.value = entry.key, "{}"
    elif kind == 3:
        entry.value = entry.value.replace("onnx", "../onnx").replace('"', "'")
    else:
        entry.key = entry.key.upper()
    path.write_bytes(model.SerializeToString())
    return f"metadata {told} edited"


def _edit_graph(d: Draw, path: Path) -> str:
    model = onnx.load(path, load_external_data=False)
    kind = d.whole(0, 7)
    graph = model.graph
    if kind == 0:
        graph.input[d.whole(0, len(graph.input) - 1)].name = "other"
    elif kind == 1:
        graph.output[d.whole(0, len(graph.output) - 1)].name = "other"
    elif kind == 2:
        value = d.one([*graph.input, *graph.output])
        dims = value.type.tensor_type.shape.dim
        dims[d.whole(0, len(dims) - 1)].dim_value = d.one((0, 1, 7, 2**40, -3))
    elif kind == 3:
        value = d.one([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = d.whole(0, 25)
    elif kind == 4:
        tensor = d.one(list(graph.initializer))
        tensor.dims[d.whole(0, len(tensor.dims) - 1)] = d.one((0, 1, 2**40, 2**62, -1))
    elif kind == 5:
        del graph.node[d.whole(0, len(graph.node) - 1)]
    elif kind == 6:
        node = d.one(list(graph.node))
        node.op_type = d.one(("Relu", "Loop", "Nope", "If", "ConstantOfShape", "Identity"))
    else:
        model.opset_import[0].version = d.one((0, 1, 7, 99, -1))
    path.write_bytes(model.SerializeToString())
    return f"graph edited in way {kind}"


def _data_elsewhere(d: Draw, path: Path) -> str:
    """Lets tensors lie in a file outside of the folder, which holds other numbers."""
    data = path.with_name(path.name + ".data")
    outside = path.parent.parent / "secret.data"
    outside.write_bytes(bytes(reversed(data.read_bytes())))
    kind = d.whole(0, 4)
    if kind == 0:
        data.unlink()
        data.symlink_to(outside)
        return "the data file is a link to another place"
    if kind == 1:
        data.unlink()
        os.mkfifo(data)
        return "the data file is a pipe"
    place = d.one((str(outside), "../secret.data", "./../folder/../secret.data", "/dev/zero"))
    for file in [path, *path.parent.glob(f"{path.stem}.*.onnx")]:
        model = onnx.load(file, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
                elif kind == 3 and entry.key in ("offset", "length"):
                    entry.value = d.one(("-1", str(2**62), "x", "0"))
        if kind == 4:
            for prop in model.metadata_props:
                prop.value = prop.value.replace(data.name, place)
        file.write_bytes(model.SerializeToString())
    return f"its tensors lie at {place}"


#: Damages that a case draws from.
DAMAGES: tuple[Callable[[Draw, Path], str], ...] = (
    _cut_short,
    _flip,
    _flip,
    _overwrite,
    _remove,
    *(_edit_manifest,) * 5,
    _edit_metadata,
    *(_edit_graph,) * 2,
    *(_data_elsewhere,) * 2,
)
