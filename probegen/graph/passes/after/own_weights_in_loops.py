"""Weights of convolutions in the bodies of loops, as onnxruntime prepares them.

onnxruntime holds images in blocks of channels between convolutions only where the weights belong to
the same graph as the convolutions; a body reads them from the graph around. A reshape in the body,
to the shape that a weight has, does nothing and is folded when a session is opened: the weight is
then the body's own, and is stored in the file once nonetheless. (`gate.py` does the same for the
branches of the gate.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import new_initializer, static_shape, subgraphs_of

_LOOPS = frozenset({"Loop", "Scan"})


def own_weights_in_loops(model: ir.Model) -> None:
    """Lets convolutions in the bodies of loops read stored weights through a reshape.

    `Conv(x, w)` in a body, w stored outside -> `Conv(x, Reshape(w, shape of w))`

    Needs: shapes of weights.
    """
    graph = model.graph
    names = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/own")
    shapes: dict[tuple[int, ...], ir.Value] = {}
    for node in graph.all_nodes():
        if node.op_type in _LOOPS and not node.domain:
            for body in subgraphs_of(node):
                _own(names, graph, body, shapes)


def _own(
    names: Builder, graph: ir.Graph, body: ir.Graph, shapes: dict[tuple[int, ...], ir.Value]
) -> None:
    own: dict[ir.Value, ir.Value] = {}
    for node in list(body):
        if node.op_type != "Conv" or node.domain:
            continue
        for position, value in enumerate(node.inputs):
            if position == 0 or value is None or not value.is_initializer():
                continue
            sizes = static_shape(value)
            if sizes is None or value.graph is body:
                continue
            if value not in own:
                if sizes not in shapes:
                    array = np.asarray(sizes, np.int64)
                    shapes[sizes] = new_initializer(graph, names.fresh("shape"), array)
                copy = ir.node("Reshape", [value, shapes[sizes]], name=names.fresh("Reshape"))
                copy.outputs[0].name = names.fresh("weight")
                copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
                body.insert_before(node, copy)
                own[value] = copy.outputs[0]
            node.replace_input_with(position, own[value])
