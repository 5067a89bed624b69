"""Results as `.npz` files that plain numpy reads and that hold no pickle.

Output names become percent-encoded member names (`saliency/image` is `saliency%2Fimage`), so
that no name reaches outside a folder the archive is unpacked into. Members that start with `@`,
which no encoded name does, hold the rest: the manifest as JSON, the inputs, the target, the times.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

import numpy as np

from probegen.errors import ArtefactError, InputError
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import Array
from probegen.runtime.read import arrays
from probegen.runtime.times import Times, as_array

_MANIFEST = "@manifest"
_SOURCE = "@source"
_TARGET = "@target"
_INPUT = "@input."
#: What stands at the steps of all series, or of one by its name.
_TIME, _TIME_OF = "@time", "@time."


def write(
    path: str | os.PathLike[str],
    outputs: Mapping[str, Array],
    *,
    inputs: Mapping[str, Array],
    target: Array | None,
    manifest: str,
    source: str,
    time: Times | None,
) -> Path:
    """Writes the arrays of one result atomically; returns the path."""
    members = {quote(name, safe=""): array for name, array in outputs.items()}
    members |= {_INPUT + quote(name, safe=""): array for name, array in inputs.items()}
    members |= {_MANIFEST: np.array(manifest), _SOURCE: np.array(source)}
    if target is not None:
        members[_TARGET] = target
    if isinstance(time, Mapping):
        members |= {_TIME_OF + quote(name, safe=""): as_array(t) for name, t in time.items()}
    elif time is not None:
        members[_TIME] = as_array(time)

    def fill(file: IO[bytes]) -> None:
        # numpy.savez takes names as keyword arguments, and `file` is one of its own.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, array in members.items():
                with archive.open(name + ".npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, _plain(array), allow_pickle=False)

    return write_atomic(path, fill)


def read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Array], dict[str, Array], Array | None, str, str, Times | None]:
    """Returns what `write` was given: outputs, inputs, target, manifest, source and times.

    Raises:
        ArtefactError: the file is not there, damaged, or was not written by `write`.
    """
    place = Path(path)
    if not place.is_file():
        raise ArtefactError(f"there is no file {str(path)!r}.")
    try:
        members = arrays.read_npz(place)
    except InputError as error:
        raise ArtefactError(f"{str(path)!r} is damaged or no .npz file: {error}") from error
    told = [_text(members, name, path) for name in (_MANIFEST, _SOURCE)]
    outputs = {unquote(n): a for n, a in members.items() if not n.startswith("@")}
    inputs = {unquote(n[len(_INPUT) :]): a for n, a in members.items() if n.startswith(_INPUT)}
    of_inputs = {
        unquote(n[len(_TIME_OF) :]): a for n, a in members.items() if n.startswith(_TIME_OF)
    }
    time = of_inputs or members.get(_TIME)
    return outputs, inputs, members.get(_TARGET), told[0], told[1], time


def _text(members: Mapping[str, Array], name: str, path: str | os.PathLike[str]) -> str:
    array = members.get(name)
    if array is None or array.shape != () or array.dtype.kind != "U":
        raise ArtefactError(
            f"{str(path)!r} was not written by Result.to_npz, or is damaged: no {name}."
        )
    try:
        return str(array[()])
    except ValueError as error:  # no characters
        raise ArtefactError(f"{str(path)!r} is damaged: {name} is no text ({error}).") from error


def _plain(array: Array) -> Array:
    """Returns an array without Python objects: strings get a fixed length."""
    if array.dtype.kind != "O":
        return array
    return array.astype("S" if all(isinstance(v, bytes) for v in array.flat) else "U")
