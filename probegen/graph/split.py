"""Two graphs in the place of a gate, for engines that have no `If`: one predicts, one explains."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers
from probegen.graph.passes.tidy import remove_unused_nodes, remove_unused_opsets


def plain_graph(model: ir.Model, inputs: Collection[str], predictions: Collection[str]) -> ir.Model:
    """Returns the part of a finished model that predicts, as a model of its own.

    It is what a gate has in its other branch. Weights are those of the whole: the two refer to one
    file where that refers to one.

    Args:
        model: left as it is.
        inputs: names of the inputs that the part has, whether its predictions need them or not.
        predictions: names of the outputs that it has.
    """
    part = model.clone()
    graph = part.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name in predictions]
    remove_unused_nodes(part)
    drop_unused_initializers(part)
    graph.inputs[:] = [value for value in graph.inputs if value.name in inputs]
    remove_unused_opsets(part)
    return part
