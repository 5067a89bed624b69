"""Rewrites of the graph: passes of onnx-ir, and our own, one a file.

`prepare` runs on the forward graph before it is differentiated, `clean` on the finished one.
Both leave true: the same outputs by name and order, the same values up to rounding, topological
order. After `clean` there is no mark and no node that nothing needs.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.core.marks import remove_marks
from probegen.graph.passes.after.add_before_linear_op import sum_first
from probegen.graph.passes.after.drop_identities import drop_identities
from probegen.graph.passes.after.engine_readable import make_readable
from probegen.graph.passes.after.keep_blocked_layout import keep_blocks
from probegen.graph.passes.after.separate_turned_weights import keep_turned_weights_apart
from probegen.graph.passes.after.strided_phases import work_in_phases
from probegen.graph.passes.after.unused_initializers import drop_unused_initializers
from probegen.graph.passes.before.fix_reshape_targets import settle_reshapes
from probegen.graph.passes.before.join_layer_normalisation import join_layer_normalisations
from probegen.graph.passes.before.merge_into_convolutions import merge_into_convolutions
from probegen.graph.passes.before.merge_into_matrices import merge_into_matrices
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.passes.before.pools import (
    average_before_convolutions,
    pad_within_maxima,
    pool_globally,
)
from probegen.graph.passes.before.transpose_input_first import turn_first
from probegen.graph.passes.cancel_transposes import cancel_transposes
from probegen.graph.passes.captures import carry_captured, drop_fixed_states
from probegen.graph.passes.gelu import join_gelus, write_gelus
from probegen.graph.passes.scales import merge_into_normalisations, scale_before_masks


def prepare(model: ir.Model) -> None:
    """Names open sizes, joins what tf2onnx took apart, and merges what it left beside weights.

    A gradient would otherwise have to find out the first at run time, and to pass the others
    piece by piece.
    """
    drop_fixed_states(model.graph)
    name_open_sizes(model.graph)
    settle_reshapes(model.graph)
    join_layer_normalisations(model.graph)
    join_gelus(model.graph)
    cancel_transposes(model.graph)
    common.RemoveUnusedNodesPass()(model)
    merge_into_matrices(model.graph)
    turn_first(model.graph)
    merge_into_convolutions(model.graph)
    merge_into_normalisations(model.graph)
    pool_globally(model.graph)
    pad_within_maxima(model.graph)
    average_before_convolutions(model.graph)
    common.RemoveUnusedNodesPass()(model)


def clean(model: ir.Model) -> None:
    """Removes marks, double transposes, repeated computations and what nothing needs.

    Then it orders sums and products so that a runtime can merge them with convolutions, and brings
    what some engine reads wrong into a form that all read right.
    """
    work_in_phases(model.graph)
    remove_marks(model)
    write_gelus(model.graph)
    drop_identities(model.graph)
    cancel_transposes(model.graph)
    common.CommonSubexpressionEliminationPass()(model)
    sum_first(model.graph)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.TopologicalSortPass()(model)
    scale_before_masks(model.graph)
    keep_blocks(model.graph)
    keep_turned_weights_apart(model.graph)
    carry_captured(model.graph)
    make_readable(model.graph)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model.graph)
