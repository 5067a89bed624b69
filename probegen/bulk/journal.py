"""The journal of a bulk run: its artefact, options and input, by which it goes on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact import explain_file, weights_file
from probegen.artefact.manifest import Manifest
from probegen.bulk.inference import Asked
from probegen.bulk.inputs.base import Input, changed_since, identity
from probegen.bulk.records import own_names
from probegen.bulk.stores.base import Layout
from probegen.errors import OutputExistsError
from probegen.runtime.inputs import Array

_KIND, _VERSION = "probegen bulk run", 1
_CHUNK = 2**20


def journal_of(
    artefact: Path,
    manifest: Manifest,
    source: Input,
    asked: Asked,
    layout: Layout,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Returns the journal of a run that begins.

    Args:
        artefact: its file or folder.
        manifest: its manifest.
        source: the input.
        asked: what is asked of each sample.
        layout: how records are divided.
        options: what else says what comes out.
    """
    return {
        "kind": _KIND,
        "version": _VERSION,
        "finished": False,
        "began": time.time_ns(),
        "artefact": digest_of(artefact),
        "options": {
            **options,
            "target": asked.target,
            "explain": asked.explain,
            "check_finite": asked.check_finite,
            "scale": asked.scale,
            "groups": _digest(asked.groups),
            "region": _digest(asked.region),
            "output": [spec.name for spec in layout.outputs],
        },
        "input": {"samples": source.rows, "files": identity(source)},
        "rows_at_once": layout.rows_at_once,
        "rows_a_part": layout.rows_a_part,
        "manifest": manifest.to_json(),
    }


def is_journal(found: dict[str, Any] | None) -> bool:
    """Tells whether a journal is of a version that is known."""
    return found is not None and (found.get("kind"), found.get("version")) == (_KIND, _VERSION)


def layout_in(journal: dict[str, Any]) -> Layout:
    """Returns how the records of a run are divided."""
    manifest = Manifest.from_json(journal["manifest"])
    return Layout(
        tuple(manifest.output(name) for name in journal["options"]["output"]),
        int(journal["input"]["samples"]),
        int(journal["rows_at_once"]),
        int(journal["rows_a_part"]),
        *own_names(manifest),
    )


def check_same(place: Path, old: dict[str, Any], new: dict[str, Any], source: Input) -> None:
    """Refuses to go on with another run than the one that began.

    Raises:
        OutputExistsError: another artefact, option or input; the message says which.
    """
    changed = []
    if old["artefact"] != new["artefact"]:
        changed.append("the artefact is another one, or was changed")
    for name in sorted(old["options"].keys() | new["options"].keys()):
        then, now = (one["options"].get(name) for one in (old, new))
        if then != now:
            changed.append(f"{name.replace('_', ' ')} was {_said(then)} and is {_said(now)}")
    if old["input"]["samples"] != new["input"]["samples"]:
        then, now = (one["input"]["samples"] for one in (old, new))
        changed.append(f"the input had {then} samples and has {now}")
    elif old["input"]["files"] != new["input"]["files"]:
        later = changed_since(source, int(old["began"]))
        which = f": {', '.join(filter(None, later))}" if any(later) else ""
        changed.append(f"files of the input were changed, exchanged or named otherwise{which}")
    if changed:
        raise OutputExistsError(
            f"{place} holds the records of another run: {'; '.join(changed)}. Write to another "
            "place, or begin anew with overwrite=True (--overwrite)."
        )


def digest_of(artefact: Path) -> str:
    """Returns a digest of the contents of an artefact's files."""
    digest = hashlib.sha256()
    for path in _files_of(artefact):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _files_of(artefact: Path) -> Iterator[Path]:
    if artefact.is_dir():
        for folder, below, names in os.walk(artefact):
            below.sort()
            yield from (Path(folder, name) for name in sorted(names))
        return
    yield artefact
    real = artefact.resolve()
    for named in (weights_file.data_of(real), explain_file.explain_file_of(real)):
        if named is not None:
            beside = [p.with_name(named.location) for p in (artefact, real)]
            yield next((p for p in beside if p.is_file()), beside[0])


def _digest(array: Array | None) -> str | None:
    if array is None:
        return None
    plain = np.ascontiguousarray(array)
    told = f"{plain.dtype}{plain.shape}".encode()
    return hashlib.sha256(told + plain.tobytes()).hexdigest()[:16]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not given" if value is None else repr(value)
