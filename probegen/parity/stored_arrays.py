"""Finds the arrays of an artefact's probes in its graph, where the manifest does not hold them."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from probegen.artefact.explain_file import explain_file_of
from probegen.artefact.manifest import Manifest
from probegen.artefact.stored_arrays import completed
from probegen.graph.core.queries import constants_of


def with_arrays(path: Path, described: Manifest) -> Manifest:
    """Returns an artefact's manifest with the arrays of its probes.

    Raises:
        ManifestError: one is not in the graph any more.
    """
    probes = completed(described.probes, functools.partial(_constants, path))
    return described.replace(probes=probes)


def _constants(path: Path, sizes: Container[int]) -> Iterable[npt.NDArray[Any]]:
    if path.is_dir():
        from probegen.sources.keras.savedmodel import constants

        return constants(path, sizes)
    second = explain_file_of(path)  # of two graphs the one that explains
    return constants_of(ir.load(path if second is None else path.with_name(second.location)))(sizes)
