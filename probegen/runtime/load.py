"""Opens an artefact: decides what a path holds and which engine runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from probegen.artefact import explain_file, integrity, weights_file
from probegen.artefact.manifest import Manifest
from probegen.artefact.work_folder import sweep
from probegen.errors import ArtefactError, did_you_mean
from probegen.runtime.certified import check_aside, with_what_holds
from probegen.runtime.engines import open_with
from probegen.runtime.engines.base import Engine, Options
from probegen.runtime.interface import check_interface
from probegen.runtime.loaded import Artefact
from probegen.stages import stage

_KERAS_MAGIC = {b"PK\x03\x04": "a .keras archive", b"\x89HDF": "an HDF5 file"}


def load(
    path: str | os.PathLike[str],
    *,
    engine: str | None = None,
    check: bool | None = None,
    **options: Unpack[Options],
) -> Artefact:
    """Opens an artefact that probegen exported.

    Args:
        path: an ONNX file (one with external data needs its data file beside it, one with
            `gate="split"` its second graph as well, which is opened by the first run that
            explains), or a SavedModel directory (which needs TensorFlow installed).
        engine: what runs it: `"onnxruntime"` (ONNX files by default), `"openvino"` (ONNX files)
            or `"savedmodel"` (TensorFlow, SavedModel directories by default).
        check: what follows where contents are not those of the digests that they were written
            with (another program rewrote the file, a bit flipped in a weight). By default what was
            measured on the old contents, certificate and reference, is left out of the manifest,
            with a warning; True refuses such an artefact; False does not look, which spares
            reading the whole file. Manifest and graph are held against each other in any case.
        options: what the engine is told: `threads` and `device` (`"cuda"`); of onnxruntime also
            `providers` and `session_options`; of OpenVINO also `config`. See
            `probegen.runtime.engines.base.Options`.

    Returns:
        The artefact, ready to run from several threads.

    Raises:
        ArtefactError: there is nothing at `path`, it is damaged, was not made by probegen, its
            data file is missing, cut short or of another build, there is no such engine or
            option, the engine does not run it or is not installed; with `check`, it is not as
            it was written.
        ManifestError: its manifest is damaged or of a newer schema.

    Warns:
        ChangedArtefactWarning: see `check`.
    """
    place = Path(path)
    with stage(f"{str(place)!r} cannot be opened", ArtefactError):
        if not place.exists():
            sweep(place.parent)  # an export that was killed may have moved it away
        if not place.exists():
            raise ArtefactError(f"there is no artefact at {str(place)!r}.{_neighbours(place)}")
        as_written = check_aside(_real(place)) if check is None else None
        opened = _load(place, engine, bool(check), options)
        return with_what_holds(opened, as_written)


def _load(path: Path, engine: str | None, check: bool, options: Options) -> Artefact:
    given = {name: value for name, value in options.items() if value is not None}
    if path.is_dir():
        if check and (path / "saved_model.pb").is_file():
            integrity.check(path)
        return Artefact.of(open_with(engine, path, "folder", given), str(path))
    place = _real(path)
    _refuse_keras(path)
    _refuse_data(path)
    if check:
        integrity.check(place)
    expected = explain_file.explain_file_of(place)
    if expected is None:
        return Artefact.of(open_with(engine, place, "file", given), str(path))
    explain_file.check_explain_file(place, expected)

    def open_second(manifest: Manifest) -> Engine:
        second = place.with_name(expected.location)
        with stage(f"{str(second)!r} cannot be opened", ArtefactError):
            if not second.is_file():
                explain_file.check_explain_file(place, expected)
            opened = open_with(engine, second, "file", given)
            explain_file.check_explain_file(place, expected)  # after loading: see `check_data`
            check_interface(str(second), manifest.replace(gate=False), opened)
        return opened

    return Artefact.of(open_with(engine, place, "file", given), str(path), open_second)


def _real(path: Path) -> Path:
    """Returns where a model lies: behind a symbolic link, unless its files lie beside the link."""
    if not path.is_symlink():
        return path
    named = (weights_file.data_of(path), explain_file.explain_file_of(path))
    beside = [path.with_name(file.location).exists() for file in named if file]
    return path if beside and all(beside) else path.resolve()


def _neighbours(path: Path) -> str:
    """Returns a hint from the artefacts that lie in the same folder."""
    if not path.parent.is_dir():
        return f" The folder {str(path.parent)!r} does not exist either."
    beside = [p.name for p in sorted(path.parent.iterdir()) if p.suffix == ".onnx" or p.is_dir()]
    return did_you_mean(path.name, beside)


def _refuse_keras(path: Path) -> None:
    """Raises where the file is a Keras model that was not compiled yet."""
    with path.open("rb") as file:
        kind = _KERAS_MAGIC.get(file.read(4))
    if kind is not None:
        raise ArtefactError(
            f"{str(path)!r} is {kind}, not an artefact. If it is a Keras model, compile it "
            f"first: probegen compile {path.name} -o {path.stem}.onnx"
        )


def _refuse_data(path: Path) -> None:
    """Raises where the file is the data of an artefact."""
    if weights_file.read_sha256(path) is not None:
        name = path.name.removesuffix(weights_file.SUFFIX)
        raise ArtefactError(
            f"{str(path)!r} holds the weights of an artefact; open the artefact beside it"
            f"{f' ({name!r})' if name != path.name else ''}."
        )
