"""Drops constants that nothing reads, in all subgraphs too.

onnxruntime warns of each one at load. onnx-ir's own pass looks at the outermost graph alone.
"""

from __future__ import annotations

import onnx_ir as ir


def drop_unused_initializers(model: ir.Model) -> None:
    """Drops the initializers without a use, of the graph and of its subgraphs.

    `y = Relu(x), initializer w` -> `y = Relu(x)`

    Leaves: those that are inputs or outputs of a graph as well.
    """
    for owner in (model.graph, *model.graph.subgraphs()):
        for name, value in list(owner.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                owner.initializers.pop(name)
                value.const_value = None  # else it lives as long as the graph
