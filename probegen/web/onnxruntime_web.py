"""onnxruntime for browsers: taken from a folder, or from npm."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from probegen.errors import SpecError
from probegen.stages import stage

PACKAGE = "onnxruntime-web"
#: The version that pages are tested with (`make test-web`), and that npm is asked for.
VERSION = "1.30.0"
#: The script of WebAssembly alone, and what it loads.
SCRIPT = "ort.wasm.min.js"
MODULE = "ort-wasm-simd-threaded.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
FILES = (SCRIPT, MODULE, WASM)

#: Where the files lie in the package.
_DIST = "dist"
_PACKAGE_JSON = "package.json"
_SECONDS = 300
_OTHERWISE = (
    f"On a machine with npm, `npm pack {PACKAGE}@{VERSION}` gets a .tgz file: unpack it, and pass "
    "the folder with --onnxruntime-web DIR (onnxruntime_web=DIR)."
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What a page needs of onnxruntime-web.

    Attributes:
        files: what each of `FILES` holds.
        version: of the package; empty where that is not known.
    """

    files: Mapping[str, bytes]
    version: str


def bundle_of(folder: str | os.PathLike[str] | None) -> Bundle:
    """Returns onnxruntime-web from a folder, or from npm where there is none.

    Raises:
        SpecError: it is not there, or npm is not; says what to do.
    """
    return _fetched() if folder is None else _found_in(Path(folder))


def _found_in(folder: Path) -> Bundle:
    """Returns it from the package's folder, its `dist`, or a `node_modules` that holds it."""
    for place in (folder, folder / _DIST, folder / PACKAGE / _DIST):
        if all((place / name).is_file() for name in FILES):
            with stage(f"onnxruntime-web in {str(place)!r} cannot be read", SpecError):
                files = {name: (place / name).read_bytes() for name in FILES}
                return Bundle(files, _version_beside(place) or _version_in(files[SCRIPT]))
    raise SpecError(
        f"{str(folder)!r} is no folder of {PACKAGE}: neither in it nor in its {_DIST!r} lie "
        f"{', '.join(FILES)}. {_OTHERWISE}"
    )


def _version_beside(place: Path) -> str:
    """Returns the version that the package's own description tells."""
    for folder in (place, place.parent):
        try:
            told = json.loads((folder / _PACKAGE_JSON).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict) and told.get("name") == PACKAGE:
            return str(told.get("version", ""))
    return ""


def _version_in(script: bytes) -> str:
    """Returns the version that stands at the head of the script."""
    found = re.search(rb"ONNX Runtime Web v(\d[\w.-]*)", script[:500])
    return found[1].decode() if found else ""


def _fetched() -> Bundle:
    """Returns it from npm, which checks its digest and keeps it in its own cache."""
    npm = shutil.which("npm")
    if npm is None:
        raise SpecError(
            f"a page needs {PACKAGE}, which npm fetches, and npm is not installed. {_OTHERWISE}"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SpecError(f"npm could not fetch {PACKAGE}: {error}. {_OTHERWISE}") from error
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or packed is None:
            said = " ".join((done.stderr or done.stdout).split())[:300] or "nothing"
            raise SpecError(
                f"npm could not fetch {PACKAGE}@{VERSION}; it says: {said}. {_OTHERWISE}"
            )
        return _unpacked(packed)


def _unpacked(packed: Path) -> Bundle:
    """Returns it from a package as npm packs them; nothing of it is written or run."""
    with (
        stage(f"the package {PACKAGE} that npm fetched cannot be read", SpecError, _OTHERWISE),
        tarfile.open(packed) as archive,
    ):
        files = {}
        for name in FILES:
            content = archive.extractfile(f"package/{_DIST}/{name}")
            if content is None:
                raise SpecError(f"the package {PACKAGE} holds no {name}. {_OTHERWISE}")
            files[name] = content.read()
    return Bundle(files, VERSION)
