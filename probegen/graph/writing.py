"""Writes a finished model, with its large weights beside it where they need a file of their own."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from probegen.artefact import integrity
from probegen.artefact.weights_file import SUFFIX
from probegen.graph import assemble
from probegen.graph.external_data import bring_inside, wants_external_data, write_external_data
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
    model.metadata_props[integrity.METADATA_KEY] = integrity.BLANK
    ir.save(model, path)
    assemble.check(str(path))
