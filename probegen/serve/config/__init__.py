"""The table of servers of others that configuration is written for: one file and one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from probegen.artefact.publishing import aside, check_place, link_or_copy, put
from probegen.errors import SpecError, did_you_mean
from probegen.serve.config import docker, kserve_yaml, tensorflow_serving, triton
from probegen.serve.config.base import Content, Options, Subject
from probegen.stages import writing

__all__ = ["SERVERS", "Options", "Subject", "write"]

#: Writes nothing itself: returns the files of a configuration, by their paths in its folder.
Writer = Callable[[Subject, Options], Mapping[str, Content]]

SERVERS: Mapping[str, Writer] = {
    "triton": triton.files,
    "kserve": kserve_yaml.files,
    "docker": docker.files,
    "tensorflow-serving": tensorflow_serving.files,
}


def write(
    server: str,
    artefact: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Writes what a server needs to serve an artefact, whole or not at all.

    Args:
        server: one of `SERVERS`.
        artefact: an ONNX file, or for TensorFlow Serving a SavedModel.
        folder: where it goes; files of the artefact are linked into it, or copied.
        options: names, image, sizes.
        overwrite: replace the folder where it exists.

    Returns:
        The files that were written.

    Raises:
        SpecError: there is no such server, or it cannot serve this artefact; says what would.
        OutputExistsError: the folder exists.
        ArtefactError: the artefact cannot be opened.
    """
    if server not in SERVERS:
        raise SpecError(f"there is no server {server!r}.{did_you_mean(server, SERVERS)}")
    final = Path(folder)
    check_place(final, "savedmodel", overwrite)
    files = SERVERS[server](Subject.of(artefact), options or Options())
    with aside(final) as place, writing(final):
        for name, content in files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                link_or_copy(content, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        put(place, final)
    return [final / name for name in files]
