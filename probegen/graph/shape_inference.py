"""Infers element types and shapes of a graph in the making, marks and loops included."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as ir_passes

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of
from probegen.graph.loops.iteration import infer_with_loops
from probegen.graph.passes.before.narrow_slices import narrow_slices

_SIZES_FOLLOWED = 14


def infer_shapes(model: ir.Model) -> None:
    """Infers element types and shapes anew: tf2onnx leaves most out and some contradictory."""
    marks = [n for n in model.graph.all_nodes() if n.domain == MARK_DOMAIN]
    kinds = [n.op_type for n in marks]
    for node in marks:  # onnx knows no marks; to it they are what they do
        node.domain, node.op_type = "", "Identity"
    narrow_slices(model)
    imports = model.graph.opset_imports
    written = imports.get("", 0)
    # Only from here on inference follows the sizes of a Reshape that are computed.
    imports[""] = max(written, _SIZES_FOLLOWED)
    infer_with_loops(
        model,
        ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True),
        _spectra_of_open_length,
    )
    imports[""] = written
    for node, kind in zip(marks, kinds, strict=True):
        node.domain, node.op_type = MARK_DOMAIN, kind


def _spectra_of_open_length(model: ir.Model) -> dict[ir.Value, list[Dim]]:
    """Returns the shapes `[batch, frame, frequency, 2]` of spectra of signals of open length.

    ONNX's inference says nothing about these, not even how many axes they have.
    """
    found: dict[ir.Value, list[Dim]] = {}
    for node in model.graph.all_nodes():
        result = node.outputs[0]
        if node.op_type != "STFT" or node.domain or result.shape is not None:
            continue
        signal = None if node.inputs[0] is None else shape_of(node.inputs[0])
        width = _width_of_frames(node)
        if signal is not None and width is not None:
            count = width // 2 + 1 if attribute(node, "onesided", 1) else width
            found[result] = [signal[0], None, count, 2]
    return found


def _width_of_frames(node: ir.Node) -> int | None:
    window, length = (*node.inputs[2:4], None, None)[:2]
    constant = constant_of(length)
    if constant is not None:
        return int(constant.reshape(()))
    shape = None if window is None else shape_of(window)
    return shape[0] if shape and isinstance(shape[0], int) else None
