"""Clean-ups of the finished graph: passes of onnx-ir, and our own, one a file.

What `clean` leaves true: the same outputs by name and order, topological order, no node that
nothing needs, no mark.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.marks import remove_marks
from probegen.graph.passes.identities import drop_identities
from probegen.graph.passes.initializers import drop_unused_initializers
from probegen.graph.passes.transposes import cancel_transposes


def clean(model: ir.Model) -> None:
    """Removes marks, double transposes, repeated computations and what nothing needs."""
    remove_marks(model)
    drop_identities(model.graph)
    cancel_transposes(model.graph)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model.graph)
    common.RemoveUnusedOpsetsPass()(model)
    common.TopologicalSortPass()(model)
