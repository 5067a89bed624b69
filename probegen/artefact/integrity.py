"""Digests by which an artefact tells that it is as it was written, to the last bit.

An ONNX file holds in its metadata the SHA-256 of all its bytes, taken with zeros in the place of
the digits. So weights, graph, manifest and certificate are all covered. Weights in a second file
are covered by the digest in its header, of which the model holds a copy; see `weights_file`. So is
a second graph by the digest that it carries; see `explain_file`. A
SavedModel lists the SHA-256 of its files in `assets.extra/probegen.sha256`, in the format of
`sha256sum`, which checks it as well: `sha256sum -c assets.extra/probegen.sha256`.

This finds what happens by accident: bits that flip on a disk or on the way, a copy that was cut
short, another program that wrote the file anew. It does not protect against somebody who changes a
file and its digest; sign artefacts for that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from probegen.artefact import explain_file, onnx_file, weights_file
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ArtefactError

METADATA_KEY = onnx_file.DIGEST_KEY
#: What stands in the place of the digits while the digest is taken.
BLANK = onnx_file.NO_DIGEST
SAVEDMODEL_DIGESTS = "assets.extra/probegen.sha256"

#: What of a SavedModel has to be listed; other files (notes, a file manager's) may lie there.
_LISTED = re.compile(r"saved_model\.pb|fingerprint\.pb|(variables|assets|assets\.extra)/.+")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK = 2**20
_REMEDY = "Copy it again from where it was made, or compile it again."


def seal(path: Path) -> None:
    """Writes the digests into a finished artefact; an ONNX file has room for it (`BLANK`)."""
    if path.is_dir():
        lines = [f"{_digest(path / name)}  {name}\n" for name in sorted(_files(path))]
        (path / SAVEDMODEL_DIGESTS).write_text("".join(lines), encoding="utf-8")
        return
    entries = onnx_file.metadata(path)
    second = explain_file.explain_file_of(path)
    if second is not None:
        place = path.with_name(second.location)
        seal(place)
        _fill_in(path, entries[explain_file.METADATA_KEY].start, sealed(place))
    start = entries[METADATA_KEY].start
    _fill_in(path, start, _digest(path, start))


def _fill_in(path: Path, start: int, digest: str) -> None:
    """Writes the digits of a digest over what stands at a byte of a file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode("ascii"))


def check(path: Path) -> str:
    """Compares an artefact with its digests; reads all of it. Returns the digest of the whole.

    Raises:
        ArtefactError: a bit of it is other than probegen wrote it, or it holds no digest.
    """
    return _check_folder(path) if path.is_dir() else _check_onnx(path)


def sealed(path: Path) -> str:
    """Returns the digest of the whole that an artefact carries, which `check` holds it against."""
    if path.is_dir():
        return _digest(path / SAVEDMODEL_DIGESTS)
    return onnx_file.metadata(path)[METADATA_KEY].text


def _check_onnx(path: Path) -> str:
    found = _check_digest(path)
    data = weights_file.data_of(path)
    if data is not None:
        weights_file.check_data(path, data)
        weights_file.check_data_contents(path, data)
    second = explain_file.explain_file_of(path)
    if second is not None:
        _check_digest(explain_file.check_explain_file(path, second))
    return found


def _check_digest(path: Path) -> str:
    """Compares the bytes of an ONNX file with the digest in it, which it returns.

    Raises:
        ArtefactError: it has none, or another.
    """
    entries = onnx_file.metadata(path)
    entry = entries.get(METADATA_KEY)
    if not entries.keys() & {METADATA_KEY, ONNX_METADATA_KEY}:
        raise ArtefactError(
            f"{str(path)!r} carries neither a manifest nor a digest: it was not made by probegen, "
            "or cut short, or another program wrote it since. Compile the model with `probegen "
            "compile MODEL -o OUT.onnx` or pg.compile(...), or copy the artefact again."
        )
    if entry is None:
        raise ArtefactError(_without(path))
    found = _digest(path, entry.start)
    if found != entry.text:
        raise ArtefactError(
            f"{str(path)!r} is not as probegen wrote it: the SHA-256 of its contents is "
            f"{found[:12]}..., and it was written with {entry.text[:12]!a}... It was damaged, or "
            f"changed by another program. {_REMEDY}"
        )
    return found


def _check_folder(folder: Path) -> str:
    place = folder / SAVEDMODEL_DIGESTS
    if not place.is_file():
        raise ArtefactError(_without(folder))
    listed = _listed(place)
    for name in sorted({*listed, *_files(folder)}):
        if not (folder / name).is_file():
            problem = f"its file {name!r} is missing"
        elif name not in listed:
            problem = f"its file {name!r} is not among those that it was written with"
        elif _digest(folder / name) != listed[name]:
            problem = f"its file {name!r} has another content"
        else:
            continue
        raise ArtefactError(f"{str(folder)!r} is not as probegen wrote it: {problem}. {_REMEDY}")
    return _digest(place)


def _listed(place: Path) -> dict[str, str]:
    """Returns name -> digest."""
    found = {}
    for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2]) if match else None
        if match is None or name is None or name.is_absolute() or ".." in name.parts:
            raise ArtefactError(f"{str(place)!r} is damaged: {line[:80]!a}. {_REMEDY}")
        found[match[2]] = match[1]
    return found


def _files(folder: Path) -> Iterator[str]:
    """Yields the names of the files in a SavedModel that its digests cover."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and _LISTED.fullmatch(name) and name != SAVEDMODEL_DIGESTS:
            yield name


def _without(path: Path) -> str:
    return (
        f"{str(path)!r} holds no digest of its contents, so that they cannot be checked: it was "
        "cut short, or not made by probegen, or by an older one, or another program wrote it "
        "since. Copy it or compile it again, or leave its digests out: load it without check=True, "
        "verify it with digests=False (--answers-only)."
    )


def digest_of(content: bytes) -> str:
    """Returns the SHA-256 of what a file will hold, as digests of a SavedModel list it."""
    return hashlib.sha256(content).hexdigest()


def _digest(path: Path, blank_at: int | None = None) -> str:
    """Returns the SHA-256 of a file, with `BLANK` in the place of what stands at a byte of it."""
    with path.open("rb") as file:
        if blank_at is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while left := blank_at - file.tell():
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                break
            digest.update(chunk)
        digest.update(BLANK.encode("ascii"))
        file.seek(blank_at + len(BLANK))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
