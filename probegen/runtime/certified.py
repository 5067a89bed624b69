"""Whether the figures in a manifest were measured on the file that they came in.

A quantiser, a simplifier or an editor writes an artefact anew and keeps its metadata: manifest,
certificate, digest. The predictions are then others, and the figures speak of weights that are
gone. So each artefact that has figures is held against its digest when it is opened; that reads the
whole file, in a thread of its own, while the engine prepares the graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import warnings
from pathlib import Path

from probegen.artefact import integrity, onnx_file
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ArtefactError
from probegen.runtime.loaded import Artefact

#: What stands in a manifest without figures, as `Manifest.to_json` writes it.
_WITHOUT = ('"certificate": null', '"reference": null')


class ChangedArtefactWarning(UserWarning):
    """An artefact is not as probegen wrote it, so that its certificate says nothing of it."""


class Check:
    """A comparison of an artefact with its digests that goes on in a thread of its own."""

    def __init__(self, path: Path) -> None:
        """Begins it."""
        self._path, self._passed = path, False
        self._thread = threading.Thread(target=self._run, name="probegen-digest", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(ArtefactError, OSError):
            integrity.check(self._path)
            self._passed = True

    def passed(self) -> bool:
        """Waits for it, and tells whether the artefact is as probegen wrote it."""
        self._thread.join()
        return self._passed


def check_aside(path: Path) -> Check | None:
    """Begins to compare an artefact with its digests; None where it has no figures.

    An artefact without digests, or one that is about to be sealed, has none that holds.
    """
    if path.is_file():
        entry = onnx_file.metadata(path).get(ONNX_METADATA_KEY)
        if entry is None or all(empty in entry.text for empty in _WITHOUT):
            return None
    return Check(path)


def with_what_holds(artefact: Artefact, as_written: Check | None) -> Artefact:
    """Returns an artefact without the figures that were measured on other contents.

    Args:
        artefact: as opened.
        as_written: what `check_aside` returned.

    Warns:
        ChangedArtefactWarning: the contents are others.
    """
    manifest = artefact.manifest
    if as_written is None or (manifest.certificate is None and manifest.reference is None):
        return artefact
    if as_written.passed():
        return artefact
    warnings.warn(
        f"{artefact.path!r} is not as probegen wrote it, so what was measured on it then (its "
        "parity certificate) is left out: it does not speak of this file. Compile it again; to "
        "make a model smaller, `probegen quantise` verifies anew what it writes.",
        ChangedArtefactWarning,
        stacklevel=4,
    )
    without = manifest.replace(certificate=None, reference=None)
    return dataclasses.replace(artefact, manifest=without)
