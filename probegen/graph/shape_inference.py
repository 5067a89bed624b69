"""Infers element types and shapes of a graph in the making, marks and loops included."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as ir_passes

from probegen.graph.core.marks import MARK_DOMAIN
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
        model, ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    )
    imports[""] = written
    for node, kind in zip(marks, kinds, strict=True):
        node.domain, node.op_type = MARK_DOMAIN, kind
