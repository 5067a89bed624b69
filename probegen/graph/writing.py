"""Writes a finished model, with its large weights beside it where they need a file of their own,
and a second graph where it has two."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from probegen.artefact import explain_file, integrity
from probegen.artefact.explain_file import ExplainFile, explain_path
from probegen.artefact.manifest import Manifest
from probegen.artefact.weights_file import SUFFIX
from probegen.graph import assemble
from probegen.graph.external_data import bring_inside, wants_external_data, write_external_data
from probegen.graph.split import plain_graph
from probegen.stages import check_name


def write_model(model: ir.Model, path: Path, external_data: bool | None) -> None:
    """Writes a model, with room for its seal, and has it checked.

    Args:
        model: the finished model; changed in place.
        path: where to; the folder exists.
        external_data: put large weights into `path` + `.data`; None: where one file cannot
            hold them.

    Raises:
        ExportError: False was asked and the weights do not fit, or the file is not valid ONNX.
        WriteError: the data file's name is too long.
    """
    if wants_external_data(model, external_data):
        check_name(path, SUFFIX)
        write_external_data(model, path)
    bring_inside(model, path)
    _save(model, path)


def write_split(model: ir.Model, path: Path, described: Manifest) -> ir.Model:
    """Writes the part of a model that predicts, and the whole beside it, over one weights file.

    Args:
        model: the finished model; changed in place: it keeps no weights.
        path: where the part goes; the folder exists.
        described: the manifest of the part, which says what both together do.

    Returns:
        The part. Both can be saved again, at `path` and at `explain_path(path)`.

    Raises:
        ExportError: a file is not valid ONNX.
        WriteError: a file's name is too long.
    """
    second = explain_path(path)
    check_name(second)
    check_name(path, SUFFIX)
    write_external_data(model, path)
    bring_inside(model, path)
    own = described.plain_graph()
    plain = plain_graph(model, [i.name for i in own.inputs], [o.name for o in own.outputs])
    assemble.write_manifest(plain, described)
    plain.metadata_props[explain_file.METADATA_KEY] = ExplainFile(second.name).to_text()
    _save(model, second)
    _save(plain, path)
    return plain


def _save(model: ir.Model, path: Path) -> None:
    model.metadata_props[integrity.METADATA_KEY] = integrity.BLANK
    ir.save(model, path)
    assemble.check(str(path))
