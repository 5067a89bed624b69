"""Takes out copies that nothing needs.

onnx-ir's own pass also takes out the copy that lets a subgraph return one value twice, as the
new state of a `Scan` and as what it collects. onnxruntime then gives both outputs one buffer,
and the state of the next step is wrong without any error.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.replacing import add_shape


def drop_identities(model: ir.Model) -> None:
    """Lets the readers of each Identity read its input, and drops it.

    `Relu(Identity(x))` -> `Relu(x)`

    Leaves: an Identity that makes an output of a graph out of what is an output already, or of what
    no node of that graph made.
    """
    for node in list(model.graph.all_nodes()):
        original = node.inputs[0] if node.inputs else None
        if node.op_type != "Identity" or node.domain or original is None or node.graph is None:
            continue
        copy = node.outputs[0]
        if copy.is_graph_output():
            producer = original.producer()
            if original.is_graph_output() or producer is None or producer.graph is not node.graph:
                continue
            original.name = copy.name
        add_shape(original, copy)
        ir.convenience.replace_all_uses_with(copy, original, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
