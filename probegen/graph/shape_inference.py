"""Infers element types and shapes of a graph in the making, marks and loops included."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir
from onnx_ir.passes import common as ir_passes

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of
from probegen.graph.loops.iteration import infer_with_loops
from probegen.graph.passes.before.narrow_slices import narrow_slices

_SIZES_FOLLOWED = 14
#: Have the sizes and the type of their first input. ONNX's inference goes through their functions,
#: in which open sizes leave not even the rank.
_AS_GIVEN = frozenset({"GroupNormalization", "MeanVarianceNormalization"})


def infer_shapes(model: ir.Model) -> None:
    """Infers element types and shapes anew: tf2onnx leaves most out and some contradictory."""
    alike = [
        n for n in model.graph.all_nodes() if n.domain == MARK_DOMAIN or key_of(n) in _AS_GIVEN
    ]
    kinds = [(n.domain, n.op_type) for n in alike]
    for node in alike:  # onnx knows no marks; to it they are what they do
        node.domain, node.op_type = "", "Identity"
    narrow_slices(model)
    imports = model.graph.opset_imports
    written = imports.get("", 0)
    # Only from here on inference follows the sizes of a Reshape that are computed.
    imports[""] = max(written, _SIZES_FOLLOWED)
    infer_with_loops(
        model,
        ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True),
        _found_here,
    )
    imports[""] = written
    for node, kind in zip(alike, kinds, strict=True):
        node.domain, node.op_type = kind


def _found_here(model: ir.Model) -> dict[ir.Value, list[Dim]]:
    """Returns the shapes of results of which ONNX's inference does not even know the rank."""
    found: dict[ir.Value, list[Dim]] = {}
    for node in model.graph.all_nodes():
        rule = _RULES.get(key_of(node))
        first = node.inputs[0] if node.inputs else None
        if rule is None or first is None or not (shape := shape_of(first)):
            continue
        for value, sizes in zip(node.outputs, rule(node, shape), strict=False):
            if value.shape is None:
                found[value] = sizes
        last = node.outputs[-1]
        if last.dtype is None and (known := ir.DataType.FLOAT if node.domain else first.dtype):
            last.dtype = known  # scores stand last
    return found


def _spectrum(node: ir.Node, signal: tuple[Dim, ...]) -> list[list[Dim]]:
    """The spectrum of a signal of open length is `[batch, frame, frequency, 2]`."""
    width = _width_of_frames(node)
    if width is None:
        return []
    return [[signal[0], None, width // 2 + 1 if attribute(node, "onesided", 1) else width, 2]]


def _width_of_frames(node: ir.Node) -> int | None:
    window, length = (*node.inputs[2:4], None, None)[:2]
    constant = constant_of(length)
    if constant is not None:
        return int(constant.reshape(()))
    shape = None if window is None else shape_of(window)
    return shape[0] if shape and isinstance(shape[0], int) else None


def _classified(node: ir.Node, rows: tuple[Dim, ...]) -> list[list[Dim]]:
    """A label a row, and a score a class."""
    labels = [
        attribute(node, f"classlabels_{kind}", None) for kind in ("strings", "int64s", "ints")
    ]
    count = next((len(names) for names in labels if names), None)
    return [[rows[0]], [rows[0], count]]


def _scored(node: ir.Node, rows: tuple[Dim, ...]) -> list[list[Dim]]:
    """A number a row for each target."""
    return [[rows[0], attribute(node, "n_targets", 1)]]


#: Operator -> the shapes of its results, of the node and the shape of its first operand.
_RULES: Mapping[str, Callable[[ir.Node, tuple[Dim, ...]], list[list[Dim]]]] = {
    "STFT": _spectrum,
    "ai.onnx.ml::TreeEnsembleClassifier": _classified,
    "ai.onnx.ml::TreeEnsembleRegressor": _scored,
    "ai.onnx.ml::TreeEnsemble": _scored,
    "ai.onnx.ml::SVMRegressor": _scored,
    # How many scores it gives hangs on the version of its runtime where it has no probabilities.
    "ai.onnx.ml::SVMClassifier": lambda _, rows: [[rows[0]], [rows[0], None]],
}
