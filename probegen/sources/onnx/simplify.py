"""A graph as a stranger exported it -> one that is ready for the walk."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.passes.after.unused_initializers import drop_unused_initializers
from probegen.graph.shape_inference import infer_shapes
from probegen.sources.onnx.constants import fold_constants, lift_constants
from probegen.sources.onnx.sizes import write_known_sizes

#: Rounds of inferring and folding: each may open the way for one more.
_ROUNDS = 12


def simplify(model: ir.Model) -> None:
    """Computes what constants and shapes decide, and infers the shapes of the rest.

    Leaves: the same inputs, the same outputs by name and order, the same values.
    """
    lift_constants(model.graph)
    common.TopologicalSortPass()(model)
    for _ in range(_ROUNDS):
        infer_shapes(model)
        changed = fold_constants(model)
        changed |= write_known_sizes(model.graph)
        if not changed:
            break
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model.graph)
