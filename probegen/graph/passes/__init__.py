"""Rewrites of the graph: passes of onnx-ir, and our own, one a file.

`prepare` runs on the forward graph before it is differentiated, `clean` on the finished one.
Both leave true: the same outputs by name and order, the same values up to rounding, topological
order. After `clean` there is no mark and no node that nothing needs.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.marks import remove_marks
from probegen.graph.passes.convolutions import merge_into_convolutions
from probegen.graph.passes.identities import drop_identities
from probegen.graph.passes.initializers import drop_unused_initializers
from probegen.graph.passes.layout import keep_blocks
from probegen.graph.passes.scales import merge_into_normalisations, scale_before_masks
from probegen.graph.passes.sums import sum_first
from probegen.graph.passes.transposes import cancel_transposes


def prepare(model: ir.Model) -> None:
    """Merges what tf2onnx left beside convolutions, where a gradient would have to pass it."""
    merge_into_convolutions(model.graph)
    merge_into_normalisations(model.graph)
    common.RemoveUnusedNodesPass()(model)


def clean(model: ir.Model) -> None:
    """Removes marks, double transposes, repeated computations and what nothing needs.

    Then it orders sums and products so that a runtime can merge them with convolutions.
    """
    remove_marks(model)
    drop_identities(model.graph)
    cancel_transposes(model.graph)
    common.CommonSubexpressionEliminationPass()(model)
    sum_first(model.graph)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model.graph)
    common.RemoveUnusedOpsetsPass()(model)
    common.TopologicalSortPass()(model)
    scale_before_masks(model.graph)
    keep_blocks(model.graph)
