"""Weights of convolutions in the bodies of loops, as onnxruntime prepares them.

onnxruntime holds images in blocks of channels between convolutions only where the weights belong to
the same graph as the convolutions; a body reads them from the graph around. A reshape in the body,
to the shape that a weight has, does nothing and is folded when a session is opened: the weight is
then the body's own, and is stored in the file once nonetheless. (`gate.py` does the same for the
branches of the gate.)
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import static_shape
from probegen.graph.loops.iteration import body_of, is_loop

#: Operators for which onnxruntime prepares weights only if they belong to the same graph.
_PREPARED = frozenset({"Conv"})


def own_weights_in_loops(model: ir.Model) -> None:
    """Lets convolutions in the bodies of loops read stored weights through a reshape.

    `Conv(x, w)` in a body, w stored outside -> `Conv(x, Reshape(w, shape of w))`

    Needs: shapes of weights.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/own")
    for node in graph.all_nodes():
        if is_loop(node):
            body = body_of(node)
            own_weights(b, body)
            if b.nodes:
                body.insert_before(body[0], b.nodes)
                b.nodes = []


def own_weights(b: Builder, nodes: Iterable[ir.Node]) -> None:
    """Lets the convolutions among nodes of a subgraph read the weights around it through reshapes.

    Args:
        b: where the reshapes go, each once; they are to stand before the nodes.
        nodes: of one subgraph.
    """
    own: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if node.op_type not in _PREPARED or node.domain:
            continue
        for position, value in enumerate(node.inputs):
            if position == 0 or value is None or not value.is_initializer():
                continue
            sizes = static_shape(value)
            if sizes is None or value.graph is node.graph:
                continue
            if value not in own:
                own[value] = b.op("Reshape", value, b.ints(*sizes), shape=value)
            node.replace_input_with(position, own[value])
