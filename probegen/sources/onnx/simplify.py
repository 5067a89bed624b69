"""Brings the graph of any exporter into the form that is differentiated."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers
from probegen.graph.shape_inference import infer_shapes
from probegen.sources.onnx.branches import take_known_branches, take_only_valid_branches
from probegen.sources.onnx.cast_first import cast_inputs_first
from probegen.sources.onnx.composites import take_apart
from probegen.sources.onnx.constants import copy_into_bodies, fold_constants, lift_constants
from probegen.sources.onnx.defaults import open_negative_sizes, take_defaults
from probegen.sources.onnx.fixed_sizes import fix_sizes
from probegen.sources.onnx.functions import inline_functions
from probegen.sources.onnx.gradient_operator import has_gradients, lower_gradients
from probegen.sources.onnx.idle import drop_idle_nodes, leave_out_empty_pieces, refuse_training
from probegen.sources.onnx.lists_of_loops import collect_lists
from probegen.sources.onnx.names import AllNames, drop_names_of_no_size, name_all
from probegen.sources.onnx.opsets import check_opset, convert
from probegen.sources.onnx.pooling_windows import write_windows_as_padding
from probegen.sources.onnx.quantised import mark_quantised
from probegen.sources.onnx.refusals import refuse_unknown
from probegen.sources.onnx.same_sizes import join_unnamed_sizes
from probegen.sources.onnx.scores_of_outputs import turn_scores
from probegen.sources.onnx.shared_sizes import share_sizes
from probegen.sources.onnx.sizes import write_known_sizes

#: What the manifest says of a model whose gradients were written out.
WRITTEN_OUT = (
    "Gradient operators are written out; no runtime has them, so that the artefact was compared "
    "with the written out graph"
)
#: Rounds of inferring and folding: each may open the way for one more.
_ROUNDS = 60


def simplify(model: ir.Model) -> tuple[str, ...]:
    """Brings a model into the form that the reverse walk needs.

    Leaves: the same inputs, the same outputs by name and order, the same values.

    Returns:
        Sentences for the manifest: what a reader of the artefact should know of the source.

    Raises:
        SourceError: the model holds what has no form in standard operators.
    """
    check_opset(model)
    notes = [*take_defaults(model)]
    open_negative_sizes(model)
    drop_names_of_no_size(model)
    names = name_all(model)
    inline_functions(model, names)
    refuse_unknown(model)
    lift_constants(model.graph)
    common.TopologicalSortPass()(model)
    convert(model, names)
    notes += _work_out(model, names)
    while take_only_valid_branches(model, lambda copy: _work_out(copy, names)):
        notes += _work_out(model, names)
    refuse_training(model.graph)
    if share_sizes(model, write_known_sizes(model.graph)[1], names):
        notes += _work_out(model, names)
    notes += mark_quantised(model, names)
    if has_gradients(model):
        lower_gradients(model)
        _work_out(model, names)
        notes.append(WRITTEN_OUT)
    cast_inputs_first(model.graph, names)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model)
    turn_scores(model.graph, names)
    return tuple(notes)


def _work_out(model: ir.Model, names: AllNames) -> list[str]:
    """Infers shapes, and computes what they and constants decide, until nothing is left.

    Returns:
        Sentences for the manifest.
    """
    notes: list[str] = []
    for _ in range(_ROUNDS):
        drop_idle_nodes(model.graph)
        copy_into_bodies(model.graph, names)
        infer_shapes(model)
        while write_windows_as_padding(model, names):
            infer_shapes(model)
        changed = collect_lists(model, names)
        changed |= take_apart(model, names)
        changed |= fold_constants(model)
        changed |= leave_out_empty_pieces(model.graph)
        written, known = write_known_sizes(model.graph)
        changed |= written
        changed |= join_unnamed_sizes(model.graph)
        changed |= take_known_branches(model.graph)
        fixed = list(fix_sizes(model.graph, known))
        notes += fixed
        if not changed and not fixed:
            break
    return notes
